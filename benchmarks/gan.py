"""GANs beside plain PyTorch loops, in CPU seconds of one thread, interleaved in one process.

`python -m benchmarks.gan [--quick] [--json]`

- `lanes_over_loops`: ring of 8 Gaussians, 8 seeds as lanes (compiled) against the same training written as a plain
  eager loop over `nn.Module`s, once a seed; `lanes_over_loops_eager` without the compiler. Compiling is left out and
  stated (`compile_seconds`); `lanes_over_loops_whole` counts it into a training of the learner's own budget.
- `dcgan_over_loop`: one step of a DCGAN with R1 + R2 on images of 28 x 28 against such a loop.
- `harness_share`: of a whole run of the ring through the driver, the share of CPU time outside the learner.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.common import finish, note, parse, share_outside

SEEDS = 8
BATCH = 128
DCGAN = {
    "data": "fashion-mnist",
    "batch": 32,
    "latent_features": 64,
    "generator": {"kind": "dcgan-generator", "hidden_features": 32},
    "net": {"kind": "dcgan", "hidden_features": 32, "norm": "none"},
}


class Loop:
    """One GAN as anybody would write it: relativistic loss, R1 + R2 by `autograd.grad`, two Adams, an average."""

    def __init__(self, generator: nn.Module, critic: nn.Module, latent: int, real: Callable[[], Tensor]) -> None:
        self.g, self.d, self.latent, self.real = generator, critic, latent, real
        self.average = {name: p.detach().clone() for name, p in generator.named_parameters()}
        self.optimisers = [torch.optim.Adam(net.parameters(), 4e-3, betas=(0.0, 0.9)) for net in (self.g, self.d)]

    def step(self) -> None:
        """One update of the discriminator, one of the generator."""
        of_g, of_d = self.optimisers
        real = self.real().requires_grad_()
        with torch.no_grad():
            fake = self.g(torch.randn(len(real), self.latent))
        fake.requires_grad_()
        on_real, on_fake = self.d(real), self.d(fake)
        penalty: Tensor = torch.zeros(())
        for rows, logits in ((real, on_real), (fake, on_fake)):
            (slope,) = torch.autograd.grad(logits.sum(), rows, create_graph=True)
            penalty = penalty + slope.square().flatten(1).sum(1).mean()
        loss = softplus(on_fake - on_real).mean() + 0.05 * penalty
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        on_fake = self.d(self.g(torch.randn(len(real), self.latent)))
        loss = softplus(self.d(real.detach()) - on_fake).mean()
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        with torch.no_grad():
            for name, p in self.g.named_parameters():
                self.average[name].lerp_(p, 0.01)


def perceptron(widths: list[int]) -> nn.Module:
    """Linear layers with leaky ReLU (0.2) between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def ring_loop() -> Loop:
    """The learner's default networks on the ring."""
    angle = 2 * torch.pi * torch.arange(8) / 8
    centres = 2 * torch.stack([angle.cos(), angle.sin()], -1)
    g, d = perceptron([8, 64, 64, 64, 2]), perceptron([2, 64, 64, 64, 1])
    return Loop(g, d, 8, lambda: centres[torch.randint(0, 8, (BATCH,))] + 0.02 * torch.randn(BATCH, 2))


def dcgan_loop() -> Loop:
    """The networks of DCGAN, built from the same blocks."""
    from nets.registry import build

    g = build(DCGAN["generator"], DCGAN["latent_features"], (28, 28))
    d = build(DCGAN["net"], (28, 28), {"kind": "linear", "out_features": 1, "bias": False})
    return Loop(g, d, DCGAN["latent_features"], lambda: torch.rand(DCGAN["batch"], 28, 28))


class Lanes:
    """Our learner, trained chunk by chunk."""

    def __init__(self, config: dict[str, Any], seeds: int, mode: Any) -> None:
        from generative.gan import GAN
        from harness.learner import Lanes
        from nets.lanes import Execution

        self.learner = GAN()
        self.config = GAN.Config(**config)
        lanes = Lanes((self.config,) * seeds, tuple(range(seeds)), Execution(mode))
        self.state = self.learner.start(lanes)
        began = time.process_time()
        self.learner.advance(self.state)
        self.first = time.process_time() - began

    def step(self) -> None:
        """One chunk: `updates` updates of every lane."""
        self.learner.advance(self.state)


def seconds(step: Callable[[], None], times: int) -> float:
    """CPU seconds of one call, mean over `times`."""
    began = time.process_time()
    for _ in range(times):
        step()
    return (time.process_time() - began) / times


def interleaved(sides: dict[str, tuple[Callable[[], None], int]], rounds: int) -> dict[str, float]:
    """Medians over rounds of the CPU seconds of one call."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, (step, times) in sides.items():
            found[name].append(seconds(step, times))
        note(f"round {turn}: " + ", ".join(f"{name} {1e3 * times[-1]:.1f} ms" for name, times in found.items()))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measures all sides in turn."""
    options = parse("gan", __doc__)
    torch.set_num_threads(1)
    rounds, few = (3, 1) if options.quick else (7, 2)
    compiled, eager, loop = Lanes({}, SEEDS, "compiled"), Lanes({}, SEEDS, "eager"), ring_loop()
    updates = compiled.config.updates
    ring = interleaved(
        {"compiled": (compiled.step, 4 * few), "eager": (eager.step, few), "loop": (loop.step, 40 * few)}, rounds
    )
    images = interleaved({"ours": (Lanes(DCGAN, 1, "loop").step, few), "loop": (dcgan_loop().step, 10 * few)}, rounds)
    loops = SEEDS * updates * ring["loop"]
    chunks = compiled.config.budget / compiled.config.chunk
    note("a whole run through the driver ...")
    trained = 64_000 if options.quick else compiled.config.budget
    ring_file = f"name: ring\nseeds: {SEEDS}\ntrials: [{{learner: gan, images: {trained}}}]\n"
    share = share_outside(type(compiled.learner), ring_file)
    finish(
        "gan",
        {
            "lanes_over_loops": loops / ring["compiled"],
            "lanes_over_loops_whole": loops * chunks / (compiled.first + ring["compiled"] * chunks),
            "lanes_over_loops_eager": loops / ring["eager"],
            "dcgan_over_loop": updates * images["loop"] / images["ours"],
            "harness_share": share,
        },
        {"compile_seconds": compiled.first, "ring_seconds": ring, "dcgan_seconds": images, "seeds": SEEDS},
        options,
    )


if __name__ == "__main__":
    main()
