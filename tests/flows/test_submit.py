"""`seedbed submit` and `seedbed stop --ray-address`: what travels, and what is said where it does not work."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import submit
from flows.errors import UserError
from flows.project import named_files, outside, project_files

SPEC: dict[str, Any] = {"name": "small", "trials": [{"learner": "ppo"}]}


def project(folder: Path) -> Path:
    for name in (
        "small.yaml",
        "src/train.py",
        ".venv/lib.py",
        "runs/ledger.sqlite",
        ".mypy_cache/x",
        "a/__pycache__/y",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder / "small.yaml"


def test_project_leaves_out_what_is_made(tmp_path: Path) -> None:
    project(tmp_path)
    assert sorted(map(str, project_files(tmp_path))) == ["small.yaml", "src/train.py"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("src/\n")
    assert sorted(map(str, project_files(tmp_path))) == [".gitignore", "small.yaml"]


def test_project_travels_with_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path)
    monkeypatch.chdir(tmp_path)
    with submit._staged(file, SPEC) as folder:
        assert (folder / "src" / "train.py").read_text() == "x"
        assert (folder / "flows" / "cli.py").exists()
        assert (folder / "harness" / "driver.py").exists()
    assert not folder.exists()
    entry = submit._entrypoint(file, ["trials.0.lr=1 e"], Path("runs"), ["--workers", "2"])
    assert entry == (
        "python -m flows.cli run small.yaml --executor ray --ray-address auto "
        f"--root {tmp_path / 'runs'} --no-prefect --workers 2 --set 'trials.0.lr=1 e'"
    )


def test_too_large_a_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path)
    with (tmp_path / "big.bin").open("wb") as big:
        big.truncate(submit.SIZE_LIMIT + 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"big\.bin") as error, submit._staged(file, SPEC):
        pass
    assert error.value.usage


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def sent(folder: Path) -> set[str]:
    return {name.as_posix() for name in project_files(folder)}


@pytest.mark.parametrize("git", [True, False])
def test_links_and_code_in_folders_of_any_name_travel(tmp_path: Path, git: bool) -> None:
    root, store = tmp_path / "project", tmp_path / "store"
    code = {"src/build/__init__.py", "src/runs/a.py", "src/dist/b.py", "src/wandb/c.py", "kv_cache/d.py", "build/e.py"}
    write(root, "e.yaml", *code)
    write(root, "runs/ledger.sqlite", "runs/trials/x", "src/build2/.mypy_cache/x", "a/__pycache__/y", "env/pyvenv.cfg")
    write(root, "env/lib/z.py", "wandb/run-1/files", "sub/build/lib/s.py", "sub/dist/s.whl", "s.egg-info/PKG-INFO")
    write(store, "rows.csv", "deep/more.csv")
    if git:
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        subprocess.run(["git", "init", "-q", str(store)], check=True)
        write(store, ".gitignore")
        (store / ".gitignore").write_text("*.csv\n")  # another repository's rules are not ours
    (root / "data").symlink_to(store)
    (root / "one.csv").symlink_to(store / "rows.csv")
    (store / "back").symlink_to(root)
    (root / "self").symlink_to(root)
    linked = {"data/rows.csv", "data/deep/more.csv", "one.csv"} | ({"data/.gitignore"} if git else set())
    assert sent(root) == {"e.yaml", *code, *linked}


def test_submodules_travel(tmp_path: Path) -> None:
    root, other = tmp_path / "project", tmp_path / "other"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    for folder in (root, other):
        write(folder, "code.py")
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    for words in (["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(other), *who, *words], check=True, env=env)
    words = ["submodule", "--quiet", "add", str(other), "lib/sub"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, env=env, capture_output=True)
    write(root, "nested/inside.py")
    subprocess.run(["git", "init", "-q", str(root / "nested")], check=True)
    assert sent(root) == {"code.py", ".gitmodules", "lib/sub/code.py", "nested/inside.py"}


def test_what_git_ignores_but_the_experiment_names_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "e.yaml", "mine.py", "pictures/a/1.png", "rows.csv", "other.csv", "more.jsonl")
    (tmp_path / ".gitignore").write_text("*.csv\npictures/\nmine.py\ne.yaml\n*.jsonl\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    trials = [
        {"learner": "classifier", "data": "pictures", "grid": {"data": ["./rows.csv", "digits"]}},
        {"learner": "function", "call": "mine:train", "config": {"deep": [{"file": "more.jsonl"}]}},
        {"learner": "x" * 5000, "data": "nul\0byte"},
    ]
    file = tmp_path / "e.yaml"
    with submit._staged(file, {"name": "other.csv", "trials": trials}) as folder:
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    ours = {name for name in there if name.split("/")[0] in submit.OUR_PACKAGES}
    # no .gitignore: Ray would apply it to what it packs
    assert there - ours == {"e.yaml", "mine.py", "pictures/a/1.png", "rows.csv", "more.jsonl"}
    assert "flows/cli.py" in ours


def test_a_table_whose_columns_are_named_behind_it_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    write(root, "e.yaml", "data/reviews.csv")
    write(tmp_path, "away.jsonl")
    monkeypatch.chdir(root)
    names = "?text=Review%20Text&label=Stars"
    spec = {"trials": [{"data": f"data/reviews.csv{names}"}, {"data": "gone.csv?wrong"}]}
    assert named_files(spec, root, root / "e.yaml") == [Path("e.yaml"), Path("data/reviews.csv")]
    with pytest.raises(UserError, match=r"\.\./away\.jsonl\?text=Review%20Text&label=Stars lies outside of"):
        named_files({"trials": [{"data": f"../away.jsonl{names}"}]}, root, root / "e.yaml")
    far = str(tmp_path / "away.jsonl")
    assert outside({"trials": [{"data": far + names}]}) == [far]


def test_what_cannot_travel_is_named_before_the_job_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    write(root, "e.yaml", "agents/mine.py")
    write(tmp_path, "rows.csv")
    monkeypatch.chdir(root)
    spec = {"trials": [{"data": "../rows.csv"}]}
    with pytest.raises(UserError, match=r"\.\./rows\.csv lies outside of .*project, which is what travels; move it"):
        named_files(spec, root, root / "e.yaml")
    assert outside({"trials": [{"data": str(tmp_path / "rows.csv"), "x": "/no/such"}]}) == [str(tmp_path / "rows.csv")]
    with pytest.raises(UserError, match="has a folder agents, which is also a package of Seedbed's"):  # noqa: SIM117
        with submit._staged(root / "e.yaml", SPEC):
            pass


# -- the cluster -------------------------------------------------------------------------------------------------


class Client:
    """A cluster's Jobs API, as far as it is used here."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = jobs
        self.stopped: list[str] = []

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(submission_id=i, status=SimpleNamespace(value=s)) for i, s in self.jobs.items()]

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)
        self.jobs[job] = "STOPPED"

    def get_job_status(self, job: str) -> Any:
        return SimpleNamespace(value=self.jobs[job])

    def submit_job(self, **job: Any) -> None:
        raise RuntimeError("Request failed with status code 500: No available agent to submit job")


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "ftp://x y", "http://", "auto"])
def test_an_address_that_is_not_a_dashboards_is_one_sentence(address: str) -> None:
    with pytest.raises(UserError, match="takes the address of the cluster's dashboard, like http://HOST:8265; given '"):
        submit.stop_job("a", address)


def test_the_jobs_of_an_experiment_are_stopped_and_no_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end = "0123456789ab"
    client = Client(**{f"seedbed-a-{end}": "FAILED", f"seedbed-a-{end}-e2": "RUNNING", f"seedbed-a-b-{end}": "RUNNING"})
    monkeypatch.setattr(submit, "_connect", lambda address: client)
    assert submit.stop_job("a", "http://127.0.0.1:8265") == 0
    assert client.stopped == [f"seedbed-a-{end}-e2"]
    assert submit.stop_job("a", "http://127.0.0.1:8265") == 0
    assert capsys.readouterr().out.splitlines() == [
        "a is stopped; the same `seedbed submit` goes on",
        "a is not running at http://127.0.0.1:8265",
    ]


@pytest.mark.parametrize(
    ("address", "held", "text"),
    [
        (
            "http://127.0.0.1:8265",
            True,
            r"another Ray on this machine \(process 7\) holds the port 52365 of its job agent",
        ),
        ("http://127.0.0.1:8265", False, "its head has no job agent; where another Ray on that machine holds the"),
        ("http://far:8265", True, "its head has no job agent; where another Ray on that machine holds the"),
    ],
)
def test_a_head_without_a_job_agent_is_explained(
    address: str, held: bool, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "AGENT_SECONDS", -1.0)
    listening = SimpleNamespace(laddr=SimpleNamespace(port=52365), raddr=(), pid=7)
    monkeypatch.setattr("psutil.net_connections", lambda kind: [listening] if held else [])
    with pytest.raises(UserError, match=f"^the Ray cluster at {address} takes no jobs: {text}") as error:
        submit._send(Client(), address, entrypoint="x")
    assert "--dashboard-agent-listen-port=52366" in str(error.value)
