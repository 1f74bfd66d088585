"""`seedbed submit`: an experiment file as a job on a Ray cluster, followed from here.

The project travels as the job's working directory. The job's id follows from the experiment's name and the file, so a
second submission attaches to the first while it runs. The token travels in the requests' headers and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.errors import UserError
from flows.project import named_files, outside, project_files
from harness.executors.access import WHERE_TOKENS_ARE, find_token, use_token
from harness.experiment import load_experiment

__all__ = ["job_name", "stop_job", "submit_file"]

SIZE_LIMIT = 100 * 1024 * 1024
OUR_PACKAGES = ("flows", "agents", "generative", "supervised", "harness", "nets")
LIVE = ("PENDING", "RUNNING")
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
AGENT_PORT = 52365  # Ray's own choice
AGENT_SECONDS = 60.0  # for a head that has just started to take jobs
LEAST_RETRY_SECONDS = 1.0
STOP_SECONDS = 120.0


def submit_file(file: Path, overrides: Sequence[str], root: Path, address: str, flags: Sequence[str]) -> int:
    """Submits an experiment file, or attaches to the job that runs it; follows the log to the job's end.

    Args:
        file: the experiment file.
        overrides: "trials.0.lr=1e-3" and the like.
        root: the run root, as the cluster sees it.
        address: of the cluster's dashboard.
        flags: more options of `seedbed run`.

    Returns:
        The job's exit status; 130 if it was stopped, or if the user detached.

    Raises:
        SpecError: the file is wrong; nothing was submitted.
        UserError: the cluster cannot be reached, refuses us, or the project is too large.
    """
    experiment = load_experiment(file, overrides)
    client = _connect(address)
    with _explained(address):
        jobs = {job.submission_id: str(job.status.value) for job in client.list_jobs() if job.submission_id}
        name, live = job_name(experiment.name, experiment.text, jobs)
        if live:
            print(f"attached to job {name}, which runs this file already", flush=True)
        else:
            entry = _entrypoint(file, overrides, root, flags)
            for path in outside(experiment.spec):
                print(f"{path} does not travel: the workers look for it on their own machines", flush=True)
            with _staged(file, experiment.spec) as folder:
                _send(client, address, entrypoint=entry, submission_id=name, runtime_env={"working_dir": str(folder)})
            print(f"submitted as job {name}", flush=True)
        try:
            return _follow(client, name)
        except KeyboardInterrupt:
            stop = shlex.join(["seedbed", "stop", experiment.name, "--ray-address", address])
            print(f"\ndetached; the job goes on. Attach: the same command. Stop: {stop}", flush=True)
            return 130


def _send(client: Any, address: str, **job: Any) -> None:
    """Submits a job; a head that has just started has no agent to take jobs for some seconds."""
    give_up = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > give_up:
                raise UserError(f"the Ray cluster at {address} takes no jobs: {_why_no_agent(address)}") from None
            time.sleep(1.0)


def _why_no_agent(address: str) -> str:
    """Why none of a cluster's nodes takes jobs, as far as one can tell from here."""
    mend = f"stop that one, or start this one with --dashboard-agent-listen-port={AGENT_PORT + 1}"
    if urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1"):
        import psutil

        held = [c for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == AGENT_PORT and c.raddr == ()]
        if held:
            who = f" (process {held[0].pid})" if held[0].pid else ""
            return f"another Ray on this machine{who} holds the port {AGENT_PORT} of its job agent; {mend}"
    return f"its head has no job agent; where another Ray on that machine holds the agent's port {AGENT_PORT}, {mend}"


def stop_job(name: str, address: str) -> int:
    """Stops the job that runs an experiment on a Ray cluster and waits until it has ended.

    Args:
        name: the experiment's.
        address: of the cluster's dashboard.

    Raises:
        UserError: the cluster cannot be reached or refuses us, or the job does not end.
    """
    client = _connect(address)
    pattern = re.compile(rf"seedbed-{re.escape(name)}-[0-9a-f]{{12}}(-e\d+)?")
    with _explained(address):
        live = [
            str(job.submission_id)
            for job in client.list_jobs()
            if pattern.fullmatch(job.submission_id or "") and str(job.status.value) in LIVE
        ]
        if not live:
            print(f"{name} is not running at {address}")
            return 0
        for job in live:
            client.stop_job(job)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end:
            if all(str(client.get_job_status(job).value) not in LIVE for job in live):
                print(f"{name} is stopped; the same `seedbed submit` goes on")
                return 0
            time.sleep(0.5)
    raise UserError(f"{name} was asked to stop, but job {', '.join(live)} still runs; it stops at its next boundary")


def job_name(name: str, text: str, jobs: dict[str, str]) -> tuple[str, bool]:
    """The job's id and whether it lives: from the experiment's name, the file's text, and an epoch after the first.

    Args:
        name: the experiment's.
        text: the file, overrides applied.
        jobs: id -> status of the jobs that the cluster knows.
    """
    base = f"seedbed-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    epoch, job = 1, base
    while job in jobs and jobs[job] not in LIVE:
        epoch += 1
        job = f"{base}-e{epoch}"
    return job, job in jobs


def _connect(address: str) -> Any:
    if not (address.startswith(("http://", "https://")) and urlsplit(address).hostname):  # Ray would try other things
        form = "--ray-address takes the address of the cluster's dashboard, like http://HOST:8265"
        raise UserError(f"{form}; given {address!r}", usage=True)
    use_token()
    with _explained(address):
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(address)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        return client


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turns what the cluster answers into one sentence."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (ConnectionError, OSError):
        raise UserError(f"no Ray cluster answers at {address}; is its dashboard running?") from None
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the Ray cluster at {address} answered: {str(error).strip()[:300]}") from None
    except AuthenticationError:
        if find_token() is None:
            raise UserError(f"the Ray cluster at {address} wants a token: {WHERE_TOKENS_ARE}", usage=True) from None
        raise UserError(f"the Ray cluster at {address} refused the token", usage=True) from None


def _entrypoint(file: Path, overrides: Sequence[str], root: Path, flags: Sequence[str]) -> str:
    inside = Path(file).resolve().relative_to(_project(file))
    command = ["python", "-m", "flows.cli", "run", str(inside), "--executor", "ray", "--ray-address", "auto"]
    command += ["--root", str(Path(root).resolve()), "--no-prefect", *flags]
    for one in overrides:
        command += ["--set", one]
    return shlex.join(command)


def _project(file: Path) -> Path:
    """The folder that travels: where the command runs, or the file's own where it lies elsewhere."""
    here, file = Path.cwd().resolve(), Path(file).resolve()
    return here if file.is_relative_to(here) else file.parent


@contextlib.contextmanager
def _staged(file: Path, spec: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder with everything that travels: the user's project, and our packages where it lacks them.

    Raises:
        UserError: it is too large, has folders with the names of our packages, or a file that is needed is elsewhere.
    """
    project = _project(file)
    names = dict.fromkeys([*project_files(project), *named_files(spec, project, Path(file).resolve())])
    # Ray would apply git's rules again, also to what git tracks, or the experiment names, in spite of them
    chosen = {name: project / name for name in names if name.name != ".gitignore"}
    ours = Path(__file__).resolve().parents[1]
    if not (project / "flows" / "cli.py").is_file():  # not a checkout of Seedbed
        if taken := [package for package in OUR_PACKAGES if (project / package).is_dir()]:
            text = f"{project} has a folder {taken[0]}, which is also a package of Seedbed's, and would hide that"
            raise UserError(f"{text} on the cluster; rename it", usage=True)
        for package in OUR_PACKAGES:
            files = [p for p in (ours / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
            chosen.update({p.relative_to(ours): p for p in files})
    size = sum(path.stat().st_size for path in chosen.values())
    if size > SIZE_LIMIT:
        largest = max(chosen, key=lambda name: chosen[name].stat().st_size)
        raise UserError(
            f"the project {project} is {size / 2**20:.0f} MiB, at most {SIZE_LIMIT // 2**20} MiB may travel; its "
            f"largest file is {largest}; name what stays here in .gitignore",
            usage=True,
        )
    with tempfile.TemporaryDirectory(prefix="seedbed-") as name:
        for inside, path in chosen.items():
            target = Path(name, inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        yield Path(name)


def _follow(client: Any, job: str) -> int:
    """Prints the job's log until it ended; a broken connection is taken up again where it broke."""
    shown = 0
    while True:
        with contextlib.suppress(RuntimeError, OSError):
            shown = asyncio.run(_tail(client, job, shown))
        details = client.get_job_info(job)
        status = str(details.status.value)
        if status not in LIVE:
            rest = client.get_job_logs(job)[shown:]
            sys.stdout.write(rest)
            sys.stdout.flush()
            return _exit_code(status, details)
        time.sleep(LEAST_RETRY_SECONDS)


async def _tail(client: Any, job: str, shown: int) -> int:
    seen = 0
    async for text in client.tail_job_logs(job):
        fresh = text[max(0, shown - seen) :]
        seen += len(text)
        if fresh:
            sys.stdout.write(fresh)
            sys.stdout.flush()
            shown = seen
    return max(shown, seen)


def _exit_code(status: str, details: Any) -> int:
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        print("the job was stopped; the same command goes on where it ended", file=sys.stderr)
        return 130
    code = getattr(details, "driver_exit_code", None)
    if code is None:
        print(f"the job failed: {details.message}", file=sys.stderr)
    return int(code) if code else 1
