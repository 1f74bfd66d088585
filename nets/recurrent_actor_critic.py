"""An agent's two sides with a memory: what to do, and what it is worth, after all that was seen of an episode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nets.mlp import Init
from nets.recurrent import Cell, Recurrent, State
from nets.registry import build, register

__all__ = ["Memory", "RecurrentActorCritic", "memory_shapes"]

Memory = Mapping[str, Tensor]  # name -> [B, depth, memory_features], see `memory_shapes`


def memory_shapes(cell: Cell, depth: int, memory_features: int, shared: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of one sequence's memory by name: "actor" and "critic" (or "both"), and with an LSTM their cells' too."""
    sides = ["both"] if shared else ["actor", "critic"]
    names = [name for side in sides for name in ((side, f"{side}_cell") if cell == "lstm" else (side,))]
    return dict.fromkeys(names, (depth, memory_features))


class Side(nn.Module):
    """An encoder and a recurrent network that takes its features step by step.

    Args:
        in_shape: of one observation.
        encoder: an encoder's configuration; None: the observation itself, flattened.
        cell: see `Recurrent`.
        memory_features: width of the state.
        depth: layers of cells.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        encoder: Mapping[str, Any] | None,
        cell: Cell,
        memory_features: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.encoder = nn.Flatten() if encoder is None else build(encoder, in_shape)
        width: Any = math.prod(in_shape) if encoder is None else self.encoder.out_features
        self.cells = Recurrent(width, memory_features, cell, depth)

    def forward(
        self, obs: Tensor, state: tuple[Tensor, ...] | None, reset: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Observations [B, T, *in_shape] to (features [B, T, H], state after them, each part [B, depth, H])."""
        seen = self.encoder(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])
        before = None if state is None else [part.transpose(0, 1) for part in state]
        features, after = self.cells(seen, before if before is None else _as_torch(before), reset)
        parts = (after,) if isinstance(after, Tensor) else after
        return features, tuple(part.transpose(0, 1) for part in parts)


def _as_torch(parts: list[Tensor]) -> State:
    """h alone, or (h, c) of an LSTM."""
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


@register("recurrent-actor-critic", role="model")
class RecurrentActorCritic(nn.Module):
    """A policy and a value function that remember an episode: an encoder, recurrent cells, hidden layers and a head.

    Args:
        in_shape: of one observation.
        out_features: actions, or whatever the policy's head counts.
        encoder: configuration of an encoder before the cells; None: the observation itself, flattened.
        cell: "lstm", "gru" or "rnn".
        memory_features: width of the cells' state.
        depth: layers of cells.
        hidden_features: widths of the hidden layers between cells and heads; empty: none.
        activation: between those layers, a name in `nets.activations`.
        init: of those layers and of the value's head, see `nets.mlp.init_linear`.
        policy: the kind of the policy's head, or {"kind": ..., and its fields}.
        shared: whether policy and value share the encoder and the cells.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: Any,
        encoder: Mapping[str, Any] | None = None,
        cell: Cell = "lstm",
        memory_features: int = 64,
        depth: int = 1,
        hidden_features: tuple[int, ...] = (64,),
        activation: str = "tanh",
        init: Init = "orthogonal",
        policy: str | Mapping[str, Any] = "categorical",
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.axes = len(in_shape)
        self.memory = memory_shapes(cell, depth, memory_features, shared)
        sides = ("both",) if shared else ("actor", "critic")
        self.sides = nn.ModuleDict({s: Side(in_shape, encoder, cell, memory_features, depth) for s in sides})
        fields = {"kind": policy} if isinstance(policy, str) else dict(policy)
        layers = {"kind": "mlp", "hidden_features": hidden_features, "activation": activation, "init": init}
        heads = {**fields, "out_features": out_features}, {"kind": "linear", "out_features": 1, "init": init}
        self.policy, self.value = (
            build(layers, memory_features, head) if hidden_features else build({**head, "in_features": memory_features})
            for head in heads
        )

    def forward(
        self, obs: Tensor, memory: Memory | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What to do and what it is worth at every step.

        Args:
            obs: one step [B, *in_shape], or a sequence of them [B, T, *in_shape].
            memory: before the first step, by name as in `memory_shapes`; None: nothing is remembered yet.
            reset: of a sequence, bool [B, T]: the memory is emptied before a step where True.

        Returns:
            (what the policy's distribution takes [B, (T,) ...], values [B, (T,)], memory after the last step).
        """
        single = obs.dim() == self.axes + 1
        obs = obs.unsqueeze(1) if single else obs
        features: list[Tensor] = []
        after: dict[str, Tensor] = {}
        for name, side in self.sides.items():
            names = [n for n in self.memory if n.startswith(name)]
            seen, state = side(obs, None if memory is None else tuple(memory[n] for n in names), reset)
            features.append(seen.squeeze(1) if single else seen)
            after.update(zip(names, state, strict=True))
        return self.policy(features[0]), self.value(features[-1]).squeeze(-1), after
