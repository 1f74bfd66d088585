"""Examples of attention and transformers."""

import torch

from tests.conformance.examples import Example

TOKENS = torch.tensor([[1, 2, 3, 4, 0], [2, 2, 1, 0, 0], [4, 3, 2, 1, 3]])  # 0 is padding where a block says so
SMALL = {"hidden_features": 4, "heads": 2, "depth": 1, "expansion": 2}


def _story():
    """Two sentences of three words; the last sentence of one story is padding."""
    return (torch.tensor([[1, 2, 3, 4, 5, 1], [2, 3, 0, 4, 1, 5], [5, 4, 1, 2, 2, 3]]),)


EXAMPLES = [
    Example({"kind": "attention", "in_features": 4, "heads": 2}, inputs=lambda: (torch.randn(3, 5, 4),)),
    Example(
        {"kind": "cross-attention", "in_features": 4, "memory_features": 3, "heads": 2},
        inputs=lambda: (torch.randn(3, 5, 4), torch.randn(3, 4, 3)),
    ),
    Example(
        {
            "kind": "transformer-block",
            "in_features": 4,
            "hidden_features": 6,
            "heads": 2,
            "causal": True,
            "norm_first": False,
            "rotary": True,
            "dropout": 0.2,
            "drop_path": 0.2,
        },
        inputs=lambda: (torch.randn(3, 5, 4),),
    ),
    Example({"kind": "transformer", **SMALL}, (5, 3)),
    Example(
        {"kind": "transformer", "vocabulary": 5, "padding": True, "norm": "rms", "pool": "last", **SMALL},
        (5,),
        inputs=lambda: (TOKENS,),
        tag="tokens",
    ),
    Example({"kind": "vit", "patch": 4, **SMALL, "hidden_features": 8}, (1, 8, 8)),
    Example({"kind": "gpt", "dropout": 0.1, **SMALL}, (5,), 5, inputs=lambda: (TOKENS,)),
    Example({"kind": "story-transformer", "vocabulary": 6, "sentence": 3, **SMALL}, (6,), 2, inputs=_story),
    Example(
        {"kind": "transformer-seq2seq", **SMALL},
        (5,),
        6,
        inputs=lambda: (TOKENS, TOKENS[:, :4].flip(0)),
    ),
]
