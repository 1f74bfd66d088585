"""A cohort that is lost at random moments ends as one that never was: all tensors of its state, bit for bit.

The worker is thrown away between two boundaries, as a killed process would be, and another one opens the cohort again:
it finds the last checkpoint, and metrics cut back to it.
"""

import random
from pathlib import Path

import pytest
import torch

from harness.checkpoint import write_fence
from harness.learner import learner_target
from harness.messages import Decision, Job
from harness.spec import Resources, Trial
from harness.worker import Worker
from tests.conformance.test_learners import LEARNERS, TINY, by_path, class_of

LOST = 5
SEEDS = (11, 5)


def job_of(root, name, fence, fields, seeds):
    """A cohort: 10 chunks, a report after each, a checkpoint after every second."""
    cls = class_of(name)
    chunk = cls.Config(**fields).chunk
    rhythm = {"report_every": chunk, "checkpoint_every": 2 * chunk, "evaluate_every": 5 * chunk}
    config = cls.Config(**{**fields, **rhythm}).model_dump(mode="json")
    resources = Resources(mode="eager")
    trials = tuple(Trial(f"{s:016x}", name.split()[0], cls.version, config, s, name, resources) for s in seeds)
    write_fence(Path(root) / "cohorts" / "c", fence)
    return Job("c", str(root), learner_target(name.split()[0]), trials, fence, "eager")


def trained(root, name, lost=(), asked=0, fields=None, seeds=SEEDS):
    """(state after 10 chunks, lines of metrics).

    Args:
        lost: the worker is lost after these chunks, in their order.
        asked: the worker is asked to stop after this chunk; 0 for never.
        fields: of the configuration; None for the case's.
        seeds: of the lanes.
    """
    fields = TINY[name][0] if fields is None else fields
    fence, lost = 1, list(lost)
    worker = Worker()
    report = worker.open(job_of(root, name, fence, fields, seeds))
    chunk = worker._run.learner.chunk
    while True:
        assert report.kind == "boundary", report.traceback
        done = report.progress // chunk
        if asked and done == asked:
            while report.kind == "boundary":
                report = worker.advance(Decision(stop=True))
            assert report.kind == "stopped", report.traceback
            assert report.progress <= (done + 1) * chunk  # at the next checkpoint at the latest
            asked, lost = 0, [report.progress // chunk, *lost]
            done = lost[0]
        if lost and done == lost[0]:
            lost.pop(0)
            worker.close()
            fence += 1
            worker = Worker()
            report = worker.open(job_of(root, name, fence, fields, seeds))
            again = report.progress // chunk
            assert again <= done
            continue
        if done == 10:
            break
        report = worker.advance(Decision())
    assert not lost
    state = worker._run.state
    lines = [(Path(root) / "trials" / t.id / "metrics.jsonl").read_text() for t in worker._run.job.trials]
    worker.close()
    return state, lines


@LEARNERS
def test_a_cohort_lost_at_random_moments_ends_as_one_that_never_was(name, tmp_path):
    rng = random.Random(name)
    moments = sorted(rng.sample(range(1, 10), LOST))
    expected = trained(tmp_path / "whole", name)
    same(trained(tmp_path / "lost", name, moments), expected)
    same(trained(tmp_path / "stopped", name, asked=3), expected)  # between two checkpoints


IN_GYMNASIUM = {"env": "CartPole-v1", "wrappers": [{"time-limit": {"steps": 7}}], "steps": 2048, "eval_episodes": 1}
SB3 = {**IN_GYMNASIUM, "algo": "PPO", "hyper": {"n_steps": 8, "batch_size": 8, "n_epochs": 1}}


@pytest.mark.parametrize(
    ("name", "fields", "seeds"),
    [
        ("ppo", {**TINY["ppo"][0], **IN_GYMNASIUM}, SEEDS),
        ("dqn", {**TINY["dqn"][0], **IN_GYMNASIUM}, SEEDS),
        ("sb3", SB3, (11,)),
    ],
)
def test_a_stop_cuts_no_episode_that_goes_on_in_an_uninterrupted_run(name, fields, seeds, tmp_path):
    expected = trained(tmp_path / "whole", name, fields=fields, seeds=seeds)
    found = trained(tmp_path / "stopped", name, asked=3, fields=fields, seeds=seeds)
    same(found, expected)


def same(found, expected):
    """Whether states are equal bit for bit, and metrics in all but their seconds."""
    (state, lines), (state_expected, lines_expected) = found, expected
    state, state_expected = by_path(state), by_path(state_expected)
    assert set(state) == set(state_expected)
    for path, tensor in state_expected.items():
        assert torch.equal(state[path], tensor), path

    def without_seconds(text):
        return [line.split('"seconds"')[0] + line.split(",", 2)[2] for line in text.splitlines()]

    assert [without_seconds(t) for t in lines] == [without_seconds(t) for t in lines_expected]
