"""Boundaries are whole chunks, and depend on nothing but configuration and progress."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pace import Pace
from harness.rules import out_of_patience
from tests.toy import ToyConfig


@given(st.integers(1, 10_000), st.integers(1, 600), st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 3_000))
def test_every_boundary_is_a_whole_chunk_and_the_last_one_is_the_budget(
    budget: int, chunk: int, report: int, evaluate: int, checkpoint: int
):
    config = ToyConfig(steps=budget, report_every=report, evaluate_every=evaluate, checkpoint_every=checkpoint)
    pace = Pace.of(config, chunk, budget)
    assert budget <= pace.budget < budget + chunk
    progress, seen = 0, 0
    while progress < pace.budget and seen < 300:
        after = pace.next(progress)
        assert after > progress
        assert after % chunk == 0
        assert after <= pace.budget
        progress, seen = after, seen + 1
    if progress == pace.budget:
        assert pace.due("evaluate", progress)
        assert pace.due("checkpoint", progress)


def test_by_default_fifty_reports_and_ten_evaluations():
    pace = Pace.of(ToyConfig(steps=1000), 1, 1000)
    assert pace == Pace(budget=1000, report=20, evaluate=100, checkpoint=100)


@pytest.mark.parametrize(
    ("values", "patience", "direction", "over"),
    [
        ([1, 2, 3], 2, "max", False),
        ([3, 2, 1], 2, "max", True),
        ([3, 2, 1], 2, "min", False),
        ([3, 2], 2, "max", False),
        ([3, 3, 3], 2, "max", True),
        ([None, None, None, None], 2, "max", True),
        ([1, None, 2], 2, "max", False),
        ([5, 1, 1, 1, 1], 0, "max", False),
    ],
)
def test_patience(values: list[float | None], patience: int, direction: str, over: bool):
    assert out_of_patience(values, patience, direction) is over
