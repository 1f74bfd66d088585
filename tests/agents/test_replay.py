"""Replay: rings, n-step returns against a walk along the time line, nameless files, priorities against exact ones."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

from agents.dqn import DQNConfig
from agents.envs.spaces import EnvSpec, discrete
from agents.envs.transition import Rollout
from agents.priorities import SMALLEST, Prioritised, importance, proportional
from agents.replay import (
    FIELDS,
    replay_add,
    replay_cut,
    replay_draw,
    replay_init,
    replay_n_step,
    replay_rows,
    replay_take,
)
from harness.learner import Lanes
from nets.lanes import Execution

SPEC = EnvSpec("test", (3,), discrete(4), masked=True)
K, C, N = 2, 7, 2


def lanes_of(**config) -> Lanes:
    return Lanes((DQNConfig(**config),) * K, (3, 4), Execution(dtype=torch.float64))


def rollout(steps: int, first: int = 0) -> Rollout:
    """A rollout [K, T, N] whose observations name lane, time and environment; ends are drawn from the time."""
    rng = torch.Generator().manual_seed(first)
    where = torch.stack(
        torch.meshgrid(torch.arange(K), torch.arange(first, first + steps), torch.arange(N), indexing="ij"), -1
    ).double()
    draw = torch.rand((2, K, steps, N), generator=rng)
    mask = torch.rand((2, K, steps, N, 4), generator=rng) < 0.7
    reward = torch.rand((K, steps, N), generator=rng, dtype=torch.float64)
    action = torch.randint(4, (K, steps, N), generator=rng)
    ends = (draw[0] < 0.15, draw[1] < 0.15)
    return Rollout(where, mask[0], action, reward, where + 0.5, mask[1], *ends, torch.zeros_like(reward))


def filled(steps: int, parts: int = 1) -> tuple[dict, Rollout]:
    """(a replay after so many steps, the whole time line)."""
    replay = replay_init(SPEC, lanes_of(), C, N)
    rollouts = [rollout(steps // parts, first) for first in range(0, steps, steps // parts)]
    for one in rollouts:
        replay_add(replay, one)
    return replay, Rollout(*(torch.cat(ts, 1) for ts in zip(*rollouts, strict=True)))


@pytest.mark.parametrize(("steps", "parts"), [(4, 1), (7, 1), (12, 3), (40, 10)])
def test_rings_hold_the_last_steps(steps: int, parts: int):
    replay, line = filled(steps, parts)
    kept = min(steps, C)
    assert replay["added"].tolist() == [steps] * K
    assert replay_rows(replay) == kept * N
    for t in range(steps - kept, steps):
        rows = replay_take(replay, torch.tensor([[t % C * N + n for n in range(N)]] * K))
        for name in FIELDS:
            assert torch.equal(rows[name], getattr(line, name)[:, t]), name


def test_rows_are_drawn_from_what_is_there_and_from_the_lane_alone():
    replay, _ = filled(4)
    lanes = lanes_of()
    index = replay_draw(lanes, replay, "x", 5, (50, 3))
    assert set(index.flatten().tolist()) == set(range(4 * N))
    alone = Lanes(lanes.configs[1:], lanes.seeds[1:], lanes.execution)
    assert torch.equal(replay_draw(alone, replay, "x", 5, (50, 3))[0], index[1])


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize(("steps", "parts"), [(5, 1), (18, 3)])
def test_n_step_returns_equal_a_walk_along_the_time_line(n: int, steps: int, parts: int):
    replay, line = filled(steps, parts)
    gamma = torch.tensor([0.9, 0.5], dtype=torch.float64)
    index = torch.arange(replay_rows(replay)).expand(K, -1)
    found = replay_n_step(replay, index, n, gamma)
    ended = short = 0
    for k in range(K):
        for t in range(max(0, steps - C), steps):
            for e in range(N):
                total, m = 0.0, 0
                while True:
                    last = (k, t + m, e)
                    total += float(gamma[k]) ** m * float(line.reward[last])
                    m += 1
                    over = bool(line.terminated[last] or line.truncated[last])
                    if m == n or over or t + m == steps:
                        break
                ended, short = ended + over, short + (m < n and not over)
                row = t % C * N + e
                assert float(found["reward"][k, row]) == pytest.approx(total, abs=1e-12)
                assert float(found["discount"][k, row]) == pytest.approx(float(gamma[k]) ** m, abs=1e-12)
                for name in ("next_obs", "next_mask", "terminated", "truncated"):
                    assert torch.equal(found[name][k, row], getattr(line, name)[last]), name
                for name in ("obs", "mask", "action"):
                    assert torch.equal(found[name][k, row], getattr(line, name)[k, t, e]), name
    assert ended
    assert short or n == 1


def test_no_return_reaches_across_a_new_beginning():
    replay, _ = filled(4)
    replay["terminated"][:] = False
    replay["truncated"][:] = False
    replay_cut(replay)
    replay_add(replay, rollout(2, 4)._replace(terminated=torch.zeros(K, 2, N, dtype=torch.bool)))
    found = replay_n_step(replay, torch.full((K, 1), 2 * N), 4, torch.ones(K, dtype=torch.float64))
    assert torch.equal(found["next_obs"], replay["next_obs"][:, 3, :1])
    assert found["truncated"].all()
    assert not found["terminated"].any()


def test_a_large_replay_lies_in_a_file_that_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lanes = lanes_of()
    small, mapped = replay_init(SPEC, lanes, C, N), replay_init(SPEC, lanes, C, N, large=1)
    assert list(tmp_path.iterdir()) == []
    with open("/proc/self/maps") as file:
        assert str(tmp_path) in file.read()
    for replay in (small, mapped):
        replay_add(replay, rollout(5))
        replay_add(replay, rollout(5, 5))
    assert all(torch.equal(small[name], mapped[name]) and small[name].dtype == mapped[name].dtype for name in small)
    del mapped, replay
    with open("/proc/self/maps") as file:
        assert str(tmp_path) not in file.read()
    assert os.listdir(tmp_path) == []


def test_pixels_are_kept_as_bytes():
    replay = replay_init(EnvSpec("test", (2, 2), discrete(3), pixels=True), lanes_of(), C, N)
    assert replay["obs"].dtype == replay["next_obs"].dtype == torch.uint8
    assert replay["mask"].shape == (K, C, N, 0)


def test_rows_are_drawn_in_proportion_to_their_priorities():
    power = torch.rand((K, 5, 8), generator=torch.Generator().manual_seed(0))
    power[0, 1] = 0  # an empty block, rows without priority, the ring's unwritten end
    power[:, 2, ::2] = 0
    power[:, 4, 3:] = 0
    power[1, 4] = 0
    many = 50_000
    part = ((torch.arange(many, dtype=torch.float64) + 0.5) / many).expand(K, -1)
    rows, chance = proportional(power, power.sum(-1, dtype=torch.float64), part)
    exact = power.flatten(1).double() / power.flatten(1).double().sum(1, keepdim=True)
    for k in range(K):
        shares = rows[k].bincount(minlength=40).double() / many
        torch.testing.assert_close(shares, exact[k], rtol=0, atol=2 / many)
    torch.testing.assert_close(chance.double(), exact.gather(1, rows), rtol=1e-6, atol=0)
    last, _ = proportional(power, power.sum(-1, dtype=torch.float64), torch.ones((K, 1), dtype=torch.float64))
    assert last.tolist() == [[34], [31]]


def test_nan_among_priorities_stays_in_its_lane():
    power = torch.rand((K, 3, 8), generator=torch.Generator().manual_seed(0))
    part = torch.linspace(0, 1, 9, dtype=torch.float64).expand(K, -1)
    expected, _ = proportional(power, power.sum(-1, dtype=torch.float64), part)
    power[0, 1, 2] = torch.nan
    rows, _ = proportional(power, power.sum(-1, dtype=torch.float64), part)
    assert torch.equal(rows[1], expected[1])
    assert ((rows >= 0) & (rows < 24)).all()


def test_weights_undo_the_bias_of_sampling():
    chance = torch.tensor([[0.5, 0.25, 0.05]])
    weight = importance(chance, 10, torch.tensor([[1.0]]))
    torch.testing.assert_close(weight, torch.tensor([[0.1, 0.2, 1.0]]))  # 1 / (R P) over the largest
    assert torch.equal(importance(chance, 10, torch.tensor([[0.0]])), torch.ones(1, 3))


def test_priorities_follow_errors_and_new_rows_have_the_highest():
    lanes = lanes_of(priority_alpha=0.5, priority_beta=0.4, steps=1000)
    replay = replay_init(SPEC, lanes, C, N)
    sampler = Prioritised(lanes, replay_take, 4)
    state = {"replay": replay, "priority": sampler.start(C * N)}
    replay_add(replay, rollout(3))
    sampler.added(state["priority"], replay, 3)
    power = state["priority"]["power"].flatten(1)
    assert power[:, : 3 * N].eq(1).all()
    assert power[:, 3 * N :].eq(0).all()
    error = torch.tensor([[4.0, -9.0], [0.0, 1.0]], dtype=torch.float64)
    sampler.learned(state["priority"], torch.tensor([[0, 5], [1, 2]]), error)
    torch.testing.assert_close(power[0, [0, 5]], (torch.tensor([4.0, 9.0], dtype=torch.float64) + SMALLEST) ** 0.5)
    torch.testing.assert_close(state["priority"]["highest"], torch.tensor([9.0, 1.0]).double() + SMALLEST)
    replay_add(replay, rollout(5, 3))
    sampler.added(state["priority"], replay, 5)  # steps 3 to 7: rows 6 to 13, and 0, 1
    assert power[0, [*range(6, 14), 0, 1]].sub((9 + SMALLEST) ** 0.5).abs().max() < 1e-12
    assert power[0, 5] == pytest.approx((9 + SMALLEST) ** 0.5)
    torch.testing.assert_close(state["priority"]["sums"], state["priority"]["power"].sum(-1), rtol=0, atol=0)
    (index, rows, weight), _ = sampler.batches(state, progress=500, count=2)
    assert torch.equal(rows["obs"], replay_take(replay, index)["obs"])
    chance = power.gather(1, index) / power.sum(1, keepdim=True)
    raw = (14 * chance) ** -0.7  # beta is halfway from 0.4 to 1
    torch.testing.assert_close(weight, raw / raw.amax(1, keepdim=True))
