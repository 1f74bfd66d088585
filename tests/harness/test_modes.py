"""How a cohort is executed is measured where that pays, kept, and recorded."""

import json
import math

import pytest

from harness import modes
from harness.learner import Lanes
from nets.lanes import Execution, Work
from tests.toy import Toy, ToyConfig


class Slow(Toy):
    """A toy whose cost is what a test says: {mode: seconds a chunk}."""

    cost: dict[str, float] = {}
    expected = 100.0
    convolutions = False
    trained: list[str] = []

    @classmethod
    def work(cls, config, lanes):
        return Work(cls.expected, compile_seconds=30.0, speedup=4.0, loop_on_cpu=cls.convolutions)

    def advance(self, state):
        self.trained.append(self.lanes.execution.mode)
        return super().advance(state)


@pytest.fixture
def toy(monkeypatch):
    """The class, fresh; an action "takes" what its mode costs."""
    monkeypatch.setattr(Slow, "trained", [])

    def seconds(execution, action):
        action()
        return Slow.cost[execution.mode]

    monkeypatch.setattr(Execution, "seconds", seconds)
    for module in ("nets.lanes", "harness.modes"):
        monkeypatch.setattr(f"{module}.why_not_compiled", lambda: "")
    return Slow


def lanes(count=4, steps=1000):
    return Lanes(tuple(ToyConfig(steps=steps, lr=0.1 * k) for k in range(count)), tuple(range(count)))


@pytest.mark.parametrize(
    ("eager", "loop", "mode"),
    [
        (0.01, 0.02, "eager"),  # 10 s: too short to compile
        (0.02, 0.01, "loop"),
        (0.5, 0.9, "compiled"),  # 500 s: compiling saves 375 s, it is said
        (0.5, 0.05, "loop"),  # faster than compiled code could be
    ],
)
def test_what_is_fastest_is_taken(toy, monkeypatch, tmp_path, eager, loop, mode):
    monkeypatch.setattr(toy, "cost", {"eager": eager, "loop": loop})
    choice = modes.choose(toy, lanes(), "auto", tmp_path)
    assert choice.mode == mode
    assert choice.seconds == {"eager": eager, "loop": loop}
    assert set(toy.trained) == {"eager", "loop"}


@pytest.mark.parametrize(
    ("compiled", "loop", "mode"),
    [
        (0.3, 0.9, "compiled"),
        (0.9, 0.6, "loop"),  # not the fourfold gain that the learner promises
        (0.59, 0.6, "loop"),  # saves 10 s beside it and costs 30
        (0.99, 1.1, "eager"),  # likewise beside eager lanes
    ],
)
@pytest.mark.parametrize("convolutions", [False, True])
def test_compiling_is_tried_out_where_it_costs_little(toy, monkeypatch, tmp_path, compiled, loop, mode, convolutions):
    monkeypatch.setattr(toy, "convolutions", convolutions)
    monkeypatch.setattr(toy, "cost", {"eager": 1.0, "loop": loop, "compiled": compiled})  # 1,000 s
    choice = modes.choose(toy, lanes(), "auto", tmp_path)
    assert choice.mode == mode
    assert choice.seconds == toy.cost


@pytest.mark.parametrize(("loop", "mode"), [(0.4, "loop"), (0.3, "loop"), (0.6, "eager")])
def test_convolutions_are_not_compiled_on_a_learners_word(toy, monkeypatch, tmp_path, loop, mode):
    monkeypatch.setattr(toy, "convolutions", True)
    monkeypatch.setattr(toy, "cost", {"eager": 0.5, "loop": loop})
    assert modes.choose(toy, lanes(), "auto", tmp_path).mode == mode


def test_the_choice_is_kept_for_the_shape(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "cost", {"eager": 0.02, "loop": 0.01})
    first = modes.choose(toy, lanes(), "auto", tmp_path)
    toy.trained.clear()
    monkeypatch.setattr(toy, "cost", {"eager": 0.01, "loop": 0.02})  # the clock tells another time
    assert modes.choose(toy, lanes(), "auto", tmp_path) == first
    assert modes.choose(toy, lanes(), "auto", tmp_path, recorded="loop") == first
    assert not toy.trained
    assert modes.choose(toy, lanes(count=3), "auto", tmp_path).mode == "eager"  # another shape
    (file,) = (f for f in tmp_path.iterdir() if json.loads(f.read_text())["mode"] == "loop")
    file.write_text("{")
    assert modes.choose(toy, lanes(), "auto", tmp_path).mode == "eager"


def test_nothing_is_measured_where_it_would_not_pay(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "cost", {"eager": 0.01, "loop": 0.02})
    assert modes.choose(toy, lanes(), "loop", tmp_path).mode == "loop"
    assert modes.choose(toy, lanes(), "auto", tmp_path, recorded="compiled").mode == "compiled"
    monkeypatch.setattr(toy, "expected", 5.0)
    assert modes.choose(toy, lanes(), "auto", tmp_path).mode == "eager"
    assert not toy.trained
    monkeypatch.setattr(toy, "expected", 100.0)
    assert "loop" not in modes.choose(toy, lanes(steps=60), "auto", tmp_path).seconds  # 4 lanes of 60 chunks


def test_a_measurement_leaves_the_training_alone(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "cost", {"eager": 0.01, "loop": 0.02})
    own = lanes()
    before = Toy().start(own)
    modes.choose(toy, own, "auto", tmp_path)
    after = Toy().start(own)
    assert all((before[name] == after[name]).all() for name in before)


def test_time_is_told_in_seconds():
    taken = Execution().seconds(lambda: sum(range(200_000)))
    assert 0 < taken < math.inf
