"""A PPO-shaped update of K lanes on one core, beside the same written by hand and beside K separate networks.

All do one minibatch of CleanRL's and PureJaxRL's CartPole settings: 128 of 512 samples a lane, two 64-64 networks,
the clipped loss with normalised advantages, clipping by the global norm, Adam. Sides, interleaved in one process:
  lanes        the ordinary networks of `nets`, one trial's loss, run as K lanes, compiled
  lanes_relu   the same with ReLU in the place of tanh
  handwritten  stacked weights and batched products, a loss with a lane axis, and Adam written by hand;
               gradients by autograd, compiled by the same compiler
  separate     K ordinary modules one after another, torch's own Adam, eager
  looking      statistics of every layer's gradients, weights and activations for one minibatch (`layers_every`)
  products     the matrix products of forward and backward alone, as `torch.bmm` computes them
`compile` is one child process with an empty cache and one with the cache that this left.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import note

SAMPLES, MINIBATCH, OBS, ACTIONS, WIDTH = 512, 128, 4, 2, 64
HYPER = {"lr": 1e-3, "clip": 0.2, "clip_value": 0.0, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
STEPS_PER_UPDATE = SAMPLES / 16  # environment steps of a lane for each minibatch: 4 epochs of 4 minibatches


def measure(counts: tuple[int, ...], rounds: int, processes: int) -> dict[str, Any]:
    """Milliseconds of CPU an update for every number of lanes and side (medians of some processes, for where the
    tensors lie differs from one to the next), and seconds to compile."""
    found: dict[str, Any] = {}
    for lanes in counts:
        with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as cache:
            runs = [_child({"lanes": lanes, "rounds": rounds}, cache) for _ in range(processes)]
        found[f"K={lanes}"] = {side: statistics.median(run[side] for run in runs) for side in runs[0]}
        note(f"update, {lanes} lanes: {json.dumps(found[f'K={lanes}'])}")
    with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as cache:
        for heat in ("cold", "warm"):
            found[f"compile_{heat}"] = _child({"lanes": 8, "rounds": 0}, cache)
    note(f"compiling: {json.dumps([found['compile_cold'], found['compile_warm']])}")
    return found


def ratios_of(found: dict[str, Any]) -> dict[str, float]:
    """The ratios that the README names."""
    out: dict[str, float] = {
        "compile_cold_seconds": found["compile_cold"]["first_call"],
        "compile_warm_seconds": found["compile_warm"]["first_call"],
    }
    for name, row in found.items():
        if name.startswith("K="):
            suffix = f"_{name[2:]}"
            out["lanes_over_handwritten" + suffix] = row["handwritten"] / row["lanes"]
            out["lanes_over_separate" + suffix] = row["separate"] / row["lanes"]
            out["tanh_over_relu" + suffix] = row["lanes"] / row["lanes_relu"]
            out["lanes_over_products" + suffix] = row["lanes"] / row["products"]
            out["looking_share" + suffix] = row["looking"] / (100 * row["lanes"])  # at every hundredth update
    for name, worst in (
        ("lanes_over_handwritten", min),
        ("lanes_over_separate", min),
        ("tanh_over_relu", max),
        ("looking_share", max),
    ):
        out[name] = worst(value for key, value in out.items() if key.startswith(name))
    return out


def _child(task: dict[str, Any], cache: str) -> Any:
    """Runs `main` in a process of one thread."""
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.update", json.dumps(task)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, cwd=root, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(lanes: int, rounds: int) -> dict[str, float]:
    """One process: all sides in turn, or the first call of `lanes` alone where `rounds` is 0."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not rounds:
        import torch._inductor.compile_fx  # its import is told apart from compiling

        step = lanes_side(lanes, "tanh")
        began = time.perf_counter()
        step()
        return {"first_call": time.perf_counter() - began}
    sides = {
        "lanes": lanes_side(lanes, "tanh"),
        "lanes_relu": lanes_side(lanes, "relu"),
        "handwritten": handwritten_side(lanes),
        "separate": separate_side(lanes),
        "looking": looking_side(lanes),
        "products": products_side(lanes),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step()
    for _ in range(rounds):
        for name, step in sides.items():
            calls = 3 if name == "separate" else 15
            began = time.process_time()
            for _ in range(calls):
                step()
            times[name].append(1e3 * (time.process_time() - began) / calls)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {**middle, "lanes_env_steps_per_second": 1e3 * lanes * STEPS_PER_UPDATE / middle["lanes"]}


def rollout_of(lanes: int) -> Any:
    """A made-up rollout of every lane, [K, 512, ...]."""
    import torch

    from agents.ppo import Batch

    shape = (lanes, SAMPLES)
    obs, mask = torch.randn(*shape, OBS), torch.zeros(*shape, 0, dtype=torch.bool)
    action, logp = torch.randint(0, ACTIONS, shape), -torch.rand(shape) - 0.3
    return Batch(obs, mask, action, logp, *(torch.randn(shape) for _ in range(3)))


def network_of(activation: str) -> Any:
    """The configuration of PPO's actor and critic."""
    from agents.ppo import PPOConfig

    return PPOConfig(net={"kind": "mlp", "activation": activation}).network


def objective(output: Any, minibatch: Any, hyper: Any) -> Any:
    """PPO's loss of one trial's minibatch, see agents/ppo.py."""
    from agents.ppo import ppo_loss
    from nets.distributions import Categorical

    policy, a = Categorical(output[0]), minibatch.advantage
    minibatch = minibatch._replace(advantage=(a - a.mean()) / (a.std() + 1e-8))
    log_prob, entropy = policy.log_prob(minibatch.action), policy.entropy().mean()
    coefficients = (hyper[name] for name in ("clip", "clip_value", "ent_coef", "vf_coef"))
    return ppo_loss(log_prob, entropy, output[1], minibatch, *coefficients)


def indices_of(lanes: int) -> Any:
    """A minibatch of every lane, [K, 128]."""
    import torch

    return torch.stack([torch.randperm(SAMPLES)[:MINIBATCH] for _ in range(lanes)])


def lanes_side(lanes: int, activation: str) -> Callable[[], None]:
    """The learner's own way: see agents/ppo.py."""
    import torch

    from agents.ppo import Batch
    from nets.lanes import Execution, call, grad_and_value, keep
    from nets.optim import adam, adam_init, clip_by_global_norm
    from nets.registry import build

    execution = Execution("compiled")
    net, params, _ = execution.stack(lambda: build(network_of(activation), (OBS,), ACTIONS), range(lanes))
    hyper = {name: torch.full((lanes,), value) for name, value in HYPER.items()}
    alive = torch.ones(lanes, dtype=torch.bool)

    def update(params: Any, opt: Any, alive: Any, hyper: Any, batch: Any, index: Any) -> Any:
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> Any:
            output, _ = call(net, params, {}, minibatch.obs)
            return objective(output, minibatch, hyper)

        grads, (_, log) = grad_and_value(loss, has_aux=True)(params)
        grads, log["grad_norm"] = clip_by_global_norm(grads, hyper["max_grad_norm"])
        after = adam(params, grads, opt, hyper["lr"], eps=1e-5)
        params, opt = keep(alive, after, (params, opt))
        return params, opt, torch.stack([log[name] for name in sorted(log)])

    each = execution.each(update)
    state = [params, adam_init(params, lanes=lanes)]
    batch, index = rollout_of(lanes), indices_of(lanes)

    def step() -> None:
        state[0], state[1], _ = each(state[0], state[1], alive, hyper, batch, index)

    return step


def looking_side(lanes: int) -> Callable[[], None]:
    """What a look at the layers adds to an update."""
    import torch

    from agents.ppo import Batch
    from nets.lanes import Execution, grad_and_value
    from nets.looking import activation_statistics, layer_statistics
    from nets.registry import build

    execution = Execution("compiled")
    net, params, _ = execution.stack(lambda: build(network_of("tanh"), (OBS,), ACTIONS), range(lanes))
    hyper = {name: torch.full((lanes,), value) for name, value in HYPER.items()}

    def look(params: Any, after: Any, hyper: Any, batch: Any, index: Any) -> Any:
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> Any:
            (output, _), seen = activation_statistics(net, params, {}, minibatch.obs)
            return objective(output, minibatch, hyper)[0], seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(params)
        return layer_statistics(params, grads, after, seen)

    each = execution.each(look)
    after = {name: p * 1.001 for name, p in params.items()}
    batch, index = rollout_of(lanes), indices_of(lanes)
    return lambda: each(params, after, hyper, batch, index) and None


def handwritten_side(lanes: int) -> Callable[[], None]:
    """Stacked weights, `baddbmm`, losses and Adam with a lane axis; compiled whole by TorchInductor."""
    import torch
    from torch.func import grad

    from nets.compiling import Compiled

    sizes = ((OBS, WIDTH), (WIDTH, WIDTH), (WIDTH, ACTIONS), (OBS, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))
    flat: list[Any] = []
    for inside, out in sizes:
        flat += [torch.randn(lanes, inside, out) / math.sqrt(inside), torch.zeros(lanes, 1, out)]
    batch, index = rollout_of(lanes), indices_of(lanes)

    def network(weights: Any, x: Any) -> Any:
        for layer in range(3):
            x = torch.baddbmm(weights[2 * layer + 1], x, weights[2 * layer])
            x = 2 * torch.sigmoid(2 * x) - 1 if layer < 2 else x
        return x

    def update(params: Any, mean: Any, square: Any, count: Any, alive: Any, batch: Any, index: Any) -> Any:
        obs = batch[0].gather(1, index.unsqueeze(-1).expand(-1, -1, OBS))
        action, old_log_prob, _, advantage, target = (t.gather(1, index) for t in batch[2:])

        def loss(params: Any) -> Any:
            log_probs = torch.log_softmax(network(params[:6], obs), -1)
            value = network(params[6:], obs).squeeze(-1)
            log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
            adv = (advantage - advantage.mean(1, keepdim=True)) / (advantage.std(1, keepdim=True) + 1e-8)
            log_ratio = log_prob - old_log_prob
            ratio = log_ratio.exp()
            clipped = ratio.clamp(1 - HYPER["clip"], 1 + HYPER["clip"])
            policy = -torch.minimum(ratio * adv, clipped * adv).mean(1)
            critic = 0.5 * (value - target).square().mean(1)
            entropy = -(log_probs.exp() * log_probs).sum(-1).mean(1)
            kl = (ratio - 1 - log_ratio).mean(1)
            far = ((ratio - 1).abs() > HYPER["clip"]).float().mean(1)
            total = policy + HYPER["vf_coef"] * critic - HYPER["ent_coef"] * entropy
            return total.sum(), torch.stack([policy, critic, entropy, kl, far], 1)

        grads, log = grad(loss, has_aux=True)(params)
        norm = torch.stack([(g * g).sum((1, 2)) for g in grads]).sum(0).sqrt()
        scale = (HYPER["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0)[:, None, None]
        steps = count + 1
        size = (HYPER["lr"] / (1 - 0.9**steps))[:, None, None]
        root = torch.rsqrt(1 - 0.999**steps)[:, None, None]
        lives = alive[:, None, None]
        new_p, new_m, new_v = [], [], []
        for p, g, m, v in zip(params, grads, mean, square, strict=True):
            g = g * scale
            m1, v1 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g * g)
            new_p.append(torch.where(lives, p - size * m1 / (v1.sqrt() * root + 1e-5), p))
            new_m.append(torch.where(lives, m1, m))
            new_v.append(torch.where(lives, v1, v))
        return new_p, new_m, new_v, torch.where(alive, steps, count), torch.cat([log, norm[:, None]], 1)

    program = Compiled(update)
    state = [flat, [t.clone() * 0 for t in flat], [t.clone() * 0 for t in flat], torch.zeros(lanes)]
    alive = torch.ones(lanes, dtype=torch.bool)

    def step() -> None:
        *state[:], _ = program(*state, alive, tuple(batch), index)

    return step


def separate_side(lanes: int) -> Callable[[], None]:
    """K modules, one after another, as most code in the wild does it."""
    import torch

    from agents.ppo import Batch
    from nets.registry import build

    torch.set_grad_enabled(True)
    nets = [build(network_of("tanh"), (OBS,), ACTIONS) for _ in range(lanes)]
    optimisers = [torch.optim.Adam(net.parameters(), lr=HYPER["lr"], eps=1e-5) for net in nets]
    batch, index = rollout_of(lanes), indices_of(lanes)
    hyper = {name: torch.tensor(value) for name, value in HYPER.items()}

    def step() -> None:
        for k, (net, optimiser) in enumerate(zip(nets, optimisers, strict=True)):
            minibatch = Batch(*(t[k][index[k]] for t in batch))
            loss, _ = objective(net(minibatch.obs), minibatch, hyper)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), HYPER["max_grad_norm"])
            optimiser.step()

    return step


def products_side(lanes: int) -> Callable[[], None]:
    """The batched products that no implementation can leave out."""
    import torch

    pairs: list[tuple[Any, Any]] = []
    for sizes in ((OBS, WIDTH, WIDTH, ACTIONS), (OBS, WIDTH, WIDTH, 1)):
        for layer in range(3):
            inside, out = sizes[layer], sizes[layer + 1]
            x, w = torch.randn(lanes, MINIBATCH, inside), torch.randn(lanes, inside, out)
            y = torch.randn(lanes, MINIBATCH, out)
            pairs += [(x, w), (x.transpose(1, 2), y)]  # forward; gradient of the weights
            pairs += [(y, w.transpose(1, 2))] if layer else []  # gradient of the input

    def step() -> None:
        with torch.no_grad():
            for a, b in pairs:
                torch.bmm(a, b)

    return step


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
