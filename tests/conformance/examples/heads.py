"""Examples of the heads."""

import torch

from tests.conformance.examples import Example


def features():
    """[3, 4]."""
    return (torch.randn(3, 4),)


def head(kind, out_features=2, tag="", **fields):
    """A head on four features."""
    return Example({"kind": kind, "in_features": 4, "out_features": out_features, **fields}, inputs=features, tag=tag)


EXAMPLES = [
    Example({"kind": "actor-critic", "encoder": {"kind": "mlp", "hidden_features": 4}}, (3,), 2),
    Example(
        {
            "kind": "actor-critic",
            "encoder": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"},
            "shared": True,
            "policy": {"kind": "gaussian", "log_std": -1.0},
            "value_init": "torch",
        },
        (3,),
        2,
        tag="shared",
    ),
    Example({"kind": "normalised", "net": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"}}, (3,), 2),
    Example(
        {"kind": "normalised", "net": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"}, "clip": 1.0},
        (3,),
        2,
        smooth=False,
        tag="clipped",
    ),
    Example({"kind": "ensemble", "encoder": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"}}, (3,), 2),
    Example(
        {
            "kind": "beside",
            "encoder": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"},
            "beside_features": 2,
            "hidden_features": 3,
        },
        (3,),
        2,
        inputs=lambda: (torch.randn(3, 3), torch.randn(3, 2)),
        smooth=False,
    ),
    head("tanh"),
    head("linear", init="orthogonal"),
    head("categorical"),
    head("multi-categorical", (2, 3)),
    head("bernoulli"),
    head("gaussian", tag="own spread"),
    head("gaussian", tag="spread of the state", state_dependent=True),
    head("squashed-gaussian"),
    head("dueling", hidden_features=3, activation="tanh"),
    head("classification"),
    head("regression", variance=True),
    head("token", soft_cap=5.0),
]
