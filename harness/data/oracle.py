"""The oracle's language: texts of 20 tokens from an LSTM with standard normal weights (Yu et al. 2017, SeqGAN).

Nobody needs to judge such a text: the oracle itself knows how likely it is. The weights and the draws are Philox
numbers of a fixed seed (harness.randomness), so every machine has the same oracle. torch is imported where it is
needed: cards are made without it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from harness import randomness
from harness.data.cards import Card, DataSet, Rows, cut, digest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LENGTH", "SETS", "network"]

LENGTH = 20
FEATURES = 32  # of a token's vector and of the state
ROWS = {"train": 10_000, "validation": 2_000, "test": 2_000}
SEED = 0
CHUNK = 200  # rows drawn together: few enough to stay in the cache
DEFINITION = (
    "{vocabulary} tokens, texts of 20 from an LSTM (embedding 32, hidden 32; all weights and its biases N(0, 1), the"
    " second bias 0) that starts with token 0; Philox seed 0, purposes oracle/weights, oracle/draws; version 1"
)


def network(vocabulary: int) -> nn.Module:
    """The oracle, an ordinary "lstm-language" network."""
    import torch

    from nets.registry import build

    fields = {"embedding_features": FEATURES, "hidden_features": FEATURES}
    with torch.device("meta"):
        net = build({"kind": "lstm-language", **fields}, (LENGTH,), vocabulary)
    rng = randomness.generator(SEED, "oracle/weights")
    weights = {name: torch.tensor(rng.standard_normal(p.shape, "float32")) for name, p in net.state_dict().items()}
    weights["layers.bias_hh_l0"].zero_()  # torch's LSTM has two biases where one does
    net.load_state_dict(weights, assign=True)
    return net.requires_grad_(False)


def _read(vocabulary: int) -> dict[str, Rows]:
    """The splits: tokens int64 [N, 20]; there are no labels, y is 0."""
    import torch

    from nets.decoding import sample

    net = network(vocabulary)

    def step(token: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        logits, state = net(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    rng = randomness.generator(SEED, "oracle/draws")
    start = torch.zeros(CHUNK, dtype=torch.int64)
    chunks = [
        sample(step, None, start, LENGTH, torch.tensor(rng.random((CHUNK, LENGTH)))).numpy()
        for _ in range(sum(ROWS.values()) // CHUNK)
    ]
    tokens = np.concatenate(chunks)
    return cut(tokens, np.zeros(len(tokens), dtype=np.int64), ROWS)


def _set(vocabulary: int) -> DataSet:
    definition = DEFINITION.format(vocabulary=vocabulary)
    return DataSet(
        Card(
            name=f"oracle-{vocabulary}",
            kind="tokens",
            source=definition,
            licence="none needed: computed",
            sha256=digest(definition),
            shape=(LENGTH,),
            classes=vocabulary,
            rows=ROWS,
        ),
        read=partial(_read, vocabulary),
    )


SETS = {f"oracle-{vocabulary}": _set(vocabulary) for vocabulary in (500, 5_000)}
