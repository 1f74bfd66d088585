"""Maximum likelihood: the next token's cross-entropy, Adam. The honest baseline of every GAN for text.

Papers: Yu et al. 2017 (its settings: an LSTM of 32, Adam at 1e-2, norms clipped at 5); Caccia et al. 2020 (with its
temperature swept it beats the GANs of its day).
Deliberate differences: batches are drawn with replacement instead of in epochs.

Legend: K lanes, U updates of a chunk, B texts of a batch, T tokens of a text.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from generative.text_generator import CLIP, UPDATES, TextConfig, TextGenerator, nll
from harness.learner import Lanes, Metrics, State, progress_of
from nets.lanes import grad_and_value, keep
from nets.optim import adam, adam_init, clip_by_global_norm

__all__ = ["TextMLE", "TextMLEConfig", "likelihood_step"]


class TextMLEConfig(TextConfig):
    """A writer that learns by likelihood alone."""

    updates: int = Field(8000, ge=1, description="updates (rounded up to whole chunks of 5)")

    @property
    def updates_in_all(self) -> int:
        """Updates."""
        return self.updates


def likelihood_step(net: Any, params: Any, optimiser: Any, lr: Any, tokens: Tensor) -> tuple[Any, Any, Tensor]:
    """One step of Adam on -log p(y) (a token, in nats) of one trial: (params, optimiser, the loss before).

    Args:
        net: a "lstm-language".
        params: the writer's.
        optimiser: Adam's state.
        lr: learning rate.
        tokens: real texts, int64 [B, T].
    """
    grads, loss = grad_and_value(lambda p: nll(net, p, tokens).mean())(params)
    params, optimiser = adam(params, clip_by_global_norm(grads, CLIP)[0], optimiser, lr)
    return params, optimiser, loss


class TextMLE(TextGenerator):
    """K writers, each on its own draws of the same texts."""

    Config = TextMLEConfig

    def start(self, lanes: Lanes) -> State:
        """Writers and optimisers at progress 0."""
        self.prepare(lanes)
        self.net, g, _ = lanes.execution.stack(self.build_writer, lanes.init_seeds("text/writer"))
        self._update_each = lanes.execution.each(self._update)
        zeros = torch.zeros(len(lanes), dtype=torch.int64, device=lanes.execution.device)
        return {
            "progress": zeros,
            "alive": torch.ones_like(zeros, dtype=torch.bool),
            "params": {"g": g},
            "optimiser": {"g": adam_init(g, lanes=len(lanes))},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates on B texts each."""
        tokens = self.real("text/likelihood", progress_of(state), (UPDATES, self.lanes.config.batch))
        loss: Any = 0
        for u in range(UPDATES):
            weights = {name: state[name] for name in ("params", "optimiser")}
            new, value = self._update_each(weights, self.hyper, state["alive"], tokens[:, u])
            state.update(new)
            loss = loss + value / UPDATES
        state["progress"] = state["progress"] + self.chunk
        return {"nll": loss}

    def _update(self, old: Any, hp: Any, alive: Tensor, tokens: Tensor) -> Any:
        """One update of one trial: (weights, loss)."""
        g, optimiser, loss = likelihood_step(self.net, old["params"]["g"], old["optimiser"]["g"], hp["lr"], tokens)
        return keep(alive, {"params": {"g": g}, "optimiser": {"g": optimiser}}, old), loss
