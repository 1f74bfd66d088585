"""SeqGAN: an LSTM writes, convolutions judge, and the policy gradient carries the verdict back to every token.

Papers: Yu et al. 2017 (SeqGAN); Kim 2014 (the judge); Schulman et al. 2016 (advantages, shared with agents:
nets/returns.py). A text is an episode: a state is what is written, an action the next token, and the only reward
is D(text) in [0, 1] at the end. Beginnings are valued by Monte-Carlo roll-outs, V(y_1..t) = mean D(roll-out).
Three phases, by progress: likelihood of real texts, then the judge alone, then the game.
Deliberate differences: the gradient uses the advantage V(y_1..t) - V(y_1..t-1) (equation 4's value with a baseline of
zero mean; lambda > 0 mixes further ahead) instead of the bare value, unless baseline: false asks for that; the
roll-outs' policy is the writer itself, not a delayed copy; a judge without highway layer; decoupled weight decay; an
update of the judge draws its texts afresh instead of making epochs over a stored set.

Legend: K lanes, U updates of a chunk, B texts of a batch, T tokens of a text, R roll-outs of a beginning, C updates of
the judge in a round; y a text, v values, u uniform noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils import _pytree as pytree

from generative.text_generator import CLIP, UPDATES, JudgedConfig, TextGenerator, next_token, nll
from generative.text_mle import likelihood_step
from harness.learner import Lanes, Metrics, State, progress_of
from harness.spec import PerLaneFloat
from nets.decoding import Step, choose
from nets.lanes import call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init, clip_by_global_norm
from nets.registry import build
from nets.returns import gae

__all__ = ["Sentences", "TextGAN", "TextGANConfig", "advantages", "rollouts", "verdicts"]


class TextGANConfig(JudgedConfig):
    """A writer and a judge."""

    pretrain_judge: int = Field(500, ge=0, multiple_of=UPDATES, description="updates of the judge before the game")
    judge_updates: int = Field(5, ge=1, description="updates of the judge in a round")
    rollouts: int = Field(4, ge=1, description="roll-outs that value a beginning of a text")
    lam: PerLaneFloat = Field(
        0.0, ge=0, le=1, description="how far an advantage looks ahead: 0 one token (SeqGAN), 1 to the end of the text"
    )
    baseline: bool = Field(
        True, description="false: every token is worth the whole text's expected verdict, as in SeqGAN; lam has no say"
    )
    weight_decay: PerLaneFloat = Field(1e-2, ge=0, description="decoupled weight decay of the judge")
    dropout: float = Field(0.25, ge=0, lt=1, description="dropout of the judge")

    @property
    def updates_in_all(self) -> int:
        """Updates of all phases."""
        return self.pretrain + self.pretrain_judge + self.rounds


class Sentences(NamedTuple):
    """Texts as episodes, for `nets.returns`: all [T, B]."""

    reward: Tensor
    terminated: Tensor
    truncated: Tensor


def rollouts(step: Step, y: Tensor, u: Tensor) -> Tensor:
    """R continuations of every proper beginning of texts: int64 [T - 1, R, B, T]; entry t - 1 keeps y_1..t.

    At time s only the beginnings that are over are written on: half the work of starting them all at once.

    Args:
        step: the writer, of `nets.decoding`; its state's tensors have rows in their second axis.
        y: int64 [B, T].
        u: uniform numbers [T - 1, T - 1, R, B]: of a beginning, of a time (one triangle is used).
    """
    length, (count, batch) = y.shape[1], u.shape[2:]
    logits, state = step(torch.zeros_like(y[:, 0]), None)  # y's own state, token by token
    going: Any = None  # the state of all roll-outs under way, [beginnings * R * B] rows
    columns = [y[:, 0].expand(length - 1, count, batch)]
    token = y.new_zeros(0)
    for s in range(1, length):
        logits, state = step(y[:, s - 1], state)  # what follows y_1..s
        fresh = logits.repeat(count, 1), pytree.tree_map(lambda t: t.repeat(1, count, 1), state)
        if going is None:
            logits, going = fresh
        else:
            more, going = step(token, going)
            logits = torch.cat([more, fresh[0]])
            going = pytree.tree_map(lambda a, b: torch.cat([a, b], 1), going, fresh[1])
        token = choose(logits, u[:s, s - 1].flatten())
        kept = y[:, s].expand(length - 1 - s, count, batch)
        columns.append(torch.cat([token.reshape(s, count, batch), kept]))
    return torch.stack(columns, -1)


def advantages(begun: Tensor, whole: Tensor, lam: Any) -> Tensor:
    """What every token adds to the expected verdict: A [T, B], by `nets.returns.gae` without discount.

    The value before the first token is the batch's mean verdict, a text's own among them: biased by 1 / B.

    Args:
        begun: values of y_1..t for t = 1 .. T - 1, [T - 1, B].
        whole: the verdict on the whole texts, D(y) [B].
        lam: 0: v_t - v_t-1; 1: D(y) - v_t-1.
    """
    value = torch.cat([whole.mean().expand_as(whole).unsqueeze(0), begun])
    last = torch.zeros_like(value, dtype=torch.bool)
    last[-1] = True
    steps = Sentences(torch.where(last, whole, 0.0), last, torch.zeros_like(last))
    return gae(steps, value, torch.cat([begun, whole.unsqueeze(0)]), 1.0, lam)


def verdicts(begun: Tensor, whole: Tensor, lam: Any) -> Tensor:
    """The worth of the text as every token leaves it: Q [T, B] of SeqGAN's equation 4; arguments of `advantages`."""
    return torch.cat([begun, whole.unsqueeze(0)])


class TextGAN(TextGenerator):
    """K writers, each with its own judge and its own draws of the same texts."""

    Config = TextGANConfig

    def start(self, lanes: Lanes) -> State:
        """Writers, judges and optimisers at progress 0; the writer's likelihood and game have an optimiser each."""
        self.prepare(lanes)
        execution, count = lanes.execution, len(lanes)
        self.net, g, _ = execution.stack(self.build_writer, lanes.init_seeds("text/writer"))
        self.judge, d, _ = execution.stack(self._build_judge, lanes.init_seeds("text/judge"))
        self._phases = [execution.each(f) for f in (self._likelihood, self._judge_alone, self._round)]
        zeros = torch.zeros(count, dtype=torch.int64, device=execution.device)
        return {
            "progress": zeros,
            "alive": torch.ones_like(zeros, dtype=torch.bool),
            "params": {"g": g, "d": d},
            "optimiser": {n: adam_init(p, lanes=count) for n, p in (("likelihood", g), ("g", g), ("d", d))},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates of the phase that it lies in (phases are whole chunks)."""
        config: TextGANConfig = self.lanes.config
        progress = progress_of(state)
        ends = (config.pretrain, config.pretrain + config.pretrain_judge)
        phase = sum(progress >= end for end in ends)
        numbers: Callable[[int], Any] = (self._texts, self._judges_numbers, self._rounds_numbers)[phase]
        totals: dict[str, Tensor] = {}
        for u in range(UPDATES):
            weights = {name: state[name] for name in ("params", "optimiser")}
            new, metrics = self._phases[phase](weights, self.hyper, state["alive"], numbers(progress + u))
            state.update(new)
            totals = {name: totals.get(name, 0) + value / UPDATES for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The judge: texts int64 [B, T] to logits [B, 1]; above 0 means real."""
        return {"discriminator": module_of(self._build_judge, state["params"]["d"], {}, lane)}

    def _build_judge(self) -> nn.Module:
        c = self.lanes.config
        fields = {"vocabulary": self.vocabulary, "windows": c.windows, "hidden_features": c.judge_features}
        return build({"kind": "text-cnn", "dropout": c.dropout, **fields}, (self.length,), 1)

    # Functions of one trial: (weights, hyper-parameters, alive, numbers) to (weights, metrics)

    def _likelihood(self, old: Any, hp: Any, alive: Tensor, real: Tensor) -> Any:
        """Phase 1, as generative/text_mle.py."""
        params, state = old["params"], old["optimiser"]
        g, likelihood, loss = likelihood_step(self.net, params["g"], state["likelihood"], hp["lr"], real)
        new = {"params": {**params, "g": g}, "optimiser": {**state, "likelihood": likelihood}}
        return keep(alive, new, old), {"nll": loss}

    def _judge_alone(self, old: Any, hp: Any, alive: Tensor, numbers: Any) -> Any:
        """Phase 2: one update of the judge."""
        d, optimiser, metrics = self._judged_step(old["params"], old["optimiser"]["d"], hp, *numbers)
        new = {"params": {**old["params"], "d": d}, "optimiser": {**old["optimiser"], "d": optimiser}}
        return keep(alive, new, old), metrics

    def _round(self, old: Any, hp: Any, alive: Tensor, numbers: Any) -> Any:
        """Phase 3: one policy-gradient step of the writer, then C updates of the judge (algorithm 1)."""
        (u, u_on), judging = numbers
        params, state = dict(old["params"]), dict(old["optimiser"])
        y = self.write(params["g"], u)
        begun = rollouts(partial(next_token, self.net, params["g"]), y, u_on)
        verdict = torch.sigmoid(self._logit(params["d"], torch.cat([begun.flatten(0, 2), y])))
        whole, values = verdict[-len(y) :], verdict[: -len(y)].reshape(begun.shape[:3]).mean(1)
        value = advantages if self.lanes.config.baseline else verdicts
        worth = value(values, whole, hp["lam"]).T  # [B, T]

        # equation 8: the gradient of log G(y_t | y_1..t-1) times what y_t is worth
        grads, _ = grad_and_value(lambda g: (nll(self.net, g, y) * worth).mean())(params["g"])
        grads, norm = clip_by_global_norm(grads, CLIP)
        params["g"], state["g"] = adam(params["g"], grads, state["g"], hp["lr_g"])
        for c in range(self.lanes.config.judge_updates):
            one = pytree.tree_map(lambda t, c=c: t[c], judging)
            params["d"], state["d"], metrics = self._judged_step(params, state["d"], hp, *one)
        shown = {"verdict": whole.mean(), "advantage": worth.square().mean().sqrt(), "g_norm": norm}
        return keep(alive, {"params": params, "optimiser": state}, old), {**metrics, **shown}

    def _judged_step(self, params: Any, optimiser: Any, hp: Any, real: Tensor, u: Tensor, key: Tensor) -> Any:
        """One step of the judge on real texts and on fresh ones, cross-entropy (equation 5): (d, state, metrics)."""
        both = torch.cat([real, self.write(params["g"], u)])

        def loss(d: Any) -> Any:
            on_real, on_fake = self._logit(d, both, key).chunk(2)
            right = torch.cat([on_real > 0, on_fake < 0]).to(on_real.dtype).mean()
            return (softplus(-on_real) + softplus(on_fake)).mean(), right

        grads, (value, right) = grad_and_value(loss, has_aux=True)(params["d"])
        d, optimiser = adam(params["d"], grads, optimiser, hp["lr_d"], weight_decay=hp["weight_decay"])
        return d, optimiser, {"d_loss": value, "d_accuracy": right}

    def _logit(self, d: Any, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        return call(self.judge, d, {}, tokens, noise=key)[0].squeeze(-1)

    # Numbers of one update, with the lanes' axis first

    def _texts(self, progress: int) -> Tensor:
        return self.real("text/likelihood", progress, (self.lanes.config.batch,))

    def _judges_numbers(self, progress: int, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """For one update of the judge, or for `count` of them: real texts, noise for written ones, dropout's key."""
        lead, batch = () if count is None else (count,), self.lanes.config.batch
        keys = self.lanes.keys("text/dropout", progress, count or 1)
        return (
            self.real("text/real", progress, (*lead, batch)),
            self.lanes.noise("text/fake", progress, (*lead, batch, self.length), "uniform"),
            keys if lead else keys[:, 0],
        )

    def _rounds_numbers(self, progress: int) -> Any:
        """For one round: noise for texts and their roll-outs, and C times what the judge needs."""
        c, steps = self.lanes.config, self.length - 1
        u = self.lanes.noise("text/write", progress, (c.batch, self.length), "uniform")
        u_on = self.lanes.noise("text/rollouts", progress, (steps, steps, c.rollouts, c.batch), "uniform")
        return (u, u_on), self._judges_numbers(progress, c.judge_updates)
