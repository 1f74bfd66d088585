"""A gated recurrent unit as a cell and a scan: it runs under vmap and compiles whole; nn.GRU does neither."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GRU", "GRUCell"]


class GRUCell(nn.Module):
    """One step of a GRU (Cho et al. 2014, in torch's form: the reset gate acts after the product).

    Weights have torch's names and layout: rows are reset gate, update gate, candidate.

    Args:
        in_features: width of the input.
        hidden_features: width of the state.
    """

    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()

        def weight(*shape: int) -> nn.Parameter:
            bound = 1 / math.sqrt(hidden_features)
            return nn.Parameter(torch.empty(3 * hidden_features, *shape).uniform_(-bound, bound))

        self.weight_ih, self.weight_hh = weight(in_features), weight(hidden_features)
        self.bias_ih, self.bias_hh = weight(), weight()
        self.hidden_features = hidden_features

    def project(self, x: Tensor) -> Tensor:
        """The input's share of the gates, all times at once: [..., in_features] to [..., 3 * features]."""
        return functional.linear(x, self.weight_ih, self.bias_ih)

    def forward(self, projected: Tensor, h: Tensor) -> Tensor:
        """The next state [B, hidden_features] from `project`'s result and the state before."""
        in_reset, in_update, in_new = projected.chunk(3, dim=-1)
        h_reset, h_update, h_new = functional.linear(h, self.weight_hh, self.bias_hh).chunk(3, dim=-1)
        update = torch.sigmoid(in_update + h_update)
        new = torch.tanh(in_new + torch.sigmoid(in_reset + h_reset) * h_new)
        return new + update * (h - new)


class GRU(nn.Module):
    """Layers of GRU cells over a sequence.

    Args:
        in_features: width of the input.
        hidden_features: width of every layer's state.
        depth: how many layers.
    """

    def __init__(self, in_features: int, hidden_features: int, depth: int = 1) -> None:
        super().__init__()
        widths = [in_features] + [hidden_features] * (depth - 1)
        self.cells = nn.ModuleList(GRUCell(width, hidden_features) for width in widths)
        self.out_features = hidden_features

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs of the last layer and the last states of all layers.

        Args:
            x: [B, T, in_features].
            h: first states [depth, B, hidden_features]; None is zeros.

        Returns:
            ([B, T, hidden_features], [depth, B, hidden_features]).
        """
        last = []
        for layer, cell in enumerate(cast(list[GRUCell], self.cells)):
            state = x.new_zeros(x.shape[0], self.out_features) if h is None else h[layer]
            outputs = []
            for projected in cell.project(x).unbind(1):
                state = cell(projected, state)
                outputs.append(state)
            x = torch.stack(outputs, dim=1)
            last.append(state)
        return x, torch.stack(last)
