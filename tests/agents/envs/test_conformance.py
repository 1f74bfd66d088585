"""What must hold for every tensor environment: one case for each id of the catalogue."""

import pytest
import torch

from agents.envs.catalogue import spec_of, tensor_env, tensor_env_ids
from agents.envs.transition import where_done
from nets.lanes import Execution, has_compiler, reset_compiler

IDS = tensor_env_ids()
LAST = 1 - 2**-24  # the largest number that uniform float32 noise takes
ENDS_ITSELF = {"Catch-v0", "DeepSea-v0", "Digits-v0", "Recall-v0"}  # by the task, never by a time limit
KINDS = [
    "CartPole-v1", "DeepSea-v0", "Digits-v0", "IdentityMultiDiscrete-v0", "MaskedIdentity-v0", "MinAtar/Breakout-v1",
    "MinAtar/SpaceInvaders-v1", "Pendulum-v1",
]  # fmt: skip


def noise(shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def actions(env, drawn):
    """Uniform actions from noise [..., D]."""
    space = env.action
    if space.kind == "box":
        low, high = drawn.new_tensor(space.low), drawn.new_tensor(space.high)
        return low + drawn * (high - low)
    action = torch.floor(drawn * drawn.new_tensor(space.counts))
    if space.kind == "multi-binary":
        return action
    return action.long() if space.kind == "multi-discrete" else action.long().squeeze(-1)


def width(env):
    return len(env.action.counts or env.action.low)


def rolled(env, leading=(3,), steps=12, dtype=torch.float32):
    """A state some steps into an episode, with what the next step takes: (state, action, noise)."""
    state = env.reset(noise((*leading, *env.reset_shape), dtype))
    for t in range(steps):
        action = actions(env, noise((*leading, width(env)), dtype, seed=2 * t))
        drawn = noise((*leading, *env.step_shape), dtype, seed=2 * t + 1)
        after, step = env.step(state, action, drawn)
        done = step.terminated | step.truncated
        state = where_done(done, env.reset(noise((*leading, *env.reset_shape), dtype, seed=t)), after)
    return state, action, drawn


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("env_id", IDS)
class TestEveryEnvironment:
    @pytest.fixture
    def env(self, env_id):
        return tensor_env(env_id, {}, ())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
    def test_shapes_and_dtypes(self, env, leading, dtype):
        state = env.reset(noise((*leading, *env.reset_shape), dtype))
        after, step = env.step(*rolled(env, leading, 1, dtype))
        assert env.observe(state).shape == step.next_obs.shape == (*leading, *env.obs_shape)
        assert env.observe(state).dtype == step.next_obs.dtype == step.reward.dtype == dtype
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == leading
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        assert {n: (t.shape, t.dtype) for n, t in after.items()} == {n: (t.shape, t.dtype) for n, t in state.items()}
        assert all(t.shape[: len(leading)] == leading for t in after.values())
        assert {t.dtype for t in after.values() if t.is_floating_point()} == {dtype}
        if env.masked:
            assert env.mask(after).shape == (*leading, env.action.mask_width)
            assert env.mask(after).dtype == torch.bool

    def test_arguments_are_unchanged_and_results_share_nothing_that_is_written(self, env):
        state, action, drawn = rolled(env)
        before = {n: t.clone() for n, t in state.items()}, action.clone(), drawn.clone()
        first = env.step(state, action, drawn)
        env.observe(state)
        torch.testing.assert_close((state, action, drawn), before, rtol=0, atol=0)
        torch.testing.assert_close(env.step(state, action, drawn), first, rtol=0, atol=0)

    def test_the_step_shows_what_the_new_state_shows(self, env):
        after, step = env.step(*rolled(env))
        torch.testing.assert_close(step.next_obs, env.observe(after), rtol=0, atol=0)

    def test_rows_do_not_depend_on_each_other(self, env):
        whole = env.step(*rolled(env, (4,)))
        state, action, drawn = rolled(env, (4,))
        one = env.step({n: t[2] for n, t in state.items()}, action[2], drawn[2])
        same(one[0], {n: t[2] for n, t in whole[0].items()})
        same(tuple(one[1]), tuple(t[2] for t in whole[1]))

    @pytest.mark.parametrize("edge", [0.0, LAST])
    def test_edges_of_the_noise(self, env, edge):
        state = env.reset(torch.full((2, *env.reset_shape), edge))
        for _ in range(20):
            action = actions(env, torch.full((2, width(env)), edge))
            state, step = env.step(state, action, torch.full((2, *env.step_shape), edge))
            assert torch.isfinite(step.next_obs).all()
            assert torch.isfinite(step.reward).all()
            if env.max_steps < 20:
                break

    def test_every_episode_ends_in_time(self, env, env_id):
        state = env.reset(noise((3, *env.reset_shape))) | {"time": torch.full((3,), float(env.max_steps - 1))}
        action, drawn = actions(env, noise((3, width(env)))), noise((3, *env.step_shape))
        after, step = env.step(state, action, drawn)
        assert (after["time"] == env.max_steps).all()
        assert (step.terminated if env_id in ENDS_ITSELF else step.truncated).all()
        assert not (step.truncated.any() and env_id in ENDS_ITSELF)
        _, earlier = env.step(state | {"time": torch.full((3,), float(env.max_steps - 2))}, action, drawn)
        assert not (earlier.terminated if env_id in ENDS_ITSELF else earlier.truncated).any()

    def test_vmap(self, env):
        state, action, drawn = rolled(env, (2, 3))
        fresh = noise((2, 3, *env.reset_shape))
        same(torch.vmap(env.step)(state, action, drawn), env.step(state, action, drawn))
        same(torch.vmap(env.reset)(fresh), env.reset(fresh))
        same(torch.vmap(env.observe)(state), env.observe(state))

    def test_the_spec_says_what_the_environment_is(self, env, env_id):
        spec = spec_of(env_id, {}, ())
        assert (spec.obs_shape, spec.action, spec.max_steps) == (env.obs_shape, env.action, env.max_steps)
        assert spec.tensor
        assert spec.masked == env.masked


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize("env_id", KINDS)
def test_compiled_equals_eager(env_id, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    env = tensor_env(env_id, {}, ())
    arguments = rolled(env, (2, 3))
    try:
        found = Execution("compiled").each(env.step)(*arguments)
    finally:
        reset_compiler()
    same(found, env.step(*arguments))
