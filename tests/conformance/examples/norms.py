"""Examples of the normalisation layers."""

import torch

from tests.conformance.examples import Example

EXAMPLES = [
    Example({"kind": "batch-norm", "in_features": 2}, inputs=lambda: (torch.randn(3, 2, 3),)),
    Example({"kind": "layer-norm", "in_features": 4}, inputs=lambda: (torch.randn(3, 4),)),
    Example({"kind": "group-norm", "in_features": 4, "groups": 2}, inputs=lambda: (torch.randn(3, 4, 3),)),
    Example({"kind": "rms-norm", "in_features": 4}, inputs=lambda: (torch.randn(3, 4),)),
]
