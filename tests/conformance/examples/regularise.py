"""Examples of dropout and its relatives."""

import torch

from tests.conformance.examples import Example

EXAMPLES = [
    Example({"kind": "dropout", "rate": 0.3}, inputs=lambda: (torch.randn(3, 5),)),
    Example({"kind": "drop-path", "rate": 0.3}, inputs=lambda: (torch.randn(3, 2, 2),)),
]
