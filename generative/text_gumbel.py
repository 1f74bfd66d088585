"""A GAN for text whose gradient passes through the tokens: straight-through Gumbel-softmax, relativistic loss.

Papers: Kusner & Hernandez-Lobato 2016 (GANs with the Gumbel-softmax); Jang et al. 2017 (straight-through); Nie et al.
2019 (RelGAN: relativistic standard GAN, inverse temperature rising as beta^(n / N), likelihood first);
Jolicoeur-Martineau 2019 (the loss: generative/losses.py).
Deliberate differences from RelGAN: an LSTM in the place of its relational memory, one embedding in the judge instead of
64, one update of the judge for one of the writer, and the writer reads its own hard tokens.

Legend: K lanes, U updates of a chunk, B texts of a batch, T tokens of a text, V tokens of the vocabulary, beta inverse
temperature.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from generative.losses import rpgan_discriminator_loss, rpgan_generator_loss
from generative.text_generator import CLIP, UPDATES, JudgedConfig, TextGenerator, next_token
from generative.text_mle import likelihood_step
from harness.learner import Lanes, Metrics, State, progress_of
from harness.spec import PerLaneFloat
from nets.decoding import Step
from nets.lanes import call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init, clip_by_global_norm
from nets.registry import build

__all__ = ["TextGumbel", "TextGumbelConfig", "straight_through", "write_softly"]


class TextGumbelConfig(JudgedConfig):
    """A writer and a judge that sees soft tokens."""

    rounds: int = Field(2000, ge=0, multiple_of=UPDATES, description="rounds of the game, an update of each network")
    beta: PerLaneFloat = Field(
        100.0, ge=1, description="inverse temperature of the soft tokens at the end; it rises from 1 geometrically"
    )
    lr_g: PerLaneFloat = Field(1e-4, ge=0, description="the writer's learning rate in the game (Adam)")
    lr_d: PerLaneFloat = Field(1e-4, ge=0, description="the judge's learning rate (Adam)")

    @property
    def updates_in_all(self) -> int:
        """Updates of both phases."""
        return self.pretrain + self.rounds


def straight_through(logits: Tensor, u: Tensor, beta: Any) -> Tensor:
    """A token as a one-hot row whose gradient is that of softmax(beta (logits + g)), g Gumbel: [..., V].

    The largest of logits + g is a draw from softmax(logits), whatever beta (Gumbel 1954; Maddison et al. 2014).

    Args:
        logits: [..., V].
        u: uniform numbers in [0, 1), [..., V].
        beta: inverse temperature of the gradient.
    """
    gumbel = -torch.log(-torch.log(u.clamp(1e-20, 1 - 2**-24)))  # rounding may have reached 1
    noisy = logits + gumbel
    soft = torch.softmax(beta * noisy, dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, noisy.argmax(-1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


def write_softly(step: Step, start: Tensor, u: Tensor, beta: Any) -> Tensor:
    """Texts as rows over the vocabulary, [B, T, V]; every token goes back into the writer.

    Args:
        step: of `nets.decoding`, but of rows: (rows [B, V], state) to (logits [B, V], state).
        start: token 0's row, [B, V].
        u: uniform numbers [B, T, V].
        beta: see `straight_through`.
    """
    row, state, rows = start, None, []
    for numbers in u.unbind(1):
        logits, state = step(row, state)
        row = straight_through(logits, numbers, beta)
        rows.append(row)
    return torch.stack(rows, 1)


class TextGumbel(TextGenerator):
    """K writers, each with its own judge and its own draws of the same texts."""

    Config = TextGumbelConfig

    def start(self, lanes: Lanes) -> State:
        """Writers, judges and optimisers at progress 0; the writer's likelihood and game have an optimiser each."""
        self.prepare(lanes)
        execution, count = lanes.execution, len(lanes)
        self.net, g, _ = execution.stack(self.build_writer, lanes.init_seeds("text/writer"))
        self.judge, d, _ = execution.stack(self._build_judge, lanes.init_seeds("text/judge"))
        self._phases = [execution.each(f) for f in (self._likelihood, self._round)]
        zeros = torch.zeros(count, dtype=torch.int64, device=execution.device)
        return {
            "progress": zeros,
            "alive": torch.ones_like(zeros, dtype=torch.bool),
            "params": {"g": g, "d": d},
            "optimiser": {n: adam_init(p, lanes=count) for n, p in (("likelihood", g), ("g", g), ("d", d))},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates of the phase that it lies in (phases are whole chunks)."""
        progress = progress_of(state)
        phase = int(progress >= self.lanes.config.pretrain)
        totals: dict[str, Tensor] = {}
        for u in range(UPDATES):
            weights = {name: state[name] for name in ("params", "optimiser")}
            numbers = (self._texts, self._rounds_numbers)[phase](progress + u)
            new, metrics = self._phases[phase](weights, self._hyper(progress + u), state["alive"], *numbers)
            state.update(new)
            totals = {name: totals.get(name, 0) + value / UPDATES for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The judge: texts int64 [B, T] or rows [B, T, V] to logits [B, 1]."""
        return {"discriminator": module_of(self._build_judge, state["params"]["d"], {}, lane)}

    def _build_judge(self) -> nn.Module:
        c = self.lanes.config
        fields = {"vocabulary": self.vocabulary, "windows": c.windows, "hidden_features": c.judge_features}
        logit = {"kind": "linear", "out_features": 1, "bias": False}  # the losses see differences of logits only
        return build({"kind": "text-cnn", **fields}, (self.length,), logit)

    # Functions of one trial: to (weights, metrics)

    def _likelihood(self, old: Any, hp: Any, alive: Tensor, real: Tensor) -> Any:
        """Phase 1, as generative/text_mle.py."""
        params, state = old["params"], old["optimiser"]
        g, likelihood, loss = likelihood_step(self.net, params["g"], state["likelihood"], hp["lr"], real)
        new = {"params": {**params, "g": g}, "optimiser": {**state, "likelihood": likelihood}}
        return keep(alive, new, old), {"nll": loss}

    def _round(self, old: Any, hp: Any, alive: Tensor, real: Tensor, u: Tensor) -> Any:
        """Phase 2: one step of the judge, then one of the writer, on the same real texts and the same noise."""
        params, state = old["params"], old["optimiser"]
        start = torch.zeros_like(u[:, 0]).index_fill(-1, torch.zeros(1, dtype=torch.int64, device=u.device), 1.0)

        def write(g: Any) -> Tensor:
            return write_softly(lambda row, state: next_token(self.net, g, row, state), start, u, hp["beta_now"])

        def logits(d: Any, fake: Tensor) -> tuple[Tensor, Tensor]:
            return tuple(call(self.judge, d, {}, x)[0].squeeze(-1) for x in (real, fake))

        fake = write(params["g"])
        grads, d_loss = grad_and_value(lambda d: rpgan_discriminator_loss(*logits(d, fake)))(params["d"])
        d, d_state = adam(params["d"], clip_by_global_norm(grads, CLIP)[0], state["d"], hp["lr_d"])
        grads, g_loss = grad_and_value(lambda g: rpgan_generator_loss(*logits(d, write(g))))(params["g"])
        grads, norm = clip_by_global_norm(grads, CLIP)
        g, g_state = adam(params["g"], grads, state["g"], hp["lr_g"])
        new = {"params": {"g": g, "d": d}, "optimiser": {**state, "g": g_state, "d": d_state}}
        return keep(alive, new, old), {"d_loss": d_loss, "g_loss": g_loss, "g_norm": norm}

    # Schedule and numbers of one update, with the lanes' axis first

    def _hyper(self, progress: int) -> dict[str, Tensor]:
        """RelGAN's exponential schedule: beta^(n / N) in round n of N."""
        config: TextGumbelConfig = self.lanes.config
        done = max(progress - config.pretrain, 0) / max(config.rounds, 1)
        return {**self.hyper, "beta_now": self.hyper["beta"] ** done}

    def _texts(self, progress: int) -> tuple[Tensor]:
        return (self.real("text/likelihood", progress, (self.lanes.config.batch,)),)

    def _rounds_numbers(self, progress: int) -> tuple[Tensor, Tensor]:
        batch = self.lanes.config.batch
        u = self.lanes.noise("text/gumbel", progress, (batch, self.length, self.vocabulary), "uniform")
        return self.real("text/real", progress, (batch,)), u
