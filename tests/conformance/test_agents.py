"""Every own agent x what it sees x where it comes from x how lanes are executed, with and without normalisation: it
trains, is evaluated and goes on from a checkpoint, and all modes come to the same numbers.
"""

import functools
from typing import Any

import gymnasium
import pytest
import torch

from agents.envs import catalogue
from harness import checkpoint
from harness.learner import Lanes, learner_class, tree_map
from nets.lanes import Execution, has_compiler, reset_compiler
from tests.conformance.squares import SquareTensors
from tests.conformance.test_learners import assert_same, leaves

SEEDS = (11, 5)
OWN, FOREIGN = "SquareTensors-v0", "tests/Square-v0"
NETS = {"vector": {"kind": "mlp", "hidden_features": (4,)}, "image": {"kind": "cnn", "hidden_features": 2, "depth": 1}}
ON_POLICY = {"steps": 32, "n_envs": 2, "n_steps": 4}
OFF_POLICY = {"steps": 48, "n_envs": 2, "learning_starts": 8, "buffer_size": 32, "batch": 4}
# learner -> (its configuration, actions, the field that its network stands in)
AGENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a2c": ({**ON_POLICY, "updates": 2}, "discrete", "net"),
    "ppo": ({**ON_POLICY, "epochs": 1, "batch": 4}, "discrete", "net"),
    "recurrent-ppo": (
        {**ON_POLICY, "epochs": 1, "minibatches": 2, "memory_features": 3, "hidden_features": [3]},
        "discrete",
        "encoder",
    ),
    "dqn": ({**OFF_POLICY, "train_freq": 4, "target_update_interval": 8}, "discrete", "net"),
    "sac": ({**OFF_POLICY, "train_freq": 4}, "box", "net"),
    "td3": ({**OFF_POLICY, "train_freq": 4}, "box", "net"),
}
CELLS = [
    (learner, seen, env, normalised)
    for learner in AGENTS
    for seen in ("vector", "image")
    for env in (OWN, FOREIGN)
    for normalised in (False, True)
]
QUICK = [c for c in CELLS if c[1:] == ("image", FOREIGN, False)]  # `make test` traces these, `make test-slow` all
COMPILED = [c for c in CELLS if c[1] == "image" and (c[2] == OWN) == c[3]]  # 10 s and more each


@pytest.fixture(autouse=True, scope="module")
def environments():
    """Both forms of the task by id, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gymnasium.register(FOREIGN, "tests.conformance.squares:Square")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.OWN, OWN, SquareTensors)
        patch.setattr("agents.envs.describing.is_trusted", lambda *given: True)  # no process: seconds
        yield
    del gymnasium.registry[FOREIGN]
    torch.set_num_threads(threads)


def started(learner, seen, env, normalised, mode="eager", **fields):
    """(learner, state) of a cell."""
    config, actions, net = AGENTS[learner]
    wrappers = ["normalise-observations", "normalise-rewards"] if normalised else []
    of_env = {"env": env, "env_options": {"seen": seen, "actions": actions}, "env_workers": 0, "wrappers": wrappers}
    agent = learner_class(learner)()
    built = agent.Config(**{**config, **of_env, net: NETS[seen], "eval_episodes": 3, **fields})
    return agent, agent.start(Lanes((built,) * len(SEEDS), SEEDS, Execution(mode, dtype=torch.float64)))


def trained(cell, mode, chunks=4):
    """(state, scores) of a cell after some chunks."""
    agent, state = started(*cell, mode=mode)
    for _ in range(chunks):
        agent.advance(state)
    scores = agent.evaluate(state)
    agent.close()
    return state, scores


@functools.cache
def eager(cell):
    """(state before, state, scores) of an eager run."""
    agent, state = started(*cell)
    agent.close()
    return tree_map(torch.clone, state), *trained(cell, "eager")


def named(cells, slow=()):
    """Parameters of a test with readable names; those in `slow` for the slow tests."""
    found = []
    for c in cells:
        name = "-".join((*c[:2], "own" if c[2] == OWN else "gymnasium", "normalised" if c[3] else "plain"))
        found.append(pytest.param(c, id=name, marks=[pytest.mark.slow] if c in slow else []))
    return found


@pytest.mark.parametrize("cell", named(CELLS))
def test_every_agent_trains_on_every_observation_of_every_environment(cell):
    before, state, scores = eager(cell)
    for a, b in zip(leaves(before), leaves(state), strict=True):
        assert b.isfinite().all()
        assert not torch.equal(a, b)
    assert scores["return"].shape == (2, 3)
    assert ((scores["return"] >= 0) & (scores["return"] <= 7)).all()  # the environment's own rewards, whole episodes
    moments = state["envs"]["norm"]
    assert set(moments) == ({"obs", "reward"} if cell[3] else set())


@pytest.mark.parametrize("cell", named(CELLS))
def test_one_after_another_comes_to_the_same_numbers(cell):
    _, expected, wanted = eager(cell)
    state, scores = trained(cell, "loop")
    assert_same(state, expected)
    assert_same(scores, wanted)


@pytest.mark.parametrize("cell", named(CELLS, slow=set(CELLS) - set(QUICK)))
def test_what_is_compiled_comes_to_the_same_numbers(cell, monkeypatch):
    """Functions are traced as for compiling, and their graphs run as they are: a compiler takes seconds for each."""

    def uncompiled(graph, example, **options):
        return lambda flat: list(graph(*flat))

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx_inner", uncompiled)
    _, expected, wanted = eager(cell)
    state, scores = trained(cell, "compiled")
    assert_same(state, expected)
    assert_same(scores, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("cell", named(COMPILED))
def test_compiled_comes_to_the_same_numbers(cell, tmp_path_factory, monkeypatch):
    if not has_compiler():
        pytest.skip("no C++ compiler on this machine")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled"))
    _, expected, wanted = eager(cell)
    state, scores = trained(cell, "compiled")
    reset_compiler()
    assert_same(state, expected, atol=1e-7)
    assert_same(scores, wanted, atol=1e-7)


@pytest.mark.parametrize("cell", named(CELLS))
def test_a_checkpoint_goes_on_as_if_nothing_had_been(cell, tmp_path):
    agent, state = started(*cell)
    for _ in range(2):
        agent.advance(state)
    checkpoint.write_fence(tmp_path, 1)
    path = checkpoint.save(tmp_path, 1, 1, state, {})
    agent.checkpointed(state)
    agent.advance(state)
    agent.close()
    other, _ = started(*cell)
    again = checkpoint.load(path).tree
    other.checkpointed(again)
    other.advance(again)
    other.close()
    assert_same(again, state, atol=0)


@pytest.mark.parametrize("learner", ["ppo", "recurrent-ppo", "dqn"])
@pytest.mark.parametrize(
    ("env", "options", "wrappers", "net", "least"),
    [
        ("ALE/Pong-v5", {"max_num_frames_per_episode": 160}, ["atari"], {"kind": "nature-cnn"}, -21),
        ("MiniGrid-Empty-5x5-v0", {"max_steps": 20}, ["image-only"], {"kind": "cnn", "depth": 1}, 0),
    ],
)
def test_games_of_pictures_train(learner, env, options, wrappers, net, least):
    pytest.importorskip("ale_py" if env.startswith("ALE") else "minigrid")
    config, _, field = AGENTS[learner]
    small = {**config, "n_envs": 1, "minibatches": 1} if learner == "recurrent-ppo" else {**config, "n_envs": 1}
    agent = learner_class(learner)()
    built = agent.Config(
        **{**small, "env": env, "env_options": options, "wrappers": wrappers, field: net, "eval_episodes": 1}
    )
    state = agent.start(Lanes((built,), (3,), Execution("loop")))
    before = [p.clone() for p in leaves(state)]
    for _ in range(4):
        agent.advance(state)
    assert state["envs"]["obs"].dtype == (torch.uint8 if env.startswith("ALE") else torch.float32)
    assert not any(torch.equal(a, b) for a, b in zip(before, leaves(state), strict=True))
    assert least <= float(agent.evaluate(state)["return"]) <= 1
    agent.close()


def test_pictures_from_gymnasium_teach():
    """8 at best; 4 by chance, and for whoever does not look."""
    gymnasium.register("tests/Halves-v0", "tests.conformance.squares:Halves")
    fields = {"n_envs": 8, "n_steps": 32, "batch": 64, "epochs": 4, "steps": 2048, "eval_episodes": 20}
    config = {"env": "tests/Halves-v0", "env_workers": 0, "net": NETS["image"], **fields}
    agent = learner_class("ppo")()
    state = agent.start(Lanes((agent.Config(**config),) * 2, SEEDS, Execution("loop")))
    assert float(agent.evaluate(state)["return"].mean()) < 7
    while int(state["progress"][0]) < 2048:
        agent.advance(state)
    assert (agent.evaluate(state)["return"].mean(1) > 7.5).all()
    agent.close()
    del gymnasium.registry["tests/Halves-v0"]
