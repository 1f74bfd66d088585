"""What must hold for every learner (docs/design.md): lanes are trials, and nothing but trials.

A learner joins by one line in `TINY`: a case (its name, and what it is a case of), a configuration that trains
20 updates within seconds, its PerLane learning rates, and how many chunks hold 20 updates.
"""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from harness.learner import Lanes, learner_class, select
from harness.metric_names import check_metric_names
from nets.lanes import Execution, has_compiler, reset_compiler

SMALL = {"hidden_features": 8, "depth": 2}
PERCEPTRONS = {"generator": {"kind": "mlp-generator", **SMALL}, "net": {"kind": "mlp", **SMALL}}
NARROW = {"kind": "mlp", "hidden_features": [8, 8]}
AGENT = {"steps": 2048, "net": NARROW, "eval_episodes": 4, "eval_sampled_episodes": 2}
LABELS = {"label_smoothing": 0.1, "epochs": 2, "batch": 8}
OFF_POLICY = {"steps": 400, "n_envs": 2, "train_freq": 4, "gradient_steps": 2, "learning_starts": 4, "batch": 8,
              "buffer_size": 64, "target_update_interval": 16, "net": {"hidden_features": [8, 8]},
              "eval_episodes": 4}  # fmt: skip
# the replay is full within three chunks
CONTINUOUS = {"env": "Pendulum-v1", "steps": 2048, "learning_starts": 4, "batch": 8, "buffer_size": 40,
              "net": {"kind": "mlp", "hidden_features": [8, 8]}, "eval_episodes": 2}  # fmt: skip
TEXT = {"data": "oracle-tiny", "batch": 4, "embedding_features": 4, "hidden_features": 4, "samples": 20,
        "temperatures": [0.8, 1.0]}  # fmt: skip
RHYMES = str(Path(__file__).parents[1] / "supervised" / "rhymes.txt")
SEQUENCE = {"updates": 88, "batch": 4, "judged": 5}
SHORT = {"data": "stories-1", "longest": 20, "label_smoothing": 0.1, "beam": 2}
# case -> (configuration, names of the PerLane learning rates, chunks)
TINY: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "ppo": ({**AGENT, "n_envs": 2, "n_steps": 16, "epochs": 2, "batch": 16}, ("lr",), 20),
    "ppo masked": (
        {**AGENT, "n_envs": 2, "n_steps": 16, "epochs": 2, "batch": 24, "env": "MaskedIdentity-v0"}, ("lr",), 10,
    ),
    "ppo continuous": (
        {**AGENT, "n_envs": 2, "n_steps": 16, "epochs": 2, "batch": 16, "env": "Pendulum-v1", "clip_value": 0.2,
         "target_kl": 0.01, "wrappers": ["normalise-observations", "normalise-rewards"], "shared": True},
        ("lr",),
        20,
    ),
    "a2c": (
        {"steps": 1200, "n_envs": 4, "n_steps": 5, "updates": 5, "net": {"hidden_features": [8, 8]},
         "eval_episodes": 4},
        ("lr",),
        4,
    ),
    "recurrent-ppo": (
        {"steps": 256, "n_envs": 2, "n_steps": 8, "epochs": 2, "minibatches": 2, "memory_features": 8,
         "hidden_features": [8], "target_kl": 0.02, "eval_episodes": 4},
        ("lr",),
        5,
    ),
    "dqn": ({**OFF_POLICY, "dueling": True}, ("lr",), 10),
    "dqn prioritised": ({**OFF_POLICY, "prioritised": True, "double": True, "n_step": 3}, ("lr",), 10),
    "sac": ({**CONTINUOUS, "train_freq": 2}, ("lr",), 3),
    "td3": ({**CONTINUOUS, "n_envs": 2, "noise": "ou"}, ("lr",), 3),
    "classifier mlp": ({"net": {"kind": "mlp", **SMALL}, **LABELS}, ("lr",), 3),
    "classifier cnn": ({"net": {"kind": "cnn", **SMALL, "norm": "batch", "dropout": 0.2}, **LABELS}, ("lr",), 3),
    "classifier gru": ({"net": {"kind": "gru", **SMALL}, **LABELS}, ("lr",), 3),
    "classifier transformer": ({"net": {"kind": "transformer", **SMALL, "heads": 2}, **LABELS}, ("lr",), 3),
    "classifier regularised": (
        {"net": {"kind": "mlp", **SMALL}, "updates": 100, "batch": 8, "train_rows": 40, "accumulate": 2, "l1": 1e-3,
         "clip": 1.0, "warmup": 0.1, "optimiser": "nesterov", "ema_half_life": 100, "mixup": 0.4,
         "augment": ["flip", "crop", "noise"], "class_weights": "balanced"},
        ("lr",),
        3,
    ),
    "classifier series": (
        {"data": "italy-power", "net": {"kind": "cnn-1d", **SMALL}, "updates": 100, "batch": 8, "augment": ["noise"]},
        ("lr",),
        3,
    ),
    "language-model": (
        {**SEQUENCE, "data": RHYMES, "net": {**SMALL, "heads": 2, "dropout": 0.1}}, ("lr",), 3,
    ),
    "language-model lstm": (
        {**SEQUENCE, "data": RHYMES, "units": "bytes",
         "net": {"kind": "lstm-language", **SMALL, "depth": 1, "embedding_features": 4}},
        ("lr",), 3,
    ),
    "seq2seq": (
        {**SEQUENCE, **SHORT, "net": {"kind": "seq2seq", **SMALL, "depth": 1, "cell": "gru"}}, ("lr",), 3,
    ),
    "seq2seq transformer": (
        {**SEQUENCE, **SHORT, "net": {"kind": "transformer-seq2seq", **SMALL, "depth": 1, "heads": 2}}, ("lr",), 3,
    ),
    "reader": (
        {"data": "stories-2", "updates": 88, "batch": 4, "net": {**SMALL, "heads": 2},
         "exchange": [["kitchen", "office", "garden"]]},
        ("lr",), 3,
    ),
    "regressor": ({"net": {"kind": "mlp", **SMALL}, "updates": 100, "batch": 8, "objective": "huber"}, ("lr",), 3),
    "gan ring-8": ({"data": "ring-8", "images": 8000, "batch": 16, **PERCEPTRONS}, ("lr_g", "lr_d"), 2),
    "gan digits": (
        {"data": "digits", "images": 8000, "batch": 8, "samples": 100, **PERCEPTRONS, "augment": ["cutout"]},
        ("lr_g", "lr_d"),
        2,
    ),
    "gan conditional": (
        {"data": "digits", "images": 4000, "batch": 4, "samples": 100, "loss": "hinge", "penalty": "r1",
         "penalty_every": 4, "d_steps": 2, "conditional": True, **PERCEPTRONS},
        ("lr_g", "lr_d"),
        2,
    ),
    "video-gan": (
        {"images": 240, "batch": 2, "samples": 100, "content_features": 2, "motion_features": 2,
         "frame": {"kind": "mlp-generator", **SMALL}, "image_net": {"kind": "mlp", **SMALL},
         "video_net": {"kind": "mlp", **SMALL}},
        ("lr_g", "lr_d"),
        2,
    ),
    "vae ring-8": (
        {"images": 1920, "batch": 16, "samples": 200, "encoder": {**SMALL}, "decoder": {**SMALL}}, ("lr",), 2,
    ),
    "vae digits": (
        {"data": "digits", "images": 960, "batch": 8, "samples": 100, "latent_features": 4, "conditional": True,
         "encoder": {"kind": "cnn", **SMALL, "norm": "batch", "dropout": 0.2}, "decoder": {**SMALL}},
        ("lr",),
        2,
    ),
    "diffusion ring-8": (
        {"images": 1920, "batch": 16, "samples": 200, "steps": 4, "net": {**SMALL}}, ("lr",), 2,
    ),
    "diffusion digits": (
        {"data": "digits", "images": 480, "batch": 4, "samples": 100, "steps": 2, "conditional": True, "guidance": 2,
         "net": {"kind": "mlp-denoiser", **SMALL}},
        ("lr",),
        2,
    ),
    "text-mle": ({**TEXT, "updates": 55}, ("lr",), 4),
    "text-gan": (
        {**TEXT, "pretrain": 5, "pretrain_judge": 5, "rounds": 45, "judge_updates": 2, "rollouts": 2, "lam": 0.5,
         "judge_features": 4, "windows": [2, 3]},
        ("lr", "lr_g", "lr_d"), 3,
    ),
    "text-gumbel": (
        {**TEXT, "pretrain": 5, "rounds": 50, "judge_features": 4, "windows": [2, 3]}, ("lr", "lr_g", "lr_d"), 3,
    ),
}  # fmt: skip
COMPILED = ("classifier mlp", "gan ring-8")  # the others' compiling is left to the slow tests
SEEDS = (11, 5, 8)
SIX = (*SEEDS, 2, 7, 13)
# second cases of learners, and long: `make test-slow` runs them, `make test` one of each learner and the shorter ones
LONG = {"ppo continuous", "ppo masked", "seq2seq transformer", "language-model lstm", "reader lstm", "vae digits",
        "diffusion digits", "gan conditional"}  # fmt: skip
# of these `make test` asks the three questions that matter most: alone, resumed, NaN
THREE = LONG | {"seq2seq", "reader", "language-model", "video-gan", "text-gan", "text-gumbel", "classifier gru",
                "classifier transformer", "classifier regularised", "classifier series", "dqn prioritised"}  # fmt: skip


def cases(slow, *more):
    """Parameters of a test: all cases, those in `slow` for the slow tests."""
    return [pytest.param(name, *more, marks=[pytest.mark.slow] if name in slow else []) for name in sorted(TINY)]


LEARNERS = pytest.mark.parametrize("name", cases(LONG))
MOST = pytest.mark.parametrize("name", cases(THREE))


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path_factory, monkeypatch):
    """One thread, and compiled code in a folder of this test session."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def class_of(name):
    """The learner class of a case."""
    return learner_class(name.split()[0])


def start(name, seeds=SEEDS, mode="eager", dtype=torch.float64, **per_lane):
    """A started learner and its state; `per_lane` gives one value a lane."""
    learner = class_of(name)()
    config = TINY[name][0]
    rows = [{**config, **{field: values[k] for field, values in per_lane.items()}} for k in range(len(seeds))]
    configs = tuple(learner.Config(**row) for row in rows)
    return learner, learner.start(Lanes(configs, tuple(seeds), Execution(mode, dtype=dtype)))


def trained(name, seeds=SEEDS, chunks=None, **options):
    """(learner, state, metrics of the last chunk)."""
    learner, state = start(name, seeds, **options)
    for _ in range(chunks or TINY[name][2]):
        metrics = learner.advance(state)
    return learner, state, metrics


@functools.cache
def references(name):
    """What `trained` comes to after 0, 1, 2, ... chunks: an eager run of `SEEDS` that several tests compare with."""
    learner, state = start(name)
    found = [(copied(state), None)]
    for _ in range(max(TINY[name][2], 4)):
        metrics = learner.advance(state)
        found.append((copied(state), dict(metrics)))
    return found


def reference(name, chunks=None):
    """(state, metrics) of `references` after so many chunks: a copy."""
    return copied(references(name)[TINY[name][2] if chunks is None else chunks])


def copied(tree):
    """The tree with tensors of its own."""
    return pytree.tree_map_only(torch.Tensor, torch.clone, tree)


def assert_same(found, expected, atol=1e-9):
    """Two trees hold the same keys and the same numbers, within `atol`, and within `atol` times those beyond 1."""
    found, expected = by_path(found), by_path(expected)
    assert set(found) == set(expected)
    for path, b in expected.items():
        a = found[path]
        torch.testing.assert_close(a, b, rtol=atol, atol=atol, equal_nan=True, msg=lambda m, p=path: f"{p}: {m}")


@LEARNERS
def test_a_lane_equals_the_same_trial_alone(name):
    learner, state, metrics = trained(name, SIX)
    scores = learner.evaluate(state)
    for k in (0, 2, 5):
        alone, alone_state, alone_metrics = trained(name, (SIX[k],))
        assert_same(select(state, [k]), alone_state)
        assert_same({n: m[k : k + 1] for n, m in metrics.items()}, dict(alone_metrics))
        assert_same({n: m[k : k + 1] for n, m in scores.items()}, dict(alone.evaluate(alone_state)))


@MOST
def test_permuting_lanes_permutes_results(name):
    order = [2, 0, 1]
    state, _ = reference(name)
    _, permuted, _ = trained(name, [SEEDS[k] for k in order])
    assert_same(permuted, select(state, order))


@MOST
def test_training_changes_the_weights_and_is_deterministic(name):
    before, _ = reference(name, 0)
    after, _ = reference(name, 2)
    _, again, _ = trained(name, chunks=2)
    assert_same(after, again, atol=0)
    changed = [not torch.equal(a, b) for a, b in zip(leaves(before), leaves(after), strict=True)]
    assert all(changed), "every tensor of parameters gets a gradient"


@MOST
def test_a_resumed_run_equals_an_uninterrupted_one(name):
    first, state, _ = trained(name, chunks=2)
    first.checkpointed(state)
    saved = copied(state)
    second, _ = start(name)
    second.checkpointed(saved)
    second.advance(saved)
    assert_same(saved, reference(name, 3)[0], atol=0)


@pytest.mark.parametrize("name", [n for n in sorted(TINY) if "layers_every" in class_of(n).Config.model_fields])
def test_looking_at_layers_changes_nothing_and_tells_of_every_layer(name):
    expected, plain = reference(name, 1)
    learner = class_of(name)()
    config = learner.Config(**TINY[name][0], layers_every=1)
    state = learner.start(Lanes((config,) * len(SEEDS), SEEDS, Execution("eager", dtype=torch.float64)))
    seen = learner.advance(state)
    assert_same(state, expected, atol=0)
    layers = {n for n in seen if n not in plain}
    for statistic in ("grad_norm", "weight_norm", "update_ratio"):
        found = [n for n in layers if n.endswith(f"/{statistic}")]
        assert found
        assert all((seen[n] > 0).all() and seen[n].shape == (len(SEEDS),) for n in found)


@LEARNERS
def test_nan_stays_in_its_lane(name):
    expected, _ = reference(name, 3)
    learner, state = start(name)
    poison(state, lane=1)
    for _ in range(3):
        learner.advance(state)
    assert_same(select(state, [0, 2]), select(expected, [0, 2]))
    assert any(p[1].isnan().any() for p in leaves(state))


@MOST
def test_an_ended_lane_stays_and_changes_nothing_for_others(name):
    expected, _ = reference(name, 4)
    learner, state = start(name)
    learner.advance(state)
    poison(state, lane=1)
    state["alive"] = torch.tensor([True, False, True])
    frozen = [p[1].clone() for p in leaves(state)]
    for _ in range(3):
        learner.advance(state)
    for p, before in zip(leaves(state), frozen, strict=True):
        torch.testing.assert_close(p[1], before, rtol=0, atol=0, equal_nan=True)
    rest = select(state, [0, 2])
    del rest["alive"]
    wanted = select(expected, [0, 2])
    del wanted["alive"]
    assert_same(rest, wanted)


@MOST
def test_a_lane_with_learning_rate_0_does_not_move(name):
    config = class_of(name).Config(**TINY[name][0])
    rates = {lr: (getattr(config, lr), 0.0, getattr(config, lr)) for lr in TINY[name][1]}
    before, _ = reference(name, 0)
    _, after, _ = trained(name, chunks=3, **rates)
    for a, b in zip(leaves(before), leaves(after), strict=True):
        assert torch.equal(a[1], b[1])
        assert not torch.equal(a[0], b[0])


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *cases(THREE, "loop"),
        *(pytest.param(name, "compiled") for name in COMPILED),
        *(pytest.param(n, "compiled", marks=pytest.mark.slow) for n in sorted({*TINY} - {*COMPILED})),
    ],
)
def test_modes_agree(name, mode):
    if mode == "compiled" and not has_compiler():
        pytest.skip("no C++ compiler on this machine")
    expected, _ = reference(name, 3)
    _, found, _ = trained(name, chunks=3, mode=mode)
    reset_compiler()
    assert_same(found, expected, atol=1e-7)


@MOST
def test_results_have_the_promised_form(name):
    learner, state, metrics = trained(name, chunks=1)
    scores = learner.evaluate(state)
    assert learner.score_of(learner.lanes.config).name in scores
    assert int(state["progress"][0]) == learner.chunk
    assert state["progress"].dtype == torch.int64
    assert all(m.shape == (len(SEEDS),) for m in metrics.values())
    check_metric_names(metrics, learner.score_of(learner.lanes.config).name)
    assert all(m.shape[0] == len(SEEDS) and torch.isfinite(m).all() for m in scores.values())
    assert_same(dict(learner.evaluate(state)), dict(scores), atol=0)
    network = learner.network(state, 1)
    total = sum(p.numel() for p in network.parameters())
    assert total > 0
    assert all(p.device.type == "cpu" and torch.isfinite(p).all() for p in network.parameters())
    assert isinstance(learner.media(state, 0), dict)


@LEARNERS
def test_every_field_is_described(name):
    config = class_of(name).Config
    assert all(info.description for info in config.model_fields.values())
    assert config(**TINY[name][0]).budget % 1 == 0


def test_no_learner_knows_how_lanes_are_executed():
    root = Path(__file__).parents[2]
    files = [p for folder in ("agents", "generative", "supervised") for p in (root / folder).rglob("*.py")]
    assert any(p.name == "ppo.py" for p in files)
    forbidden = re.compile(r"\bvmap\b|torch\.compile|\.cuda\b|is_cuda|device ==|device\.type|\"cuda|\.mode\b(?!\()")
    found = [f"{p.relative_to(root)}: {m.group()}" for p in files for m in forbidden.finditer(p.read_text())]
    assert found == []


def by_path(tree):
    """The tensors of a tree by their path; the order of a dict's keys does not matter."""
    return {pytree.keystr(path): t for path, t in pytree.tree_flatten_with_path(tree)[0]}


def leaves(state):
    """All tensors of parameters, in a fixed order."""
    return [t for path, t in sorted(by_path(state).items()) if "param" in path]


def poison(state, lane):
    """NaN in a lane's parameters."""
    for p in leaves(state):
        p[lane] = np.nan
