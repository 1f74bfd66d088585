"""A rebuilt ledger: finished trials keep their results, unfinished ones resume to the bits of an uninterrupted run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN
from harness.ledger import BusyError, Ledger, LedgerError
from harness.repairing import repair

TEXT = """name: e
trials:
  - {learner: toy, steps: 20, checkpoint_every: 5, report_every: 5, seeds: 2}
  - {learner: toy, steps: 30, checkpoint_every: 5, report_every: 5, seeds: 2}
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")


def driver(root: Path, **more: Any) -> Driver:
    file = root.parent / "e.yaml"
    file.write_text(TEXT)
    return Driver(load_experiment(file), root, executor="inline", **more)


def files(root: Path) -> dict[str, Any]:
    """What trials end with: their metrics but for the seconds, the bits of their networks, their scores."""
    found = {}
    for folder in sorted((root / "trials").glob("*")):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        result = json.loads((folder / "result.json").read_text())
        kept = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
        found[folder.name] = (kept, (folder / "final.safetensors").read_bytes(), result["score"], result["state"])
    return found


def stopped(root: Path) -> Path:
    """A run that stops in the second cohort: two trials are done, two are not."""
    seen = []

    def hear(event: dict[str, Any]) -> None:
        seen.append(event)
        if sum(e["kind"] == "trial" for e in seen) == 2 and event["kind"] == "report":
            running.request_stop()

    running = driver(root, on_event=hear)
    assert running.train().state == "stopped"
    running.ledger.close()
    return root


def rows(root: Path) -> list[dict[str, Any]]:
    ledger = Ledger(root / "ledger.sqlite")
    try:
        return ledger.trials("e")
    finally:
        ledger.close()


def damage(root: Path, kind: str) -> None:
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (root / name).unlink(missing_ok=True)
    file = root / "ledger.sqlite"
    if kind == "lost":
        file.unlink()
    elif kind == "not a database":
        file.write_bytes(b"words, not a database" * 400)
    else:
        data = bytearray(file.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        file.write_bytes(data)


@pytest.mark.parametrize("kind", ["lost", "not a database", "overwritten"])
def test_a_rebuilt_ledger_resumes_to_equal_bits(tmp_path: Path, kind: str):
    oracle, root = tmp_path / "oracle", stopped(tmp_path / "root")
    driver(oracle).train()
    before = rows(root)
    damage(root, kind)
    with pytest.raises(LedgerError, match=f"seedbed repair --root {root}"):
        driver(root).train()
    done = repair(root)
    assert done.states == {"done": 2, "stopped": 2}
    assert done.experiments == ["e"]
    assert done.unreadable == []
    assert bool(done.kept) == (kind != "lost")  # with its -wal and -shm, where they were left
    after = rows(root)
    same = ("id", "learner", "version", "seed", "config", "resources", "state", "score_name", "score", "progress")
    also = ("budget", "unit", "cohort", "lane", "label", "entry", "trained_by", "reused", "seconds")
    for name in (*same, *also):
        assert [row[name] for row in after] == [row[name] for row in before], name
    again = driver(root)
    assert again.train().state == "done"
    assert files(root) == files(oracle)
    attempts = {row["state"]: row["attempts"] for row in after}
    assert attempts == {"done": 1, "stopped": 1}
    assert sorted(row["attempts"] for row in rows(root)) == [1, 1, 2, 2]  # done ones were not trained again


def test_what_cannot_be_read_is_named_and_trained_again(tmp_path: Path):
    oracle, root = tmp_path / "oracle", tmp_path / "root"
    driver(oracle).train()
    driver(root).train()
    first, second = sorted((root / "trials").glob("*"))[:2]
    (first / "config.json").write_text("{")
    (second / "result.json").write_text('{"trial": "another"}')
    damage(root, "lost")
    done = repair(root)
    assert [text.split(":")[0] for text in done.unreadable] == [str(first)]
    assert done.states == {"done": 2, "stopped": 1}
    assert driver(root).train().state == "done"
    assert files(root) == files(oracle)


def test_a_sound_ledger_stays_as_it_is(tmp_path: Path):
    root = stopped(tmp_path / "root")
    before = rows(root)
    assert repair(root).sound
    assert rows(root) == before
    assert sorted(path.name for path in root.glob("ledger*")) == ["ledger.sqlite"]


def test_a_ledger_in_use_is_left_alone(tmp_path: Path):
    root = stopped(tmp_path / "root")
    code = "import sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute('select 1 from trials'); print(); input()"
    command = [sys.executable, "-c", code, str(root / "ledger.sqlite")]
    user = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert user.stdout is not None
    user.stdout.readline()
    try:
        with pytest.raises(BusyError, match=f"process {user.pid} uses"):
            repair(root)
    finally:
        user.communicate(b"\n")
    ledger = Ledger(root / "ledger.sqlite")
    with ledger.drive("e", "e.yaml"), pytest.raises(BusyError, match="experiment e is being run"):
        repair(root)
    ledger.close()


def test_the_command_says_what_it_found(tmp_path: Path):
    root = stopped(tmp_path / "root")
    damage(root, "overwritten")
    for command in (["status", "e"], ["report", "e"], ["logs", "e"], ["stop", "e"]):
        failed = CliRunner().invoke(app, [*command, "--root", str(root)])
        if command[0] == "logs":
            continue
        assert failed.exit_code == 1, failed.output
        assert f"seedbed repair --root {root}" in failed.output
        assert "Traceback" not in failed.output
    done = CliRunner().invoke(app, ["repair", "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert "trials: 2 done, 2 stopped\nexperiments: e\n" in done.output

    nothing = CliRunner().invoke(app, ["repair", "--root", str(tmp_path / "empty")])
    assert nothing.exit_code == 2
    assert "is it a run root?" in nothing.output
    assert not (tmp_path / "empty").exists()
