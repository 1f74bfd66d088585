"""What must hold for learners that bring their own state (`foreign`, K = 1): saving, resuming, evaluating, networks.

A case is a learner and a configuration that trains four chunks within a second or two.
"""

import json
import sys

import pytest
import torch

from harness.checkpoint import pack, unpack
from harness.learner import Lanes, learner_class
from harness.results import _blank_network
from tests.agents.sb3_cases import CASES as SB3_CASES
from tests.agents.sb3_cases import QUICK

SEED = 5
CASES = {
    f"sb3 {name}": {"steps": 4000, "eval_episodes": 2, "eval_sampled_episodes": 1, **case}
    for name, case in SB3_CASES.items()
}
FOREIGN = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n.split()[1] in QUICK else pytest.mark.slow) for n in CASES]
)
unpickled: list[str] | None = None  # a list while unpickling is watched


def _watch(event, args):
    if event == "pickle.find_class" and unpickled is not None:
        unpickled.append(".".join(map(str, args)))


sys.addaudithook(_watch)


@pytest.fixture
def no_unpickling():
    """Whatever is unpickled during the test fails it."""
    global unpickled
    unpickled = []
    yield
    found, unpickled = unpickled, None
    assert found == []


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as the worker of one CPU has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def started(name):
    """(learner, state)."""
    learner = learner_class(name.split()[0])()
    assert learner.foreign
    return learner, learner.start(Lanes((learner.Config(**CASES[name]),), (SEED,)))


def saved(learner, state):
    """What a checkpoint holds: tensors and JSON text."""
    tensors, skeleton = pack(learner.save(state))
    return {n: t.clone() for n, t in tensors.items()}, json.dumps(skeleton, allow_nan=False)


def assert_same(found, expected):
    """Equal to the last bit, but for the wall time of recent episodes."""
    assert without_times(found[1]) == without_times(expected[1])
    assert found[0].keys() == expected[0].keys()
    for key, tensor in expected[0].items():
        assert found[0][key].dtype == tensor.dtype, key
        torch.testing.assert_close(found[0][key], tensor, rtol=0, atol=0, equal_nan=True, msg=key)


def without_times(text):
    """The JSON tree without the wall time `t` of episodes."""
    tree = json.loads(text)
    for episode in tree["episodes"]:
        episode.pop("t", None)
    return tree


def loaded(name, checkpoint):
    """A new learner that takes the checkpoint."""
    learner, _ = started(name)
    return learner, learner.load(unpack(json.loads(checkpoint[1]), checkpoint[0]))


@FOREIGN
def test_what_is_loaded_is_what_was_saved_and_goes_on_as_if_nothing_had_been(name, no_unpickling):
    learner, state = started(name)
    begun = saved(learner, state)
    learner.advance(state)
    learner.checkpointed(state)
    learner.advance(state)
    checkpoint = saved(learner, state)
    assert checkpoint[1] != begun[1]
    resumed, resumed_state = loaded(name, checkpoint)
    assert_same(saved(resumed, resumed_state), checkpoint)
    for one, its_state in ((learner, state), (resumed, resumed_state)):
        one.checkpointed(its_state)
        one.advance(its_state)
        one.advance(its_state)
    assert_same(saved(resumed, resumed_state), saved(learner, state))
    assert int(resumed_state["progress"][0]) == 4 * learner.chunk


@FOREIGN
def test_evaluating_changes_nothing_and_networks_can_be_rebuilt(name):
    learner, state = started(name)
    metrics = learner.advance(state)
    assert all(m.shape == (1,) for m in metrics.values())
    before = saved(learner, state)
    scores = learner.evaluate(state)
    again = learner.evaluate(state)
    assert scores["return"].shape == (1, 2)
    assert scores["sampled_return"].shape == (1, 1)
    for key, value in scores.items():
        assert torch.equal(value, again[key])
        assert value.isfinite().all()
    network = learner.network(state, 0)
    assert_same(saved(learner, state), before)
    rebuilt = _blank_network(name.split()[0], CASES[name], SEED)
    weights = {n: t.clone() for n, t in network.state_dict().items()}
    assert len({t.data_ptr() for t in network.state_dict().values() if t.numel()}) == sum(
        t.numel() > 0 for t in weights.values()
    )
    rebuilt.load_state_dict(weights)
    obs = torch.randn(7, *learner.lanes.config.env_spec.obs_shape)
    assert torch.equal(rebuilt(obs), network(obs))


@FOREIGN
def test_the_same_seed_gives_the_same_whatever_happens_around_it(name):
    learner, state = started(name)
    learner.advance(state)
    torch.manual_seed(1)
    other, other_state = started(name)
    torch.rand(3)
    other.advance(other_state)
    assert_same(saved(other, other_state), saved(learner, state))


@pytest.mark.parametrize("name", ["sb3", "function"])
def test_every_field_is_described(name):
    assert all(info.description for info in learner_class(name).Config.model_fields.values())
