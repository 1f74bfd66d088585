"""Segments of replay: what a checkpoint writes, what comes back, what is detected, what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from harness import rings
from harness.checkpoint import Checkpoint, DamagedError, good_checkpoints, load, save, segments_of, write_fence
from harness.learner import learner_target, select
from harness.messages import Decision, Job
from harness.rings import Rings, broken_lanes
from harness.spec import Resources, Trial
from harness.worker import Worker

K, C = 3, 40
KEYS = {"memory.replay": "added"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_fence(tmp_path / "c", 1)
    return tmp_path / "c"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 5 steps: a step of all lanes is K * (2 * 4 + 1) = 27 bytes."""
    monkeypatch.setattr(rings, "SMALLEST", 5 * 27)


def started(size: int = C) -> dict:
    replay = {"obs": torch.zeros(K, size, 2), "end": torch.zeros(K, size, dtype=torch.bool)}
    return {"w": torch.arange(3.0), "memory": {"replay": {**replay, "added": torch.zeros(K, dtype=torch.int64)}}}


def add(state: dict, steps: int) -> None:
    """New steps, each with numbers of its own."""
    replay = state["memory"]["replay"]
    for t in range(int(replay["added"][0]), int(replay["added"][0]) + steps):
        replay["obs"][:, t % replay["obs"].shape[1]] = torch.arange(K * 2).reshape(K, 2) + 10.0 * t
        replay["end"][:, t % replay["obs"].shape[1]] = t % 3 == 0
    replay["added"] += steps


class Run:
    """A state that is saved and restored as the worker does it."""

    def __init__(self, folder: Path, fence: int = 1, size: int = C) -> None:
        self.folder, self.fence, self.state, self.rings = folder, fence, started(size), Rings(KEYS)

    def save(self) -> Path:
        progress = int(self.state["memory"]["replay"]["added"][0])
        tree = {"state": self.rings.without(self.state)}
        path = save(self.folder, progress, self.fence, tree, {}, self.rings.segments(self.state))
        self.rings.known = segments_of(path)
        return path

    def restore(self, found: Checkpoint, index=(0, 1, 2)) -> None:
        fresh = select(started(self.state["memory"]["replay"]["obs"].shape[1]), index)
        self.state = self.rings.restored(select(found.tree["state"], index), fresh, found, index)
        self.rings.known = found.segments


def same(a: dict, b: dict) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a.dtype == b.dtype and torch.equal(a, b)


def files(folder: Path) -> set[str]:
    return {p.name for p in (folder / "segments").iterdir()}


@pytest.mark.parametrize("pace", [1, 4, 5, 7, 23, 95])
def test_rings_come_back_bit_for_bit_however_often_they_wrap(folder: Path, pace: int):
    run = Run(folder)
    saved = run.save()
    for _ in range(2 * C // pace + 2):
        again = Run(folder)
        again.restore(load(saved))
        assert same(again.state, run.state)
        newest = int(run.state["memory"]["replay"]["added"][0]) - 1
        for one in (run, again):
            if newest >= 0:  # the newest step may still change after it was saved
                one.state["memory"]["replay"]["end"][:, newest % C] = True
            add(one.state, pace)
        assert same(again.state, run.state)
        saved = run.save()
    assert int(run.state["memory"]["replay"]["added"][0]) > C


def test_a_checkpoint_writes_only_what_is_new(folder: Path):
    run = Run(folder, size=10_000)
    add(run.state, 4_000)
    whole = sum(s.bytes for s in segments_of(run.save()))
    assert whole > 4_000 * 27
    before = files(folder)
    add(run.state, 100)
    path = run.save()
    new = files(folder) - before
    written = sum((folder / "segments" / name).stat().st_size for name in new)
    block = -(-10_000 // rings.MOST)  # 40 steps
    assert 100 * 27 < written < (100 + 2 * block) * 27 + 400 * len(new)
    assert len(new) <= 100 / block + 2
    assert sum(s.last - s.first for s in segments_of(path)) == 4_100
    assert (path / "state.safetensors").stat().st_size < 400


def test_the_manifest_stays_short_for_large_rings(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rings, "SMALLEST", 1)
    run = Run(folder, size=10_000)
    add(run.state, 10_000)
    assert len(run.rings.segments(run.state)) <= rings.MOST


def test_a_damaged_segment_is_detected_and_the_older_checkpoint_counts(folder: Path):
    run = Run(folder)
    add(run.state, 12)
    older = run.save()
    expected = select(run.state, range(K))
    add(run.state, 6)
    newest = run.save()
    mine = {s.name for s in segments_of(newest)} - {s.name for s in segments_of(older)}
    assert mine
    for name in mine:
        file = folder / "segments" / name
        intact = file.read_bytes()
        for broken in (intact[:-1], intact[:-1] + bytes([intact[-1] ^ 1]), None):
            file.write_bytes(broken) if broken else file.unlink()
            first, second = good_checkpoints(folder)
            assert isinstance(first, DamagedError)
            assert isinstance(second, Checkpoint)
            run.restore(second)
            assert same(run.state, expected)
        file.write_bytes(intact)
    assert load(newest).progress == 18


def test_no_segment_outlives_the_checkpoints_that_list_it(folder: Path):
    run = Run(folder)
    for _ in range(30):
        add(run.state, 7)
        run.save()
        kept = [p for p in folder.iterdir() if p.name.startswith("ckpt")]
        assert files(folder) == {s.name for p in kept for s in segments_of(p)}
    assert int(run.state["memory"]["replay"]["added"][0]) == 210
    assert len(files(folder)) <= 2 * (C / 5 + 2)


def test_segments_of_a_later_fence_are_left_alone(folder: Path):
    run = Run(folder)
    add(run.state, 12)
    run.save()
    others = folder / "segments" / f"x-{0:012d}-{5:012d}-2-whole.safetensors"
    orphan = folder / "segments" / f"x-{0:012d}-{5:012d}-1.safetensors"
    for file in (others, orphan):
        file.touch()
    add(run.state, 1)
    run.save()
    assert others.exists()
    assert not orphan.exists()


def test_a_damaged_manifest_does_not_stop_the_next_checkpoint(folder: Path):
    run = Run(folder)
    add(run.state, 12)
    (run.save() / "manifest.json").write_text("{")
    add(run.state, 6)
    assert load(run.save()).progress == 18


def test_a_kill_at_any_point_of_saving_leaves_what_was_there(folder: Path):
    run = Run(folder)
    add(run.state, 33)
    run.save()
    before = select(run.state, range(K))
    add(run.state, 17)
    for step in range(100):
        child = os.fork()
        if not child:  # dies at its n-th fsync
            left, fsync = [step], os.fsync

            def dying(handle: int, left=left, fsync=fsync) -> None:
                if not left[0]:
                    os._exit(1)
                left[0] -= 1
                fsync(handle)

            os.fsync = dying
            run.save()
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = next(iter(good_checkpoints(folder)))
        assert isinstance(found, Checkpoint)
        again = Run(folder)
        again.restore(found)
        assert same(again.state, run.state if found.progress == 50 else before)
        assert died or found.progress == 50
        if not died:
            break
    assert step > 5  # segments, their folder, tensors, manifest, the cohort's folder
    last = Run(folder)
    last.restore(found)
    add(last.state, 1)
    last.save()
    kept = [p for p in folder.iterdir() if p.name.startswith("ckpt")]
    assert files(folder) == {s.name for p in kept for s in segments_of(p)}


def test_lanes_are_cut_from_a_checkpoint(folder: Path):
    run = Run(folder)
    add(run.state, 57)
    found = load(run.save())
    cut = Run(folder.parent / "other")
    cut.restore(found, (2, 0))
    assert same(cut.state, select(run.state, (2, 0)))


def test_rings_of_another_shape_are_refused(folder: Path):
    run = Run(folder)
    add(run.state, 12)
    found = load(run.save())
    state = select(found.tree["state"], range(K))
    for change in ({"obs": torch.zeros(K, C, 3)}, {"obs": torch.zeros(K, C, 2).double()}, {"more": torch.zeros(K, C)}):
        fresh = started()
        fresh["memory"]["replay"].update(change)
        with pytest.raises(DamagedError, match=r"state\.memory\.replay"):
            Rings(KEYS).restored(state, fresh, found, range(K))
    missing = Checkpoint(found.path, found.progress, found.tree, found.meta, found.segments[1:])
    with pytest.raises(DamagedError, match="steps from 0 to 12 are missing"):
        Rings(KEYS).restored(state, started(), missing, range(K))


def test_only_new_steps_are_looked_at_for_nan():
    state, seen = started(), Rings(KEYS)
    add(state, 30)
    state["memory"]["replay"]["obs"][1, 7, 0] = torch.nan
    assert broken_lanes(seen.unseen(state), K).tolist() == [False, True, False]
    add(state, 25)
    state["memory"]["replay"]["obs"][2, 54 % C, 1] = torch.inf
    fresh = seen.unseen(state)
    assert fresh["memory"]["replay"]["obs"].shape == (K, 25, 2)
    assert broken_lanes(fresh, K).tolist() == [False, False, True]
    assert seen.unseen(state)["memory"]["replay"]["obs"].shape == (K, 0, 2)
    add(state, 3 * C)
    assert seen.unseen(state)["memory"]["replay"]["obs"].shape == (K, C, 2)
    assert broken_lanes({"a": {"b": torch.tensor([0.0, torch.nan, 1.0])}}, K).tolist() == [False, True, False]


def test_a_cohort_with_replay_is_cut_and_goes_on_as_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rings, "SMALLEST", 1)
    config = {"steps": 160, "n_envs": 2, "train_freq": 4, "learning_starts": 8, "batch": 8, "buffer_size": 48,
              "net": {"hidden_features": [8, 8]}, "eval_episodes": 2, "report_every": 8, "checkpoint_every": 16,
              "evaluate_every": 160}  # fmt: skip
    trials = tuple(Trial(f"{s:016x}", "dqn", 1, config, s, "dqn", Resources(mode="loop")) for s in (4, 5, 6))

    def trained(cohort: str, lanes: tuple[int, ...], until: int, sources=()) -> tuple[Worker, dict]:
        write_fence(tmp_path / "cohorts" / cohort, 1)
        chosen = tuple(trials[k] for k in lanes)
        worker = Worker()
        report = worker.open(Job(cohort, str(tmp_path), learner_target("dqn"), chosen, 1, "loop", sources))
        while report.progress < until:
            assert report.kind == "boundary", report.traceback
            report = worker.advance(Decision())
        return worker, worker._run.state

    whole, expected = trained("whole", (0, 1, 2), 136)
    expected = select(expected, (2, 0))
    whole.close()
    first, _ = trained("first", (0, 1, 2), 88)  # its last checkpoint is at 80, where the ring has wrapped
    first.close()
    cut, found = trained("cut", (2, 0), 136, sources=(("first", (2, 0)),))
    cut.close()
    assert same(found, expected)
    assert segments_of(max((tmp_path / "cohorts" / "cut").glob("ckpt-*")))
