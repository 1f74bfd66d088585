"""States, committed lines and holds: the part that knows nothing of wandb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking import FilesTracker, make_tracker
from harness.tracking.client import WandbOffline, WandbOnline
from harness.tracking.state import RunState, hold, offline_folders, read_lines, report_id, wandb_folder


def test_lines_end_at_the_committed_byte_and_never_repeat(tmp_path: Path) -> None:
    """A line beyond the committed byte, a torn line, and progress that was there already are left out."""
    path = tmp_path / "metrics.jsonl"
    texts = [json.dumps({"progress": p}) + "\n" for p in (10, 20, 30, 30, 40)]
    path.write_text("".join(texts) + '{"progress": 5')
    everything = path.stat().st_size
    assert [line["progress"] for line in read_lines(path, everything)] == [10, 20, 30, 40]
    assert [line["progress"] for line in read_lines(path, len(texts[0]) * 2)] == [10, 20]
    assert [line["progress"] for line in read_lines(path, len(texts[0]) * 2 - 1)] == [10]
    assert [line["progress"] for line in read_lines(path, everything, after=20)] == [30, 40]
    assert read_lines(path, 0) == []
    assert read_lines(tmp_path / "none", 100) == []


def test_state_survives_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    """What is written is read; half a file is the same as no file."""
    state = RunState("ab12", meta={"name": "x"}, fed=7, final={"state": "done", "reason": "", "score": {}})
    state.write(tmp_path)
    again = RunState.read(tmp_path, "ab12")
    assert again == state
    assert again.digest == state.digest != ""
    path = wandb_folder(tmp_path) / "ab12.json"
    path.write_text(path.read_text()[:20])
    assert RunState.read(tmp_path, "ab12") is None
    assert RunState.read(tmp_path, "none") is None


@pytest.mark.parametrize("run_id", ["../x", "", ".hidden", "a/b", "a b"])
def test_an_id_is_not_a_path(tmp_path: Path, run_id: str) -> None:
    """Ids become file names, so they may not lead elsewhere."""
    with pytest.raises(ValueError):
        RunState(run_id).write(tmp_path)


def test_only_folders_of_that_id_are_ours(tmp_path: Path) -> None:
    """An id that ends like another, a live run's folder and other tools' files are not taken."""
    names = [
        "offline-run-20260101_000000-ab",
        "offline-run-20260101_000000-ab-1",
        "offline-run-20260101_000000-xab",
    ]
    names += ["run-20260101_000000-ab", "offline-run-ab", "offline-run-20260101_000000-ab-old"]
    for name in names:
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert [path.name for path in offline_folders(tmp_path, "ab")] == names[:2]


def test_report_ids_differ_where_names_differ() -> None:
    """Also where only the cut-off end of a long name differs."""
    long = "x" * 100
    assert len({report_id(name) for name in ("a", "b", long + "1", long + "2")}) == 4
    assert len(report_id("y" * 500)) <= 128


def test_feeders_hold_together_and_sync_alone(tmp_path: Path) -> None:
    """Two feeders may hold a run root at once, sync only where nobody does; the end of a hold frees it."""
    with hold(tmp_path, alone=False) as first, hold(tmp_path, alone=False) as second:
        assert first
        assert second
        with hold(tmp_path, alone=True) as sync:
            assert not sync
    with hold(tmp_path, alone=True) as sync, hold(tmp_path, alone=False) as feeder:
        assert sync
        assert not feeder


def test_the_driver_does_not_import_wandb() -> None:
    """The trackers cost the driver nothing: wandb, plotly and pandas stay in the feeder's process."""
    code = "import sys, harness.tracking; print([m for m in ('wandb', 'plotly', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_kinds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto follows WANDB_MODE, then the login; an unknown kind names the known ones."""
    assert isinstance(make_tracker("files", root, "e"), FilesTracker)
    assert isinstance(make_tracker("auto", root, "e"), WandbOffline)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert isinstance(make_tracker("auto", root, "e"), WandbOnline)
    assert isinstance(make_tracker("offline", root, "e"), WandbOffline)
    for mode, kind in {"offline": WandbOffline, "disabled": FilesTracker, "online": WandbOnline}.items():
        monkeypatch.setenv("WANDB_MODE", mode)
        assert isinstance(make_tracker("auto", root, "e"), kind)
    with pytest.raises(ValueError, match="auto, online, offline, files"):
        make_tracker("cloud", root, "e")  # type: ignore[arg-type]


def test_a_netrc_entry_for_the_server_in_use_is_a_login(root: Path, tmp_path: Path, monkeypatch) -> None:
    """wandb is asked, so that its own rules decide which host counts."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text(f"machine elsewhere.test login user password {'k' * 40}\n")
    assert isinstance(make_tracker("auto", root, "e"), WandbOffline)
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {'k' * 40}\n")
    assert isinstance(make_tracker("auto", root, "e"), WandbOnline)
