"""A disk that is full at any write of a run: it stops with that reason, the same command goes on to equal bits."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.cli import app
from flows.errors import UserError
from flows.running import run_file
from flows.steps import Options, check_root
from harness import files
from harness.learner import BUILTIN
from harness.ledger import Ledger
from tests.flows.conftest import ROOT, command, environment
from tests.invariants import check_invariants, weights

TRIALS = "trials: [{learner: toy, steps: 6, seeds: 2, report_every: 1, evaluate_every: 3, checkpoint_every: 2}]"


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")

    def page(experiment: object, trials: object, root: Path, out: Path, shared: bool = False) -> None:
        files.write_text(out, "page")

    monkeypatch.setattr("harness.report.build_page", page)


def run(folder: Path, root: Path) -> int:
    file = folder / "e.yaml"
    file.write_text(f"name: e\n{TRIALS}\n")
    return run_file(file, [], Options(str(root), "inline", tracker="files"), prefect=False, as_json=False)


class Disk:
    """Is full from the n-th write on."""

    def __init__(self) -> None:
        self.left = 10**9
        self.count = 0

    def take(self) -> None:
        self.count += 1
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Counts writes of files and of the ledger."""
    found = Disk()
    real = files.room_for

    @contextmanager
    def room_for(path: Path) -> Iterator[None]:
        with real(path):
            found.take()
            yield

    def statement(connection: object, cursor: object, text: str, *rest: object) -> None:
        if text.split()[0] in ("INSERT", "UPDATE", "DELETE", "CREATE"):
            try:
                found.take()
            except OSError:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise sa.exc.OperationalError(text, {}, error) from error

    for module in [m for m in sys.modules.values() if getattr(m, "room_for", None) is real]:
        monkeypatch.setattr(module, "room_for", room_for)
    sa.event.listen(sa.Engine, "before_cursor_execute", statement)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", statement)


def _check(folder: Path, disk: Disk, whole: dict[str, str], room: int, capsys: pytest.CaptureFixture[str]) -> int:
    """Runs with room for so many writes, then with enough; returns the first exit status."""
    root = folder / f"{room}"
    disk.left = room
    first = run(folder, root)
    said = " ".join(capsys.readouterr())
    assert "no space left on the disk" in said
    disk.left = 10**9
    states = {row["state"] for row in Ledger(root / "ledger.sqlite").trials("e")}
    assert "failed" not in states
    if first == 0:
        assert states == {"done"}
    assert run(folder, root) == 0, room
    check_invariants(root, "e", every=1)
    assert weights(root, "e") == whole, room
    assert (root / "experiments" / "e" / "page.html").read_text() == "page"
    assert not [path for path in root.rglob(".*")]
    shutil.rmtree(root)
    return first


def _campaign(folder: Path, disk: Disk, capsys: pytest.CaptureFixture[str], stride: int) -> None:
    assert run(folder, folder / "whole") == 0
    writes = disk.count
    whole = weights(folder / "whole", "e")
    capsys.readouterr()
    rooms = [*range(0, writes - 1, stride), writes - 1]
    codes = {room: _check(folder, disk, whole, room, capsys) for room in rooms}
    assert set(codes.values()) == {0, 130}
    last = max(room for room, code in codes.items() if code == 130)
    assert all(code == 130 for room, code in codes.items() if room <= last)  # 0 only when all is in the ledger


def test_a_disk_full_at_some_writes(tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]):
    _campaign(tmp_path, disk, capsys, stride=31)


@pytest.mark.slow
def test_a_disk_full_at_any_write(tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]):
    _campaign(tmp_path, disk, capsys, stride=1)


@pytest.mark.parametrize("command_", ["run", "plan"])
def test_a_run_root_that_cannot_be_written_is_one_sentence(tmp_path: Path, command_: str):
    (tmp_path / "e.yaml").write_text("name: e\ntrials: [{learner: classifier, data: digits}]\n")
    (tmp_path / "taken").touch()
    done = CliRunner().invoke(app, [command_, str(tmp_path / "e.yaml"), "--root", str(tmp_path / "taken" / "runs")])
    assert done.exit_code == 2
    sentence = f"cannot be made: {tmp_path}/taken is not a folder; name another --root"
    assert done.stderr == f"the run root {tmp_path}/taken/runs {sentence}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.yaml", "taken"]


def test_a_read_only_run_root_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match=r"cannot be written: .* is read-only; name another --root") as caught:
        check_root(tmp_path / "runs")
    assert caught.value.usage


DIGITS = """name: full
seeds: 2
trials:
  - learner: classifier
    data: digits
    net: {kind: mlp, hidden_features: 64, depth: 2}
    batch: 32
    train_rows: 320
    epochs: 12
    report_every: 320
    checkpoint_every: 640
    resources: {mode: eager}
"""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a disk of so many KiB, or makes one that is mounted larger."""
    mounts: list[Path] = []

    def mount(kib: int, there: Path | None = None) -> Path:
        place = there or tmp_path / f"disk{kib}"
        place.mkdir(exist_ok=True)
        options = f"{'remount,' if there else ''}size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting a small disk needs root")
        if there is None:
            mounts.append(place)
        return place

    yield mount
    for place in mounts:
        subprocess.run(["umount", "-l", place], check=True)


def _run_digits(folder: Path, root: Path, *flags: str) -> tuple[int, str]:
    arguments = ("run", folder / "full.yaml", "--root", root, "--no-prefect", "--executor", "inline", *flags)
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(WANDB_MODE="offline"),
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def _metrics(root: Path) -> dict[str, list[dict[str, object]]]:
    """Trial -> the lines of its metrics, but for the clock."""
    lines = {file.parent.name: file.read_text().splitlines() for file in root.glob("trials/*/metrics.jsonl")}
    return {name: [{**json.loads(line), "seconds": 0} for line in found] for name, found in lines.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tracker", ["files", "offline"])
def test_disks_of_several_sizes(tmp_path: Path, mounted: Callable[..., Path], tracker: str):
    (tmp_path / "full.yaml").write_text(DIGITS)
    assert _run_digits(tmp_path, tmp_path / "whole", "--tracker", "files")[0] == 0
    whole, codes = weights(tmp_path / "whole", "full"), []
    for kib in (40, 256, 448, 640, 1400):
        root = mounted(kib)
        code, said = _run_digits(tmp_path, root, "--tracker", tracker)
        assert "Traceback" not in said
        assert "no space left" in said or (code == 0 and "missing; `seedbed sync` delivers them" in said), said
        codes.append(code)
        mounted(65536, root)
        assert _run_digits(tmp_path, root, "--tracker", tracker)[0] == 0
        assert weights(root, "full") == whole
        assert _metrics(root) == _metrics(tmp_path / "whole")
        assert {path.name for path in root.rglob(".*")} <= {".lock"}
    assert codes == sorted(codes, reverse=True)
    assert set(codes) == {0, 130}
