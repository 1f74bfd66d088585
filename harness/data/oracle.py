"""The oracle's language: texts of one length from an LSTM with standard normal weights (Yu et al. 2017, SeqGAN).

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

__all__ = ["SETS", "network"]

FEATURES = 32  # of a token's vector and of the state
ROWS = {"train": 10_000, "validation": 2_000, "test": 2_000}
SEED = 0
CHUNK = 1_000_000  # logits at a time: few enough to stay in the cache
DEFINITION = (
    "{vocabulary} tokens, texts of {length} from an LSTM (embedding 32, hidden 32; all weights and its biases N(0, 1),"
    " the second bias 0) that starts with token 0; Philox seed 0, purposes oracle/weights, oracle/draws; version 1"
)


def network(vocabulary: int) -> nn.Module:
    """The oracle, an ordinary "lstm-language" network."""
    import torch

    from nets.registry import build

    fields = {"embedding_features": FEATURES, "hidden_features": FEATURES}
    with torch.device("meta"):
        net = build({"kind": "lstm-language", **fields}, (1,), vocabulary)
    rng = randomness.generator(SEED, "oracle/weights")
    weights = {name: torch.tensor(rng.standard_normal(p.shape, "float32")) for name, p in net.state_dict().items()}
    weights["layers.bias_hh_l0"].zero_()  # torch's LSTM has two biases where one does
    net.load_state_dict(weights, assign=True)
    return net.requires_grad_(False)


def _read(vocabulary: int, length: int) -> dict[str, Rows]:
    """The splits: tokens int64 [N, T]; there are no labels, y is 0."""
    rng = randomness.generator(SEED, "oracle/draws")
    net, count, chunk = network(vocabulary), sum(ROWS.values()), max(CHUNK // vocabulary, 1)
    u = rng.random((count, length), "float32")
    tokens = np.concatenate([_written(net, u[first : first + chunk]) for first in range(0, count, chunk)])
    return cut(tokens, np.zeros(count, dtype=np.int64), ROWS)


def _written(net: nn.Module, u: np.ndarray) -> np.ndarray:
    """Texts int64 [N, T] from uniform numbers [N, T].

    As `nets.decoding.sample`, but by bisection, which vmap does not know: a third of the time with 5,000 tokens.
    """
    import torch

    token, state = torch.zeros(len(u), dtype=torch.int64), None
    tokens = []
    for numbers in torch.as_tensor(u).unbind(1):
        logits, state = net(token.unsqueeze(1), state)
        below = torch.softmax(logits.squeeze(1), -1).cumsum_(-1)
        token = torch.searchsorted(below, numbers.unsqueeze(1) * below[:, -1:], right=True).squeeze(1)
        token = token.clamp(max=below.shape[1] - 1)  # numbers * total may round up to the total
        tokens.append(token)
    return torch.stack(tokens, 1).numpy()


def _set(name: str, vocabulary: int, length: int) -> DataSet:
    definition = DEFINITION.format(vocabulary=vocabulary, length=length)
    return DataSet(
        Card(
            name=name,
            kind="tokens",
            source=definition,
            licence="none needed: computed",
            sha256=digest(definition),
            shape=(length,),
            classes=vocabulary,
            rows=ROWS,
        ),
        read=partial(_read, vocabulary, length),
    )


SETS = {
    name: _set(name, vocabulary, length)
    for name, vocabulary, length in (("oracle-tiny", 20, 6), ("oracle-500", 500, 20), ("oracle-5000", 5_000, 20))
}
