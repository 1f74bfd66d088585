"""The small environments keep their rules, and the catalogue its promises."""

import pytest
import torch

from agents.envs.catalogue import spec_of, tensor_env, tensor_env_ids
from agents.envs.config import EnvConfig
from agents.envs.deep_sea import DeepSea
from harness import data

NONE = torch.zeros(0)


def make(env_id):
    return tensor_env(env_id, {}, ())


def played(env, state, choose):
    """The return of one episode of a policy of (state, observation)."""
    total = torch.zeros(())
    for _ in range(env.max_steps):
        state, step = env.step(state, choose(state, env.observe(state)), torch.full(env.step_shape, 0.3))
        total = total + step.reward
        if step.terminated or step.truncated:
            break
    return float(total)


@pytest.mark.parametrize("column", range(5))
def test_catch_rewards_the_paddle_under_the_ball(column):
    env = make("Catch-v0")
    state = env.reset(torch.tensor([(column + 0.5) / 5]))
    board = env.observe(state)
    assert float(board.sum()) == 2
    assert board[0, column] == board[9, 2] == 1
    follow = played(env, state, lambda s, _: 1 + torch.sign(s["ball"] - s["paddle"]).long())
    flee = played(env, state, lambda s, _: torch.tensor(0 if column >= 2 else 2))
    assert (follow, flee) == (1, -1)


def test_deep_sea_pays_only_for_diving_right_all_the_way():
    env = make("DeepSea-v0")
    state, right = env.reset(torch.zeros(1)), env.right.on(torch.zeros(1)).reshape(10, 10)

    def go(wanted):
        return lambda s, _: right[int(s["time"]), int(s["column"])] if wanted else 1 - right[int(s["time"]), 0]

    assert played(env, state, go(True)) == pytest.approx(0.99)
    assert played(env, state, go(False)) == 0
    assert 20 < int(right.sum()) < 80, "the actions' meaning differs between cells"
    torch.testing.assert_close(DeepSea(10).right.on(NONE).reshape(10, 10), right)


@pytest.mark.parametrize("env_id", [i for i in tensor_env_ids() if i.startswith("Identity")])
def test_identity_pays_for_the_shown_action_only(env_id):
    env = make(env_id)
    state = env.reset(torch.full(env.reset_shape, 0.1))

    def shown(state, _):
        wanted = state["wanted"]
        return wanted[0].long() if env.action.kind == "discrete" else wanted

    def other(state, _):
        wanted = state["wanted"]
        if env.action.kind == "box":
            return wanted + 0.51 * torch.where(wanted > 0, -1, 1)
        counts = torch.tensor(env.action.counts)
        changed = torch.cat(((wanted[:-1]), torch.remainder(wanted[-1:] + 1, counts[-1:])))
        return changed[0].long() if env.action.kind == "discrete" else changed

    assert played(env, state, shown) == 100
    assert played(env, state, other) == 0


def test_identity_shows_choices_one_hot():
    env = make("IdentityMultiDiscrete-v0")
    state = {"wanted": torch.tensor([1.0, 2.0]), "time": torch.tensor(0.0)}
    assert env.observe(state).tolist() == [0, 1, 0, 0, 1]
    assert make("IdentityMultiBinary-v0").obs_shape == (3,)
    assert make("Identity-v0").obs_shape == (4,)
    assert make("IdentityBox-v0").obs_shape == (1,)


def test_masked_identity_forbids_half_and_never_the_wanted_one():
    env = make("MaskedIdentity-v0")
    state = env.reset(torch.rand(500, 9, generator=torch.Generator().manual_seed(0)))
    allowed, wanted = env.mask(state), state["wanted"].long()
    assert (allowed.sum(-1) == 4).all()
    assert allowed.gather(-1, wanted[:, None]).all()
    assert (allowed.sum(0) > 200).all(), "every action is allowed about half the time"
    drawn = torch.zeros(500, 9)
    assert (env.step(state, wanted, drawn)[1].reward == 1).all()
    assert (env.step(state, allowed.int().argmin(-1), drawn)[1].reward == -1).all()
    harmless = (allowed & (torch.arange(8) != wanted[:, None])).int().argmax(-1)
    assert (env.step(state, harmless, drawn)[1].reward == 0).all()


def test_digits_shows_training_images_as_the_classifier_sees_them():
    env, rows = make("Digits-v0"), data.load("digits")["train"]
    state = env.reset(torch.linspace(0, 1 - 2**-24, 50).unsqueeze(-1))
    assert int(state["row"][0]) == 0
    assert int(state["row"][-1]) == len(rows) - 1
    torch.testing.assert_close(env.observe(state)[:, 0], 2 * torch.tensor(rows.x)[state["row"]] - 1)
    labels = torch.tensor(rows.y)[state["row"]]
    assert (env.step(state, labels, torch.zeros(50, 1))[1].reward == 1).all()
    assert (env.step(state, (labels + 1) % 10, torch.zeros(50, 1))[1].reward == 0).all()


def test_digits_are_part_of_a_trials_identity():
    assert EnvConfig.model_construct(env="Digits-v0").data_sets == ("digits",)
    assert EnvConfig.model_construct(env="CartPole-v1").data_sets == ()


@pytest.mark.parametrize("cue", range(4))
def test_recall_shows_the_cue_once_and_asks_for_it(cue):
    env = make("Recall-v0")
    state = env.reset(torch.tensor([(cue + 0.5) / 4]))
    seen = []

    def remember(state, obs):
        seen.append(obs.tolist())
        return torch.tensor(cue)

    assert played(env, state, remember) == 1
    assert seen == [[float(c == cue) for c in range(4)] + [0]] + [[0] * 5] * 6 + [[0, 0, 0, 0, 1]]
    assert played(env, state, lambda *_: torch.tensor((cue + 1) % 4)) == 0


def test_hidden_velocities():
    hidden, whole = make("CartPoleNoVel-v1"), make("CartPole-v1")
    state = whole.reset(torch.rand(3, 4))
    (_, a), (_, b) = (env.step(state, torch.ones(3), torch.zeros(3, 0)) for env in (hidden, whole))
    torch.testing.assert_close(a.next_obs, b.next_obs[:, [0, 2]])


def test_options_of_constructors():
    assert spec_of("DeepSea-v0", {"size": 4}, ()).obs_shape == (4, 4)
    assert tensor_env("CartPole-v1", {"sutton_barto_reward": True}, ()) is None, "Gymnasium's own takes options"
    for env, options, wrappers, says in (
        ("DeepSea-v0", {"depth": 4}, (), "env_options: 'DeepSea-v0' has no option 'depth'; it has size"),
        ("DeepSea-v0", {"size": 1}, (), "size must be an integer from 2 to 100, not 1"),
        ("Catch-v0", {"size": 4}, (), "env_options: 'Catch-v0' has no option 'size'; it has none"),
        ("Catch-v0", {}, ("frame-stack",), "wrappers: 'Catch-v0' is one of Seedbed's own"),
    ):
        with pytest.raises(ValueError, match=says):
            spec_of(env, options, wrappers)
