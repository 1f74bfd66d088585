"""Examples of perceptrons, embeddings, convolutions and the encoders made of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.conformance.examples import Example


def random(*shape: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(shape),)


TOKENS = torch.tensor([[0, 1, 2], [3, 4, 1]])
HALVES = {"in_features": 2, "out_features": 4, "stride": 2}
NARROW = {"in_features": 4, "out_features": 4, "expansion": 2, "groups": 2}
DOUBLES = {"in_features": 2, "out_features": 3, "activation": "silu"}

EXAMPLES = [
    Example({"kind": "mlp", "hidden_features": 5, "depth": 1, "activation": "tanh", "dropout": 0.2}, (2, 3), 2),
    Example({"kind": "residual-mlp", "hidden_features": 4, "depth": 1, "expansion": 2, "activation": "silu"}, (3,)),
    Example({"kind": "fourier-mlp", "hidden_features": 8, "depth": 1, "waves": 4}, (3,)),
    Example({"kind": "embedding", "vocabulary": 5, "out_features": 3}, inputs=lambda: (TOKENS,)),
    Example({"kind": "pool"}, inputs=random(3, 2, 6, 6), smooth=False),
    Example({"kind": "global-pool"}, inputs=random(3, 2, 6, 6)),
    Example({"kind": "blur-pool", "in_features": 2}, inputs=random(3, 2, 6, 6)),
    Example({"kind": "blur-upsample", "in_features": 2}, inputs=random(3, 2, 4, 4)),
    Example({"kind": "resize-conv", **DOUBLES}, inputs=random(3, 2, 4, 4)),
    Example({"kind": "transposed-conv", **DOUBLES}, inputs=random(3, 2, 4, 4)),
    Example(
        {"kind": "conv-block", "in_features": 2, "out_features": 4, "groups": 2, "pool": "blur", "activation": "elu"},
        inputs=random(3, 2, 6, 6),
    ),
    Example({"kind": "basic-block", **HALVES, "activation": "silu"}, inputs=random(3, 2, 6, 6)),
    Example({"kind": "bottleneck", **NARROW, "activation": "silu"}, inputs=random(3, 4, 6, 6)),
    Example({"kind": "conv3d-block", **HALVES, "activation": "silu"}, inputs=random(3, 2, 3, 4, 4)),
    Example({"kind": "cnn", "hidden_features": 2, "depth": 2, "norm": "layer", "activation": "gelu"}, (6, 6), 2),
    Example({"kind": "cnn-1d", "hidden_features": 3, "depth": 2, "kernel_size": 3, "activation": "gelu"}, (7, 2), 2),
    Example({"kind": "lenet"}, (12, 12)),
    Example({"kind": "resnet", "hidden_features": [8], "depth": 1, "norm": "group", "activation": "silu"}, (6, 6), 2),
    Example({"kind": "nature-cnn", "hidden_features": 8, "channels": [4, 4, 4]}, (1, 36, 36), smooth=False),
    Example({"kind": "impala", "hidden_features": 8, "channels": [4], "depth": 1}, (2, 8, 8), smooth=False),
    Example({"kind": "grid-cnn", "hidden_features": 8, "channels": 4}, (3, 10, 10), smooth=False),
    Example({"kind": "video-cnn", "hidden_features": 2, "depth": 1, "activation": "silu"}, (3, 1, 5, 5)),
    Example(
        {
            "kind": "video-cnn",
            "hidden_features": 2,
            "depth": 2,
            "activation": "silu",
            "norm": "none",
            "first_stride": 2,
            "pool": "none",
        },
        (3, 1, 5, 5),
        tag="strided",
    ),
]
