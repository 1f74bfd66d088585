"""A cohort that is lost at random moments ends as one that never was: all tensors of its state, bit for bit.

The worker is thrown away between two boundaries, as a killed process would be, and another one opens the cohort again:
it finds the last checkpoint, and metrics cut back to it.
"""

import random
from pathlib import Path

import torch

from harness.checkpoint import write_fence
from harness.learner import learner_target
from harness.messages import Decision, Job
from harness.spec import Resources, Trial
from harness.worker import Worker
from tests.conformance.test_learners import LEARNERS, TINY, by_path, class_of

LOST = 5
SEEDS = (11, 5)


def job_of(root, name, fence):
    """The case's cohort: 10 chunks, a report after each, a checkpoint after every second."""
    cls = class_of(name)
    chunk = cls.Config(**TINY[name][0]).chunk
    rhythm = {"report_every": chunk, "checkpoint_every": 2 * chunk, "evaluate_every": 5 * chunk}
    config = cls.Config(**{**TINY[name][0], **rhythm}).model_dump(mode="json")
    resources = Resources(mode="eager")
    trials = tuple(Trial(f"{s:016x}", name.split()[0], cls.version, config, s, name, resources) for s in SEEDS)
    write_fence(Path(root) / "cohorts" / "c", fence)
    return Job("c", str(root), learner_target(name.split()[0]), trials, fence, "eager")


def trained(root, name, lost=()):
    """(state after 10 chunks, lines of metrics): the worker is lost after the chunks `lost`, in their order."""
    fence, lost = 1, list(lost)
    worker = Worker()
    report = worker.open(job_of(root, name, fence))
    while True:
        assert report.kind == "boundary", report.traceback
        done = report.progress // worker._run.learner.chunk
        if lost and done == lost[0]:
            lost.pop(0)
            worker.close()
            fence += 1
            worker = Worker()
            report = worker.open(job_of(root, name, fence))
            again = report.progress // worker._run.learner.chunk
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
    expected, lines = trained(tmp_path / "whole", name)
    found, lines_again = trained(tmp_path / "lost", name, moments)
    expected, found = by_path(expected), by_path(found)
    assert set(expected) == set(found)
    for path, tensor in expected.items():
        assert torch.equal(found[path], tensor), path

    def without_seconds(text):
        return [line.split('"seconds"')[0] + line.split(",", 2)[2] for line in text.splitlines()]

    assert [without_seconds(t) for t in lines_again] == [without_seconds(t) for t in lines]
