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
    head("linear", init="orthogonal"),
]
