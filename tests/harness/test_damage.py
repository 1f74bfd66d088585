"""Whatever is damaged in a run root, the same command ends as a run that nothing disturbed, and says what it did."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import checkpoint
from harness.checkpoint import DamagedError, load, save, write_fence
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN
from harness.ledger_access import Database
from harness.parents import encoders_of, samplers_of
from harness.restoring import check_metrics
from harness.runfolder import RunFolder
from tests.invariants import check_invariants, facts
from tests.toy import Toy

TEXT = """
name: e
trials: [{learner: toy, steps: 50, seeds: 2, report_every: 5, evaluate_every: 10, checkpoint_every: 10}]
"""
OLDER, NEWEST = 20, 30


class Half(Toy):
    """A toy that saves and loads by itself; taking the newest checkpoint fails half-way."""

    foreign = True

    def start(self, lanes: Any) -> Any:
        self.live = super().start(lanes)
        return self.live

    def save(self, state: Any) -> Any:
        return dict(state)

    def load(self, tree: Any) -> Any:
        self.live["w"].copy_(tree["w"])
        if int(tree["progress"][0]) == NEWEST:
            self.live["w"].fill_(float("nan"))
            raise MemoryError("told to")
        self.live.update(tree)
        return self.live


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")
    monkeypatch.setitem(BUILTIN, "half", "tests.harness.test_damage:Half")


def run(root: Path, text: str = TEXT, stop: int = 0) -> list[str]:
    """Runs the experiment and returns the sentences of its log.

    Args:
        root: the run root.
        text: of the file.
        stop: the report after which it is asked to stop; 0 for never.
    """
    root.parent.mkdir(exist_ok=True)
    file = root.parent / "e.yaml"
    file.write_text(text)
    log = root / "experiments" / "e" / "driver.log"
    log.unlink(missing_ok=True)
    seen: list[Any] = []

    def hear(event: dict[str, Any]) -> None:
        seen.extend([event] if event["kind"] == "report" else [])
        if stop and len(seen) == stop:
            driver.request_stop()

    driver = Driver(load_experiment(file), root, executor="inline", on_event=hear)
    assert driver.train().exit_code == (130 if stop else 0)
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(a run root as a kill leaves it, with two generations and half a line; what an uninterrupted run gives)."""
    folder = tmp_path_factory.mktemp("roots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILTIN, "toy", "tests.toy:Toy")
        run(folder / "whole")
        run(folder / "killed", stop=6)
    for file in folder.glob("killed/trials/*/metrics.jsonl"):
        with file.open("a") as opened:
            opened.write('{"progress": 35, "seconds": 0.1, "distance": 0.5}\n{"progress": 4')
    names = [p.name for p in sorted(folder.glob("killed/cohorts/*/ckpt-*"))]
    assert names == [f"ckpt-{OLDER:012d}-1", f"ckpt-{NEWEST:012d}-1"]
    return folder / "killed", facts(folder / "whole")


class Found:
    """The files of a run root, for those who damage them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.older, self.newest = sorted(root.glob("cohorts/*/ckpt-*"))
        self.cohort = self.newest.parent
        self.manifest, self.state = self.newest / "manifest.json", self.newest / "state.safetensors"
        self.trial, self.other = sorted((root / "trials").iterdir())
        self.metrics = self.trial / "metrics.jsonl"

    def committed(self, generation: Path) -> int:
        return json.loads((generation / "manifest.json").read_text())["meta"]["committed"][self.trial.name]

    def rewrite(self, change: Callable[[dict[str, Any]], Any], signed: bool = True) -> None:
        """Changes the newest manifest; signed: as if this version had written it so."""
        manifest = json.loads(self.manifest.read_text())
        change(manifest)
        if signed:
            manifest.pop("sha256")
            manifest["sha256"] = checkpoint._digest(manifest)
        self.manifest.write_text(json.dumps(manifest))

    def both(self, action: Callable[[Path], Any]) -> None:
        action(self.older)
        action(self.newest)


def replaced(path: Path, make: Callable[[Path], Any]) -> None:
    """Something else in a file's or folder's place."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def swapped(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def cut(file: Path, size: int) -> None:
    os.truncate(file, size)


def with_line(data: bytes) -> bytes:
    return data.replace(b'"distance": ', b'"distance": 1', 1)


def as_other_cohort(f: Found) -> None:
    """The folder of another cohort whose file has just the same form."""
    f.rewrite(lambda m: m.update(cohort="0" * 12))


def as_format_2(f: Found, change: Callable[[dict[str, Any]], Any] = lambda m: None) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["format"] = 2
        for name in ("sha256", "cohort"):
            manifest.pop(name)
        for name in ("metrics_sha256", "episodes", "broken", "left_out"):
            manifest["meta"].pop(name)
        change(manifest)

    f.rewrite(older, signed=False)


DAMAGE: dict[str, tuple[int, Callable[[Found], Any]]] = {
    "nothing": (NEWEST, lambda f: None),
    "manifest missing": (OLDER, lambda f: f.manifest.unlink()),
    "manifest empty": (OLDER, lambda f: cut(f.manifest, 0)),
    "manifest is a folder": (OLDER, lambda f: replaced(f.manifest, Path.mkdir)),
    "manifest is a pipe": (OLDER, lambda f: replaced(f.manifest, os.mkfifo)),
    "manifest never ends": (OLDER, lambda f: replaced(f.manifest, lambda p: p.symlink_to("/dev/zero"))),
    "manifest points nowhere": (OLDER, lambda f: replaced(f.manifest, lambda p: p.symlink_to("gone"))),
    "manifest of terabytes": (OLDER, lambda f: cut(f.manifest, 2**40)),
    "manifest of NUL": (OLDER, lambda f: changed(f.manifest, lambda b: bytes(len(b)))),
    "manifest cut": (OLDER, lambda f: changed(f.manifest, lambda b: b[: len(b) // 2])),
    "manifest twice": (OLDER, lambda f: changed(f.manifest, lambda b: b + b)),
    "manifest is a list": (OLDER, lambda f: changed(f.manifest, lambda b: b"[" + b + b"]")),
    "manifest is a number": (OLDER, lambda f: f.manifest.write_text("1e999")),
    "manifest is null": (OLDER, lambda f: f.manifest.write_text("null")),
    "manifest nested": (OLDER, lambda f: f.manifest.write_text("[" * 200_000)),
    "manifest with a huge number": (OLDER, lambda f: changed(f.manifest, lambda b: b.replace(b"30", b"3" * 5000))),
    "manifest in Latin-1": (OLDER, lambda f: changed(f.manifest, lambda b: b.replace(b"trials", b"tri\xe4ls"))),
    "manifest laid out anew": (NEWEST, lambda f: f.rewrite(lambda m: None)),
    "key twice, same": (NEWEST, lambda f: changed(f.manifest, lambda b: b.replace(b"{", b'{"progress": 7,', 1))),
    "key twice, other": (OLDER, lambda f: changed(f.manifest, lambda b: b.rstrip()[:-1] + b',"progress": 20}')),
    "manifest of the older": (OLDER, lambda f: shutil.copy(f.older / "manifest.json", f.manifest)),
    "no checksum": (OLDER, lambda f: f.rewrite(lambda m: m.pop("sha256"), signed=False)),
    "other checksum": (OLDER, lambda f: f.rewrite(lambda m: m.update(sha256="0" * 64), signed=False)),
    "committed sizes": (OLDER, lambda f: f.rewrite(lambda m: m["meta"]["committed"].update({f.trial.name: 7}), False)),
    "committed sizes, signed": (OLDER, lambda f: f.rewrite(lambda m: m["meta"]["committed"].update({f.trial.name: 7}))),
    "committed negative": (OLDER, lambda f: f.rewrite(lambda m: m["meta"]["committed"].update({f.trial.name: -7}))),
    "lanes swapped": (OLDER, lambda f: f.rewrite(lambda m: m["meta"]["trials"].reverse())),
    "a later format": (OLDER, lambda f: f.rewrite(lambda m: m.update(format=4))),
    "format 2": (NEWEST, as_format_2),
    "format 2, cut": (OLDER, lambda f: as_format_2(f, lambda m: m["meta"]["committed"].update({f.trial.name: 7}))),
    "format 2, lanes": (OLDER, lambda f: as_format_2(f, lambda m: m["meta"]["trials"].reverse())),
    "format 2, progress": (OLDER, lambda f: as_format_2(f, lambda m: m.update(progress=29))),
    "another cohort's": (OLDER, as_other_cohort),
    "tensors missing": (OLDER, lambda f: f.state.unlink()),
    "tensors empty": (OLDER, lambda f: cut(f.state, 0)),
    "tensors cut": (OLDER, lambda f: changed(f.state, lambda b: b[:-8])),
    "tensors twice": (OLDER, lambda f: changed(f.state, lambda b: b + b)),
    "tensors of NUL": (OLDER, lambda f: changed(f.state, lambda b: bytes(len(b)))),
    "tensors are a folder": (OLDER, lambda f: replaced(f.state, Path.mkdir)),
    "tensors are a pipe": (OLDER, lambda f: replaced(f.state, os.mkfifo)),
    "tensors of the older": (OLDER, lambda f: shutil.copy(f.older / "state.safetensors", f.state)),
    "folder empty": (OLDER, lambda f: replaced(f.newest, Path.mkdir)),
    "folder is a file": (OLDER, lambda f: replaced(f.newest, Path.touch)),
    "folder is the older": (OLDER, lambda f: replaced(f.newest, lambda p: p.symlink_to(f.older))),
    "folders swapped": (0, lambda f: swapped(f.newest, f.older)),
    "folder of later progress": (OLDER, lambda f: f.newest.rename(f.cohort / "ckpt-000000000040-1")),
    "folder of another fence": (OLDER, lambda f: f.newest.rename(f.cohort / "ckpt-000000000030-3")),
    "folder from nowhere": (NEWEST, lambda f: (f.cohort / "ckpt-999999999999-9").mkdir()),
    "both damaged": (0, lambda f: f.both(lambda p: cut(p / "manifest.json", 9))),
    "no checkpoint": (0, lambda f: f.both(shutil.rmtree)),
    "no cohort": (0, lambda f: shutil.rmtree(f.cohort)),
    "cohort is a file": (0, lambda f: replaced(f.cohort, Path.touch)),
    "fence missing": (NEWEST, lambda f: (f.cohort / "fence.json").unlink()),
    "fence is a folder": (NEWEST, lambda f: replaced(f.cohort / "fence.json", Path.mkdir)),
    "metrics missing": (0, lambda f: f.metrics.unlink()),
    "metrics empty": (0, lambda f: cut(f.metrics, 0)),
    "metrics are a folder": (0, lambda f: replaced(f.metrics, Path.mkdir)),
    "metrics cut to the older": (OLDER, lambda f: cut(f.metrics, f.committed(f.newest) - 1)),
    "metrics cut": (0, lambda f: cut(f.metrics, f.committed(f.older) - 1)),
    "metrics of NUL": (0, lambda f: changed(f.metrics, lambda b: bytes(len(b)))),
    "metrics changed": (0, lambda f: changed(f.metrics, with_line)),
    "metrics swapped": (0, lambda f: swapped(f.metrics, f.other / "metrics.jsonl")),
    "metrics longer": (NEWEST, lambda f: changed(f.metrics, lambda b: b + b"\0" * 5000)),
    "trial's folder missing": (0, lambda f: shutil.rmtree(f.trial)),
    "trial's folder is a file": (0, lambda f: replaced(f.trial, Path.touch)),
    "configuration damaged": (NEWEST, lambda f: (f.trial / "config.json").write_text("{")),
    "result from nowhere": (NEWEST, lambda f: (f.trial / "result.json").mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_root_ends_as_a_whole_one(tmp_path, roots, kind):
    killed, whole = roots
    root = tmp_path / "runs"
    shutil.copytree(killed, root)
    progress, damage = DAMAGE[kind]
    damage(Found(root))
    log = "\n".join(run(root))
    assert facts(root) == whole
    check_invariants(root, "e", every=5)
    if progress:
        assert f"goes on from progress {progress}" in log
    else:
        assert "no checkpoint can be used: starts again from the beginning" in log
        assert "goes on" not in log
    passed = {NEWEST: 0, OLDER: 1}.get(progress)
    if passed is not None and kind != "folder from nowhere":
        assert log.count("is passed over: ") == passed
    assert len(list(root.glob("cohorts/*/ckpt-*"))) == 2
    assert not [p for p in root.glob("cohorts/*/ckpt-*") if not isinstance(load(p).progress, int)]


VALUES = [None, -1, 0, "x", [], {}, [[]], {"0": None}, {"0": [], "1": {}}, 1e300, 2**70, True]


def keys(root: Path) -> list[tuple[str, ...]]:
    manifest = json.loads(Found(root).manifest.read_text())
    top = [(key,) for key in manifest if key not in ("sha256", "meta")]
    return [*top, ("meta",), *(("meta", key) for key in manifest["meta"])]


@pytest.mark.parametrize("values", [1, pytest.param(len(VALUES), marks=pytest.mark.slow)])
def test_another_json_type_at_any_key_fails_no_trial(tmp_path, roots, values):
    """Even where the checksum agrees: a version of ours may have written something else there."""
    killed, whole = roots
    for turn, place in list(enumerate(keys(killed)))[:: 1 if values > 1 else 6]:
        for j in range(values):
            value = VALUES[(turn + 5 * j) % len(VALUES)]
            root = tmp_path / f"{turn}-{j}"
            shutil.copytree(killed, root)

            def change(manifest: dict[str, Any], place: tuple[str, ...] = place, value: Any = value) -> None:
                *way, last = place
                for key in way:
                    manifest = manifest[key]
                manifest[last] = value

            Found(root).rewrite(change)
            run(root)
            assert {k: v[:2] for k, v in facts(root).items()} == {k: v[:2] for k, v in whole.items()}, (place, value)
            shutil.rmtree(root)


@pytest.mark.parametrize("flips", [400, pytest.param(3_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_the_manifest_is_detected_or_harmless(tmp_path, roots, flips):
    root = tmp_path / "runs"
    shutil.copytree(roots[0], root)
    path = Found(root).newest
    whole, file = load(path), path / "manifest.json"
    data, rng, harmless = file.read_bytes(), np.random.default_rng(17), 0
    for place in rng.integers(len(data) * 8, size=flips).tolist():
        bad = bytearray(data)
        bad[place // 8] ^= 1 << place % 8
        file.write_bytes(bytes(bad))
        try:
            found = load(path)
        except DamagedError:
            continue
        harmless += 1
        assert (found.meta, found.progress, found.segments) == (whole.meta, whole.progress, whole.segments)
        assert torch.equal(found.tree["state"]["w"], whole.tree["state"]["w"])
    assert harmless < flips / 4  # white space


@pytest.mark.parametrize("flips", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_the_tensors_or_of_the_metrics_is_detected(tmp_path, roots, flips):
    root = tmp_path / "runs"
    shutil.copytree(roots[0], root)
    f, rng = Found(root), np.random.default_rng(18)
    meta = load(f.newest).meta
    size, sha256 = meta["committed"][f.trial.name], meta["metrics_sha256"][f.trial.name]
    cases = [
        (f.state, f.state.stat().st_size, lambda: load(f.newest)),
        (f.metrics, size, lambda: check_metrics(f.metrics, size, NEWEST, sha256)),
    ]
    for file, length, look in cases:
        look()
        data = file.read_bytes()
        for place in rng.integers(length * 8, size=flips).tolist():
            bad = bytearray(data)
            bad[place // 8] ^= 1 << place % 8
            file.write_bytes(bytes(bad))
            with pytest.raises(DamagedError):
                look()


def test_a_generation_that_is_taken_by_half_leaves_no_trace(tmp_path):
    text = TEXT.replace("toy", "half").replace("seeds: 2", "seeds: 1")
    run(tmp_path / "whole", text)
    run(tmp_path / "runs", text, stop=6)
    log = "\n".join(run(tmp_path / "runs", text))
    assert "a checkpoint that cannot be taken is passed over: " in log
    assert "MemoryError: told to" in log
    assert "goes on from progress 20" in log
    assert facts(tmp_path / "runs") == facts(tmp_path / "whole")
    run(tmp_path / "again", text, stop=6)
    shutil.rmtree(min((tmp_path / "again").glob("cohorts/*/ckpt-*")))
    assert "starts again from the beginning" in "\n".join(run(tmp_path / "again", text))
    assert facts(tmp_path / "again") == facts(tmp_path / "whole")


def test_lanes_cut_from_a_cohort_whose_newest_checkpoint_is_damaged_start_from_the_older(tmp_path, roots):
    killed, whole = roots
    root = tmp_path / "runs"
    shutil.copytree(killed, root)
    f = Found(root)
    cut(f.state, 9)
    log = "\n".join(run(root, TEXT.replace("seeds: 2", "seeds: [1]")))
    assert "goes on from progress 20" in log
    found = facts(root)
    assert len(found) == 1
    assert found == {k: v for k, v in whole.items() if k in found}


def test_a_checkpoint_after_a_fall_back_outlives_the_damaged_ones(tmp_path):
    """Two damaged checkpoints of later progress would otherwise be the newest two, and it would go at once."""
    write_fence(tmp_path / "c", 1)
    damaged = [save(tmp_path / "c", progress, 1, {"w": torch.ones(1)}, {}) for progress in (30, 40)]
    write_fence(tmp_path / "c", 2)
    first = save(tmp_path / "c", 10, 2, {"w": torch.ones(1)}, {})
    assert load(first).progress == 10
    second = save(tmp_path / "c", 20, 2, {"w": torch.ones(1)}, {}, damaged=damaged)
    assert checkpoint.generations(tmp_path / "c")[0] == second
    assert not damaged[0].exists()
    assert not damaged[1].exists()


def test_what_is_saved_twice_at_one_step_comes_back_as_it_was_last(tmp_path):
    """A user's function may save without logging in between."""
    write_fence(tmp_path / "c", 1)
    for value in range(12):
        save(tmp_path / "c", 0, 1, {"value": value}, {})
    found = [load(path).tree["value"] for path in checkpoint.generations(tmp_path / "c")]
    assert found == [11, 10]


ENDING = """
name: e
trials:
  - learner: toy
    steps: 60
    lr: 0.5
    report_every: 2
    evaluate_every: 2
    checkpoint_every: 4
    patience: 5
    seeds: 3
    grid: {nan_at: [-1.0, 8.0, 7.0, 10.0]}
"""


def moments(monkeypatch: pytest.MonkeyPatch, root: Path, text: str, into: Path) -> list[Path]:
    """Runs an experiment; returns copies of its root after every checkpoint, result and network.

    The ledger is a new one: the old one says that this process, which lives, drives the experiment.
    """
    copies: list[Path] = []

    def copying(function: Callable[..., Any]) -> Callable[..., Any]:
        def copied(*args: Any, **options: Any) -> Any:
            value = function(*args, **options)
            copies.append(into / f"{len(copies):03d}" / "runs")
            shutil.copytree(root, copies[-1], ignore=shutil.ignore_patterns("ledger.sqlite*", "driver.log"))
            Database(copies[-1] / "ledger.sqlite", rebuilt=True).close()
            return value

        return copied

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", copying(checkpoint.save))
        patch.setattr(RunFolder, "result", copying(RunFolder.result))
        patch.setattr(RunFolder, "network", copying(RunFolder.network))
        run(root, text)
    return copies


def test_endings_decided_at_a_checkpoint_survive_a_kill_right_after_it(tmp_path, monkeypatch):
    """Diverged lanes and those out of patience: the checkpoint is older than the decision."""
    copies = moments(monkeypatch, tmp_path / "whole" / "runs", ENDING, tmp_path)
    whole = facts(tmp_path / "whole" / "runs")
    ends = {result["progress"] for _, _, result in whole.values()}
    assert {8, 10} < ends
    assert len({result["state"] for _, _, result in whole.values()}) == 2
    assert any(end % 4 == 0 for end in ends if end > 12)  # patience is over at a checkpoint, too
    assert len(copies) > 30
    for root in copies[3 :: max(1, len(copies) // 4)]:
        run(root, ENDING)
        assert facts(root) == whole, root


@pytest.mark.slow
def test_a_kill_after_any_file_ends_as_no_kill(tmp_path, monkeypatch):
    for root in moments(monkeypatch, tmp_path / "whole" / "runs", ENDING, tmp_path):
        run(root, ENDING)
        assert facts(root) == facts(tmp_path / "whole" / "runs"), root


def test_a_lane_that_broke_at_the_checkpoint_ends_there_when_another_fails_just_after(tmp_path):
    text = TEXT.replace("steps: 50, seeds: 2", "steps: 50, seeds: 1, grid: {WHAT}")
    run(tmp_path / "whole" / "runs", text.replace("WHAT", "nan_at: [20.0, -1.0]"))
    root = tmp_path / "runs"
    file = tmp_path / "e.yaml"
    file.write_text(text.replace("grid: {WHAT}", "grid: {nan_at: [20.0, -1.0], lane_error_at: [-1.0, 21.0]}"))
    Driver(load_experiment(file), root, executor="inline").train()
    expected = [r for _, _, r in facts(tmp_path / "whole" / "runs").values() if r["state"] == "diverged"]
    found = [r for _, _, r in facts(root).values() if r["state"] == "diverged"]
    assert [r["progress"] for r in expected] == [20]
    assert found == expected * 2


@pytest.mark.parametrize("name", ["result.json", "final.safetensors", "."])
def test_a_lane_that_has_ended_gets_its_files_back(tmp_path, name):
    text = TEXT.replace("seeds: 2", "seeds: 1, grid: {nan_at: [-1.0, 10.0]}")
    run(tmp_path / "whole" / "runs", text)
    whole = facts(tmp_path / "whole" / "runs")
    root = tmp_path / "runs"
    run(root, text, stop=6)
    (ended,) = (p.parent for p in root.glob("trials/*/result.json"))
    lines = (ended / "metrics.jsonl").read_bytes()
    if name == ".":
        shutil.rmtree(ended)
        ended.mkdir()
        (ended / "metrics.jsonl").write_bytes(lines)
    else:
        cut(ended / name, 20)
    log = "\n".join(run(root, text))
    assert f"trial {ended.name} has ended: its damaged files are written again" in log
    assert "goes on from progress 30" in log
    assert facts(root) == whole


def flipped(file: Path) -> None:
    changed(file, lambda b: b[:-1] + bytes([b[-1] ^ 1]))


@pytest.mark.parametrize("which", ["best", "final"])
def test_a_damaged_network_of_a_done_trial_is_one_sentence_for_whoever_reads_it(tmp_path, which):
    run(tmp_path / "runs", TEXT)
    f = sorted((tmp_path / "runs" / "trials").iterdir())[0]
    file = f / f"{which}.safetensors"
    results = harness.load("e", tmp_path / "runs")
    results.network(f.name, which)
    flipped(file)
    told = rf"{which}\.safetensors is damaged: its sha256 is not the one in result\.json; copy it back, or train"
    with pytest.raises(ValueError, match=told):
        results.network(f.name, which)
    child = load_experiment(tmp_path / "e.yaml").trials[0]
    if which == "best":
        for field, read in (("encoder_from", encoders_of), ("synthetic_from", samplers_of)):
            with pytest.raises(ValueError, match=told):
                read(tmp_path / "runs", [replace(child, config={field: f.name})])
    (f / "result.json").unlink()
    cut(file, 20)
    with pytest.raises(ValueError, match="is not a safetensors file, or a damaged one"):
        results.network(f.name, which)
