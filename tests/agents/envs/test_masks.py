"""Masks of allowed actions: what stands behind an end is none, and those among observations are taken as masks."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.envs.describing import check
from agents.envs.making import make_gym
from agents.ppo import PPOConfig
from agents.sb3 import SB3, SB3Config
from harness.learner import LaneError, Lanes, learner_class
from tests.agents.masked_env import ACTIONS, STEPS

HERE = "tests.agents.masked_env:"
SMALL = {"n_envs": 2, "env_workers": 0, "eval_episodes": 3, "eval_sampled_episodes": 2}
NET = {"kind": "mlp", "hidden_features": (8,)}
LEARNERS = {
    "ppo": {"n_steps": 16, "batch": 8, "epochs": 1, "steps": 64, "net": NET},
    "a2c": {"n_steps": 8, "updates": 1, "steps": 64, "net": NET},
    "recurrent-ppo": {"n_steps": 8, "epochs": 1, "steps": 64, "memory_features": 4},
    "dqn": {"learning_starts": 8, "buffer_size": 48, "batch": 8, "steps": 64, "net": NET, "double": True},
}
ENDS = [(b, h) for b in ("nothing", "zeros", "short", "raises") for h in ("terminated", "truncated")]


@pytest.fixture(autouse=True)
def no_process(monkeypatch):
    """Environments are described in this process: another one takes seconds."""
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *given: True)


def trained(learner, env, options, **fields):
    """(agent, state) after its whole training; an action that is forbidden would have ended it."""
    agent = learner_class(learner)()
    config = agent.Config(**{**SMALL, **LEARNERS[learner], "env": HERE + env, "env_options": options, **fields})
    state = agent.start(Lanes((config,), (4,)))
    while int(state["progress"][0]) < config.budget:
        agent.advance(state)
    return agent, state


@pytest.mark.parametrize(
    ("learner", "behind", "how"),
    [*((name, *end) for name in ("ppo", "dqn") for end in ENDS), ("a2c", *ENDS[3]), ("recurrent-ppo", *ENDS[6])],
)
def test_what_is_said_behind_an_end_is_no_mask(learner, behind, how):
    agent, state = trained(learner, "Said-v0", {"behind": behind, "how": how})
    scores = agent.evaluate(state)
    assert all(((returns >= 0) & (returns <= STEPS)).all() for returns in scores.values())
    assert all(p.isfinite().all() for p in state["params"].values())
    agent.close()


@pytest.mark.parametrize("behind", ["nothing", "zeros", "short", "raises"])
def test_masks_before_an_end_are_kept_and_behind_it_all_is_allowed(behind):
    agent, state = trained("ppo", "Said-v0", {"behind": behind, "how": "truncated"})
    _, rollout = agent.envs.collect(state["params"], state["envs"], 64)
    place = rollout.obs[..., 0]
    assert torch.equal(rollout.mask, torch.stack([place >= 0, place > -99, place <= 0], -1))
    assert rollout.mask.gather(-1, rollout.action.unsqueeze(-1)).all()
    assert rollout.truncated.any()
    assert rollout.next_mask[rollout.truncated].all()
    here, following = rollout.next_mask[:, :-1][~rollout.truncated[:, :-1]], rollout.mask[:, 1:]
    assert torch.equal(here, following[~rollout.truncated[:, :-1]])
    agent.close()


def test_a_mask_that_is_none_in_the_middle_of_an_episode_still_ends_the_trial(monkeypatch):
    monkeypatch.setattr("tests.agents.masked_env.Said._mask", lambda env: np.zeros(3) if env.time == 2 else np.ones(3))
    with pytest.raises(LaneError, match="gave a mask that allows 0 of 3 actions, of 3 at step 2"):
        trained("ppo", "Said-v0", {})


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("wrappers", [[], ["normalise-observations", {"frame-stack": {"frames": 2}}]])
def test_masks_among_observations_are_taken_as_masks(learner, wrappers):
    agent, state = trained(learner, "Observed-v0", {"how": "truncated"}, wrappers=wrappers)
    assert agent.lanes.config.env_spec.obs_shape == (4 if wrappers else 2,)  # the mask is not seen
    assert agent.lanes.config.env_spec.mask_width == ACTIONS
    assert (agent.evaluate(state)["return"] >= 0).all()
    agent.close()


def test_the_episode_that_is_filmed_keeps_to_the_masks():
    for env in ("Said-v0", "Observed-v0"):
        agent, state = trained("ppo", env, {})
        for p in state["params"].values():
            p.zero_()  # all actions are worth the same: the first one that is allowed is taken
        episode = agent.envs.record(state["params"], state["envs"], 0, 0)
        assert 4 <= episode.steps <= STEPS
        agent.close()


@pytest.mark.parametrize(
    ("wrappers", "more", "expected"),
    [
        ([], False, [-2, 0]),
        ([], True, [1, 0, -2, 0]),  # as ever: by name, choices one-hot
        ([HERE + "Late"], False, [-1, 0]),
        ([HERE + "Late", {"frame-stack": {"frames": 2}}], False, [-1, 0, -1, 0]),
    ],
)
def test_the_rest_of_the_observations_stays(wrappers, more, expected):
    env = make_gym(HERE + "Observed-v0", {"more": more}, wrappers)
    seed = next(s for s in range(20) if env.reset(seed=s) and env.unwrapped.place == -2)
    obs, _ = env.reset(seed=seed)
    assert np.asarray(obs).tolist() == expected
    assert env.observation_space.shape == (len(expected),)
    assert env.get_wrapper_attr("action_masks")().tolist() == [0, 1, 1]


def test_a_part_of_that_name_that_is_no_mask_is_named():
    with pytest.raises(ValidationError, match=r"`action_mask`, Box.*that is no mask of its 3 actions; give one number"):
        PPOConfig(env=HERE + "Observed-v0", env_options={"width": 5}, env_workers=0)


@pytest.mark.parametrize("env", ["Said-v0", "Observed-v0", "Pairs-v0"])
def test_the_check_before_a_start_plays_what_is_allowed(env):
    for _ in range(5):
        check(HERE + env, {})
    assert make_gym(HERE + env, {}, []).action_space.sample.__name__ == "sample"


@pytest.mark.parametrize("env", ["Said-v0", "Observed-v0"])
def test_stable_baselines3_takes_the_same_masks(env):
    behind = "raises" if env == "Said-v0" else "short"
    fields = {"env": HERE + env, "env_options": {"behind": behind}, "n_envs": 2, "steps": 32, "eval_episodes": 3}
    learner = SB3()
    config = SB3Config(algo="MaskablePPO", hyper={"n_steps": 16, "batch_size": 8, "n_epochs": 1}, **fields)
    state = learner.start(Lanes((config,), (4,)))
    learner.advance(state)
    assert (learner.evaluate(state)["return"] >= 0).all()
    learner.close()
    if env == "Observed-v0":
        with pytest.raises(ValidationError, match="says in its observations which actions are allowed, and PPO takes"):
            SB3Config(algo="PPO", **fields)
