"""Submission to a real Ray head with token authentication."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import ROOT, command, environment, last_json, read_until, seedbed

TOKEN = "0123456789abcdef" * 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head that wants a token."""
    folder = tempfile.mkdtemp(prefix="sbr-", dir="/tmp")  # short: the paths of its sockets are limited
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, agent = free.getsockname()[1], other.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_JOB_STOP_WAIT_TIME_S="30", PATH=path)
    env.pop("PYTHONPATH")  # the project has to travel
    arguments = ["--head", "--port=0", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1", "--num-cpus=2"]
    arguments += [f"--dashboard-agent-listen-port={agent}"]  # another Ray may hold the usual one
    arguments += [f"--temp-dir={folder}", "--disable-usage-stats", "--object-store-memory=100000000"]
    ray = Path(sys.executable).with_name("ray")
    subprocess.run([str(ray), "start", *arguments], env=env, check=True, capture_output=True, timeout=200)
    yield f"http://127.0.0.1:{port}"
    for process in psutil.process_iter(["cmdline", "environ"]):  # not all of them are told the folder
        mine = (process.info["environ"] or {}).get("RAY_AUTH_TOKEN_PATH") == str(token)
        if mine or any(folder in part for part in process.info["cmdline"] or []):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def submit(file: Path, root: Path, head: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Submits from the project's folder."""
    arguments = command("submit", file.name, "--root", root, "--ray-address", head, "--tracker", "files")
    return subprocess.run(
        arguments, cwd=file.parent, env=environment(**env), capture_output=True, text=True, timeout=400
    )


def test_refused_without_the_token(
    head: str, tmp_path: Path, write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    file, root = write_experiment(), tmp_path / "runs"
    for env, words in (({}, "wants a token"), ({"RAY_AUTH_TOKEN": "f" * 64}, "refused the token")):
        done = submit(file, root, head, **env)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not root.exists()
    assert not (tmp_path / ".ray").exists()


def test_job_completes_in_the_same_run_root_and_a_second_submission_attaches(
    head: str, tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    file, root = write_experiment(n=60, sleep=0.2, seeds=1), tmp_path / "runs"
    arguments = command("submit", file.name, "--root", root, "--ray-address", head, "--tracker", "files")
    env = environment(RAY_AUTH_TOKEN=TOKEN)
    first = subprocess.Popen(
        arguments, cwd=file.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        name = read_until(first, "submitted as job")[-1].split()[-1]
        read_until(first, "Running entrypoint")
        first.send_signal(signal.SIGINT)
        told = first.communicate(timeout=60)[0]
        assert "detached; the job goes on" in told
        assert f"Stop: seedbed stop small --ray-address {head}" in told
    finally:
        first.kill()
        first.communicate()
    second = submit(file, root, head, RAY_AUTH_TOKEN=TOKEN)
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"attached to job {name}" in second.stdout
    assert "seed 0: done" in second.stdout
    status = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert (status["state"], status["trials"][0]["attempts"]) == ("done", 1)
    assert TOKEN not in second.stdout + second.stderr + environment_of(head, name)


def environment_of(head: str, name: str) -> str:
    """What the Jobs API tells everybody about a job."""
    code = (
        "import sys\nfrom ray.job_submission import JobSubmissionClient\n"
        "print(JobSubmissionClient(sys.argv[1]).get_job_info(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, head, name]
    env = environment(RAY_AUTH_TOKEN=TOKEN, RAY_AUTH_MODE="token")
    done = subprocess.run(arguments, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    assert name in done.stdout
    return done.stdout


def test_the_stop_that_is_printed_stops_the_job(
    head: str, tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    file, root = write_experiment(n=600, sleep=0.2, seeds=1), tmp_path / "runs"
    arguments = command("submit", file.name, "--root", root, "--ray-address", head, "--tracker", "files")
    env = environment(RAY_AUTH_TOKEN=TOKEN)
    job = subprocess.Popen(
        arguments, cwd=file.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        read_until(job, "training at")
        done = seedbed("stop", "small", "--ray-address", head, RAY_AUTH_TOKEN=TOKEN)
        assert done.stdout == "small is stopped; the same `seedbed submit` goes on\n", done.stderr
        assert "the job was stopped" in job.communicate(timeout=60)[0]
        assert job.returncode == 130
    finally:
        job.kill()
        job.communicate()
    status = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert (status["state"], status["trials"][0]["state"]) == ("stopped", "stopped")
