"""One layer of LSTM or GRU by torch's own kernel, with padding that leaves the state as it is.

Legend: B sequences, T time steps, F input features, H features of the state, D directions (1 or 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_the_end", "gru_layer", "lstm_layer"]

Parts = tuple[Tensor, ...]
SHUT = 1e4  # what closes a gate whatever else comes in: its sigmoid is 0, that of its negative 1
OF_A_DIRECTION = 4  # tensors: W_ih, W_hh, b_ih, b_hh


def gru_layer(x: Tensor, start: Parts, weights: list[Tensor]) -> tuple[Tensor, Parts]:
    """A layer of GRU; arguments and result as of `lstm_layer`, the state (h,)."""
    outputs, h = torch.gru(x, start[0], weights, *_settings(weights))
    return outputs, (h,)


def lstm_layer(x: Tensor, start: Parts, weights: list[Tensor], mask: Tensor | None) -> tuple[Tensor, Parts]:
    """A layer of LSTM.

    torch's kernel knows no padding. Here padding closes the input gate and opens the forget gate, through a feature of
    its own, so that the cell keeps its bits; what the output gate still changes is put right afterwards.

    Args:
        x: [B, T, F].
        start: (h, c) before the first step, each [D, B, H].
        weights: W_ih [4 H, F], W_hh [4 H, H], b_ih, b_hh [4 H], of each direction.
        mask: bool [B, T], False at padding, which is at the end; None: none. With a mask the state starts with zeros.

    Returns:
        (outputs [B, T, H D], last (h, c)).
    """
    if mask is None:
        outputs, h, c = torch.lstm(x, start, weights, *_settings(weights))
        return outputs, (h, c)
    padded = ~mask.unsqueeze(-1)
    x = torch.cat([x.masked_fill(padded, 0.0), padded.to(x.dtype)], dim=-1)
    outputs, h, c = torch.lstm(x, start, _holding(weights), *_settings(weights))
    outputs, h = _held(outputs, h, mask)
    return outputs, (h, c)


def at_the_end(mask: Tensor) -> bool:
    """Whether all padding follows all that is real: bool [B, T]."""
    return not bool((mask[:, 1:] > mask[:, :-1]).any())


def _settings(weights: list[Tensor]) -> tuple[bool, int, float, bool, bool, bool]:
    """Biases, layers, dropout between them, whether there will be gradients, both directions, batch first."""
    return True, 1, 0.0, torch.is_grad_enabled(), len(weights) > OF_A_DIRECTION, True


def _holding(weights: list[Tensor]) -> list[Tensor]:
    """The weights with one more input feature, which holds the cell."""
    gates = weights[0].new_zeros(4, weights[1].shape[1], 1)  # of input, forgetting, candidate, output
    gates[0], gates[1] = -SHUT, SHUT
    column = gates.flatten(0, 1)
    return [torch.cat([w, column], 1) if n % OF_A_DIRECTION == 0 else w for n, w in enumerate(weights)]


def _held(outputs: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and last h with those of the last real step where padding follows.

    Backwards padding comes first: the cell is still zero there, and so is h = o tanh(0), as it should be.
    """
    width = h.shape[-1]
    forth, back = outputs.split([width, outputs.shape[-1] - width], dim=-1)
    last = (mask.sum(1) - 1).clamp(min=0)
    end = forth[torch.arange(len(forth)), last]
    forth = torch.where(mask.unsqueeze(-1), forth, end.unsqueeze(1))
    return torch.cat([forth, back], dim=-1), torch.cat([end.unsqueeze(0), h[1:]])
