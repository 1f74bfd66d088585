"""What agents do and see, as data: action spaces, their noise and distributions, observations as networks take them.

Actions are flat tensors. Discrete: int64 [...], counted from 0. Multi-discrete: int64 [..., D]. Multi-binary: 0 or 1,
floating-point [..., D]. Box: floating-point [..., D].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from harness.randomness import Kind
from nets.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical

__all__ = ["ActionSpace", "EnvSpec", "box", "discrete", "multi_binary", "multi_discrete", "see"]

Fit = Literal["clip", "scale"]


@dataclass(frozen=True)
class ActionSpace:
    """An action space.

    Attributes:
        kind: as Gymnasium's Discrete, MultiDiscrete, MultiBinary or Box.
        counts: actions of every choice: (A,) for discrete, one number a choice for multi-discrete, 2 for every bit of
            multi-binary; empty for box.
        low: lowest value of every component of a box, flat; may be -inf.
        high: highest value.
    """

    kind: Literal["discrete", "multi-discrete", "multi-binary", "box"]
    counts: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action: () or (D,)."""
        return () if self.kind == "discrete" else (len(self.counts or self.low),)

    @property
    def bounded(self) -> bool:
        """Whether every component of a box has finite bounds."""
        return all(map(math.isfinite, self.low + self.high))

    @property
    def mask_width(self) -> int:
        """Entries of a mask of allowed actions: one for each action of each choice; 0 where there are no choices."""
        return sum(self.counts) if self.kind in ("discrete", "multi-discrete") else 0

    @property
    def noise(self) -> tuple[tuple[int, ...], Kind]:
        """(shape, kind) of the noise from which `distribution(...).sample` draws one action."""
        return self.shape, "normal" if self.kind == "box" else "uniform"

    @property
    def head(self) -> dict[str, Any]:
        """The policy's head, as `nets.registry.build` takes it."""
        if self.kind == "discrete":
            return {"kind": "categorical", "out_features": self.counts[0]}
        if self.kind == "multi-discrete":
            return {"kind": "multi-categorical", "out_features": self.counts}
        kind = "bernoulli" if self.kind == "multi-binary" else "gaussian"
        return {"kind": kind, "out_features": self.shape[0]}

    def distribution(
        self, raw: Tensor, mask: Tensor | None = None
    ) -> Categorical | MultiCategorical | Bernoulli | Gaussian:
        """Of what the head gives.

        Args:
            raw: [..., features].
            mask: bool [..., mask_width], actions that may be taken; None, or a last axis of 0, allows all.
        """
        allowed = None if mask is None or mask.shape[-1] == 0 else mask
        if self.kind == "discrete":
            return Categorical(raw, allowed)
        if self.kind == "multi-discrete":
            return MultiCategorical(raw, self.counts, allowed)
        return Bernoulli(raw) if self.kind == "multi-binary" else Gaussian(raw)

    def fit(self, action: Tensor, how: Fit) -> Tensor:
        """A policy's action as the environment takes it: a box's is clipped to it, or scaled to it from [-1, 1].

        Args:
            action: [..., *shape].
            how: "clip" or "scale" ("scale" needs finite bounds).
        """
        if self.kind != "box":
            return action
        low, high = action.new_tensor(self.low), action.new_tensor(self.high)
        if how == "scale":
            return low + (action.clamp(-1, 1) + 1) * (0.5 * (high - low))
        return torch.minimum(torch.maximum(action, low), high)


def discrete(actions: int) -> ActionSpace:
    """One of so many actions."""
    return ActionSpace("discrete", (actions,))


def multi_discrete(counts: tuple[int, ...]) -> ActionSpace:
    """One action for each of several choices."""
    return ActionSpace("multi-discrete", tuple(counts))


def multi_binary(bits: int) -> ActionSpace:
    """So many bits."""
    return ActionSpace("multi-binary", (2,) * bits)


def box(low: tuple[float, ...], high: tuple[float, ...]) -> ActionSpace:
    """Numbers between bounds."""
    return ActionSpace("box", (), tuple(low), tuple(high))


@dataclass(frozen=True)
class EnvSpec:
    """What a learner must know of an environment before it starts.

    Attributes:
        id: its id.
        obs_shape: of one observation, as networks take it.
        action: what may be done.
        masked: whether it says which actions are allowed.
        mask_observed: whether it says so in its observations; the mask is taken out of them.
        tensor: whether it is one of ours, whose state is saved.
        pixels: whether observations are bytes 0 to 255 (`see` scales them).
        max_steps: steps after which the environment itself ends an episode; None where it has no limit.
    """

    id: str
    obs_shape: tuple[int, ...]
    action: ActionSpace
    masked: bool = False
    mask_observed: bool = False
    tensor: bool = False
    pixels: bool = False
    max_steps: int | None = None

    @property
    def mask_width(self) -> int:
        """Last axis of the masks in rollouts; 0 where the environment gives none."""
        return self.action.mask_width if self.masked else 0


def see(obs: Tensor, dtype: torch.dtype) -> Tensor:
    """Observations as networks take them: bytes become numbers in [0, 1], the rest stays as it is."""
    return obs.to(dtype) / 255 if obs.dtype == torch.uint8 else obs
