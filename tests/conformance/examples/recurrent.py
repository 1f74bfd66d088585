"""Examples of the recurrent networks."""

import torch

from tests.conformance.examples import Example


def _tokens() -> tuple[torch.Tensor]:
    return (torch.randint(7, (3, 5)),)


EXAMPLES = [
    Example({"kind": "rnn", "hidden_features": 4}, (5, 3)),
    Example({"kind": "lstm", "hidden_features": 4, "vocabulary": 7}, (5,), inputs=_tokens),
    Example({"kind": "gru", "hidden_features": 4, "bidirectional": True, "pool": "mean"}, (1, 5, 3)),
    Example(
        {"kind": "recurrent", "in_features": 3, "hidden_features": 4, "depth": 2, "dropout": 0.2},
        inputs=lambda: (torch.randn(3, 5, 3),),
    ),
]
