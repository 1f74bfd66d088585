"""Examples of generators, denoisers, discriminators' encoders and the projection head."""

import torch

from tests.conformance.examples import Example

LABELS = torch.tensor([0, 1, 0])


def noise():
    return (torch.randn(3, 2),)


def noise_and_labels():
    return torch.randn(3, 2), LABELS


def noisy(*shape):
    """Noisy rows, the noise's levels and labels, of which 2 stands for "not known"."""
    return lambda: (torch.randn(3, *shape), torch.randn(3), torch.tensor([0, 1, 2]))


def silent(*blocks: int) -> dict[str, str]:
    """What gets no gradient at the start in R3GAN's residual blocks, by their places in `layers`."""
    names = [f"layers.{b}.layers.{i}.{name}" for b in blocks for i in (0, 2) for name in ("weight", "bias")]
    return dict.fromkeys(names, "the block's last convolution is 0 at the start (Fix-up)")


SMALL = {"hidden_features": 4}
R3 = {"hidden_features": 2, "depth": 1, "group_features": 2}
FRAME = {"kind": "mlp-generator", "depth": 1, "activation": "silu", **SMALL}
EXAMPLES = [
    Example(
        {"kind": "mlp-generator", "depth": 1, "activation": "silu", "classes": 2, **SMALL},
        (2,),
        (2, 2),
        noise_and_labels,
    ),
    Example({"kind": "dcgan-generator", **SMALL}, (2,), (1, 8, 8), noise, smooth=False),
    Example({"kind": "dcgan", **SMALL}, (16, 16), smooth=False),
    Example({"kind": "sngan-generator", "classes": 2, **SMALL}, (2,), (8, 8), noise_and_labels, smooth=False),
    Example({"kind": "sngan", "depth": 1, **SMALL}, (1, 8, 8), smooth=False),
    Example(
        {"kind": "mocogan-generator", "motion_features": 2, "noise_features": 1, "frame": FRAME},
        (6,),
        (3, 1, 2, 2),
        lambda: (torch.randn(3, 6),),
    ),
    Example(
        {"kind": "wave-generator", "depth": 1, "activation": "silu", "shortest": 3.0, "classes": 2, **SMALL},
        (2,),
        (1, 4, 4),
        noise_and_labels,
    ),
    Example(
        {"kind": "wave-generator", "depth": 1, "activation": "silu", "place_features": 1, **SMALL},
        (2,),
        (2, 4, 3),
        noise,
        tag="place",
    ),
    Example({"kind": "stacked-cnn", **SMALL}, (2, 1, 8, 8), smooth=False),
    Example({"kind": "r3gan-generator", **R3}, (2,), (1, 8, 8), noise, smooth=False, unused=silent(0, 2)),
    Example({"kind": "r3gan", **R3}, (8, 8), smooth=False, unused=silent(1, 3)),
    Example({"kind": "unet", "heads": 2, "dropout": 0.2, "classes": 2, **SMALL}, (1, 4, 4), None, noisy(1, 4, 4)),
    Example({"kind": "mlp-denoiser", "depth": 1, "classes": 2, **SMALL}, (2,), None, noisy(2)),
    Example(
        {"kind": "projection", "in_features": 4, "out_features": 1, "classes": 2},
        inputs=lambda: (torch.randn(3, 4), LABELS),
    ),
]
