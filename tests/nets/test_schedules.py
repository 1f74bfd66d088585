"""Schedules against closed forms and torch's, per lane."""

import math

import pytest
import torch

from nets.schedules import SCHEDULES, constant, cosine, exponential, linear, one_cycle, warmup

pytestmark = pytest.mark.filterwarnings("error")
POINTS = torch.linspace(0, 1, 41, dtype=torch.float64)


def stepped(make, steps):
    """The learning rates of a torch scheduler at steps 0, 1, ..., steps - 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimiser)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    return torch.tensor(rates, dtype=torch.float64)


def test_linear():
    assert linear(1.0, 0.0) == 1.0
    assert linear(1.0, 0.25, 0.2) == pytest.approx(0.8)
    assert linear(1.0, 1.0) == 0.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warm", [0.0, 0.2])
def test_no_schedule_leaves_its_range_beyond_the_end_or_before_the_start(name, warm):
    schedule = warmup(warm, SCHEDULES[name]) if warm else SCHEDULES[name]
    for beyond, end in ((1.3, 1.0), (-0.2, 0.0)):
        assert schedule(0.7, beyond) == schedule(0.7, end)
        beyond, end = torch.tensor([beyond], dtype=torch.float64), torch.tensor([end], dtype=torch.float64)
        assert torch.equal(schedule(0.7, beyond), schedule(0.7, end))


def test_cosine_equals_torch():
    expected = stepped(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.01), 41)
    torch.testing.assert_close(cosine(0.1, POINTS, 0.01), expected, rtol=1e-9, atol=1e-12)


def test_exponential_equals_torch():
    expected = stepped(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.05 ** (1 / 40)), 41)
    torch.testing.assert_close(exponential(0.1, POINTS, 0.05), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", [0.3, 0.5])
def test_one_cycle_equals_torch(part):
    steps = 41
    expected = stepped(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=steps, pct_start=part), steps - 1
    )
    mine = one_cycle(0.1, POINTS, share=(part * steps - 1) / (steps - 1))
    torch.testing.assert_close(mine[:-1], expected, rtol=1e-6, atol=1e-10)
    narrow = one_cycle(0.1, POINTS.float(), share=(part * steps - 1) / (steps - 1))
    torch.testing.assert_close(narrow[-1].double(), torch.tensor(4e-7, dtype=torch.float64), rtol=1e-5, atol=0)


def test_warmup_rises_and_then_runs_the_whole_schedule():
    warmed = warmup(0.25, linear)
    assert [warmed(2.0, p) for p in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx([0.0, 1.0, 2.0, 1.0, 0.0])
    assert warmup(0.5, start=0.1)(1.0, 0.0) == pytest.approx(0.1)
    assert warmup(0.5, cosine)(1.0, 1.0, end=0.3) == pytest.approx(0.3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_a_schedule_is_itself(name):
    assert [warmup(0.0, SCHEDULES[name])(0.7, p) for p in (0.0, 0.4, 1.0)] == [
        SCHEDULES[name](0.7, p) for p in (0.0, 0.4, 1.0)
    ]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_lane_has_its_own_peak_progress_and_warmup(name):
    peaks, progress, shares = torch.tensor([[0.1, 1.0, 3.0], [0.0, 0.2, 0.9], [0.0, 0.1, 0.5]], dtype=torch.float64)

    def of_one(peak, progress, share):
        return warmup(share, SCHEDULES[name])(peak, progress)

    rates = torch.vmap(of_one)(peaks, progress, shares)
    assert torch.equal(rates, of_one(peaks, progress, shares))
    alone = [of_one(*row) for row in zip(peaks.tolist(), progress.tolist(), shares.tolist(), strict=True)]
    assert rates.tolist() == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_highest_value_is_the_peak(name):
    rates = SCHEDULES[name](0.4, torch.linspace(0, 1, 101))
    assert rates.max() == pytest.approx(0.4, rel=1e-6)
    assert rates.min() >= 0


def test_past_the_end_the_last_value_stays():
    assert cosine(1.0, 1.2) == 0.0
    assert exponential(1.0, 1.2, 0.5) == 0.5
    assert constant(1.0, 1.2) == 1.0
    assert one_cycle(1.0, 1.2) == pytest.approx(4e-6)
    assert warmup(0.5)(1.0, math.inf) == 1.0
