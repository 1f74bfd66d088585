"""Normalised scores: the formula, a sound table, and random scores that come out again when they are measured."""

from __future__ import annotations

import math

import ale_py
import gymnasium
import minigrid
import numpy as np
import pytest
import torch

from agents.envs import EnvConfig
from agents.envs.catalogue import tensor_env, tensor_env_ids
from agents.envs.scores import SCORES, normalised, scored
from benchmarks.random_scores import random_returns

assert ale_py
assert minigrid  # both register their environments when imported


def test_0_is_the_random_policy_and_1_the_reference():
    random, reference, _ = SCORES["Acrobot-v1"]
    middle = (random + reference) / 2
    returns = torch.tensor([[random, reference], [middle, reference + (reference - random)]], dtype=torch.float64)
    torch.testing.assert_close(normalised("Acrobot-v1", returns), torch.tensor([[0, 1], [0.5, 2]], dtype=torch.float64))
    assert normalised("Unheard-v0", returns) is None


def test_an_evaluation_has_both_scores_where_there_is_a_range():
    returns = torch.full((2, 3), 500.0)
    both = scored(EnvConfig(), returns)
    assert list(both) == ["return", "normalised"]
    assert both["return"] is returns
    assert both["normalised"].tolist() == [[1.0] * 3] * 2
    other = EnvConfig(env_options={"sutton_barto_reward": True})
    assert list(scored(other, returns)) == ["return"]


@pytest.mark.parametrize("env_id", SCORES)
def test_every_environment_of_the_table_exists(env_id):
    found = SCORES[env_id]
    assert found.random < found.reference
    assert math.isfinite(found.random)
    assert found.source
    assert tensor_env(env_id, {}, ()) is not None or gymnasium.spec(env_id)


def test_every_environment_of_ours_is_in_the_table():
    assert {env_id for env_id in tensor_env_ids() if "Identity" not in env_id} <= set(SCORES)


@pytest.mark.parametrize("env_id", [name for name in tensor_env_ids() if name in SCORES])
def test_random_scores_come_out_again(env_id):
    returns = random_returns(env_id, 400)
    error = max(returns.std() / len(returns) ** 0.5, 1e-6)
    assert abs(returns.mean() - SCORES[env_id].random) < 5 * error + 0.01


def test_gymnasiums_environments_are_measured_too():
    returns = random_returns("MiniGrid-Empty-Random-5x5-v0", 60)
    assert returns.shape == (60,)
    assert abs(returns.mean() - SCORES["MiniGrid-Empty-Random-5x5-v0"].random) < 5 * np.std(returns) / 60**0.5
