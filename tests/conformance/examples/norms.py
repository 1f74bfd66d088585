"""Examples of the normalisation layers."""

import torch

from tests.conformance.examples import Example

EXAMPLES = [
    Example({"kind": "batch-norm", "in_features": 2}, inputs=lambda: (torch.randn(3, 2, 3),)),
    Example(
        {"kind": "conditional-batch-norm", "in_features": 2, "classes": 2},
        inputs=lambda: (torch.randn(3, 2, 3), torch.tensor([0, 1, 0])),
    ),
    Example({"kind": "layer-norm", "in_features": 4}, inputs=lambda: (torch.randn(3, 4),)),
    Example({"kind": "group-norm", "in_features": 4, "groups": 2}, inputs=lambda: (torch.randn(3, 4, 3),)),
    Example({"kind": "rms-norm", "in_features": 4}, inputs=lambda: (torch.randn(3, 4),)),
    Example({"kind": "spectral-linear", "in_features": 4, "out_features": 3}, inputs=lambda: (torch.randn(3, 4),)),
    Example({"kind": "spectral-conv", "in_features": 2, "out_features": 3}, inputs=lambda: (torch.randn(3, 2, 4, 4),)),
]
