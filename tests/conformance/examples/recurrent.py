"""Examples of the recurrent networks and of sequence to sequence."""

import torch

from tests.conformance.examples import Example


def _tokens() -> tuple[torch.Tensor]:
    return (torch.randint(7, (3, 5)),)


def _queries_and_memory() -> tuple[torch.Tensor, ...]:
    return torch.randn(3, 2, 3), torch.randn(3, 5, 4), torch.arange(5) < torch.tensor([[5], [3], [1]])


def _source_and_target() -> tuple[torch.Tensor, ...]:
    padded = torch.arange(5) >= torch.tensor([[5], [3], [1]])
    return torch.randint(1, 7, (3, 5)).masked_fill(padded, 0), torch.randint(6, (3, 4))


POLICY = "multi-categorical"
REMEMBERS = {"kind": "recurrent-actor-critic", "memory_features": 4, "hidden_features": (4,), "policy": POLICY}
EXAMPLES = [
    Example({"kind": "rnn", "hidden_features": 4}, (5, 3)),
    Example({"kind": "lstm", "hidden_features": 4, "vocabulary": 7}, (5,), inputs=_tokens),
    Example({"kind": "gru", "hidden_features": 4, "bidirectional": True, "pool": "mean"}, (1, 5, 3)),
    Example({"kind": "gru", "hidden_features": 3, "bidirectional": True, "pool": "all"}, (5, 1)),
    Example(
        {"kind": "recurrent", "in_features": 3, "hidden_features": 4, "depth": 2, "dropout": 0.2},
        inputs=lambda: (torch.randn(3, 5, 3),),
    ),
    Example(
        {"kind": "additive-attention", "in_features": 3, "memory_features": 4, "hidden_features": 5},
        inputs=_queries_and_memory,
    ),
    Example({"kind": "dot-attention", "in_features": 3, "memory_features": 4}, inputs=_queries_and_memory),
    Example(
        {**REMEMBERS, "cell": "gru", "depth": 2, "shared": True},
        (3,),
        (2, 3),
        tag="one step",
        unused={f"sides.both.cells.weight_hh_l{i}": "the first step has nothing to remember" for i in range(2)},
    ),
    Example(
        {**REMEMBERS, "encoder": {"kind": "mlp", "hidden_features": 4, "activation": "tanh"}},
        (3,),
        (2, 3),
        inputs=lambda: (torch.randn(2, 4, 3),),
        tag="a sequence",
    ),
    Example({"kind": "lstm-language", "embedding_features": 3, "hidden_features": 4}, (5,), 7, inputs=_tokens),
    Example(
        {"kind": "text-cnn", "vocabulary": 7, "windows": (2, 3), "hidden_features": 4, "dropout": 0.2},
        (5,),
        inputs=_tokens,
        smooth=False,
    ),
    Example({"kind": "seq2seq", "vocabulary": 7, "hidden_features": 4}, (5,), 6, inputs=_source_and_target),
]
