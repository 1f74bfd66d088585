"""Examples of perceptrons, embeddings, convolutions and the encoders made of them."""

import torch

from tests.conformance.examples import Example


def _image(channels: int = 2, side: int = 6):
    return lambda: (torch.randn(3, channels, side, side),)


EXAMPLES = [
    Example(
        {"kind": "mlp", "hidden_features": [5, 4], "activation": "tanh", "norm": "layer", "dropout": 0.2},
        (2, 3),
        2,
    ),
    Example({"kind": "residual-mlp", "hidden_features": 4, "depth": 1, "activation": "silu"}, (3,)),
    Example(
        {"kind": "embedding", "vocabulary": 5, "out_features": 3},
        inputs=lambda: (torch.arange(6).reshape(2, 3) % 5,),
    ),
    Example({"kind": "pool", "how": "max"}, inputs=_image(), smooth=False),
    Example({"kind": "pool", "how": "average"}, inputs=_image(), tag="average"),
    Example({"kind": "global-pool"}, inputs=_image()),
    Example({"kind": "blur-pool", "in_features": 2}, inputs=_image()),
    Example({"kind": "blur-upsample", "in_features": 2}, inputs=_image(side=4)),
    Example(
        {"kind": "resize-conv", "in_features": 2, "out_features": 3, "activation": "silu"},
        inputs=_image(side=4),
    ),
    Example(
        {"kind": "transposed-conv", "in_features": 2, "out_features": 3, "activation": "silu"},
        inputs=_image(side=4),
    ),
    Example(
        {
            "kind": "conv-block",
            "in_features": 2,
            "out_features": 4,
            "groups": 2,
            "pool": "blur",
            "activation": "elu",
        },
        inputs=_image(),
    ),
    Example(
        {"kind": "basic-block", "in_features": 2, "out_features": 4, "stride": 2, "activation": "silu"},
        inputs=_image(),
    ),
    Example(
        {
            "kind": "bottleneck",
            "in_features": 4,
            "out_features": 4,
            "expansion": 2,
            "groups": 2,
            "activation": "silu",
        },
        inputs=_image(4),
    ),
    Example(
        {"kind": "conv3d-block", "in_features": 2, "out_features": 3, "activation": "silu"},
        inputs=lambda: (torch.randn(3, 2, 3, 4, 4),),
    ),
    Example(
        {"kind": "cnn", "hidden_features": 2, "depth": 2, "norm": "layer", "activation": "gelu"}, (6, 6), 2
    ),
    Example({"kind": "lenet"}, (12, 12)),
    Example(
        {"kind": "resnet", "hidden_features": [4, 8], "depth": 1, "norm": "group", "activation": "silu"},
        (1, 6, 6),
        2,
    ),
    Example({"kind": "nature-cnn", "hidden_features": 8, "channels": [4, 4, 4]}, (1, 36, 36), smooth=False),
    Example(
        {"kind": "impala", "hidden_features": 8, "channels": [4, 4], "depth": 1}, (2, 8, 8), smooth=False
    ),
    Example({"kind": "grid-cnn", "hidden_features": 8, "channels": 4}, (3, 10, 10), smooth=False),
    Example({"kind": "video-cnn", "hidden_features": 2, "depth": 2, "activation": "silu"}, (3, 1, 6, 6)),
]
