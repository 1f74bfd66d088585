"""PureJaxRL's own PPO for `benchmarks.ppo_cartpole`, in an interpreter that has jax: for every line on standard input
one training of all lanes, and a line with its environment steps and seconds of CPU.

    python benchmarks/purejaxrl.py CHECKOUT LANES

CHECKOUT is a clone of github.com/luchris429/purejaxrl (its `purejaxrl/ppo.py` is imported as it is); the interpreter
needs jax, flax, optax, distrax and gymnax 0.0.9. Nothing here imports from this repository.
"""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

STEPS = 32 * 512  # of a lane in one training: whole rollouts
CONFIG: dict[str, Any] = {
    "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": STEPS, "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True,
}  # fmt: skip  # its `__main__`


def main(checkout: str, lanes: int) -> None:
    """Compiles, says how long that took, and trains whenever a line comes."""
    sys.path.insert(0, str(Path(checkout) / "purejaxrl"))
    for absent in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        module: Any = types.ModuleType(absent)  # its wrappers import these for other environments
        module.envs = module.EpisodeWrapper = module.AutoResetWrapper = None
        sys.modules.setdefault(absent, module)
    import jax
    from ppo import make_train  # type: ignore[import-not-found]

    train = jax.jit(jax.vmap(make_train(CONFIG)))

    def seconds(seed: int) -> float:
        keys = jax.random.split(jax.random.PRNGKey(seed), lanes)
        began = time.process_time()
        jax.block_until_ready(train(keys))
        return time.process_time() - began

    began = time.perf_counter()
    jax.block_until_ready(train(jax.random.split(jax.random.PRNGKey(0), lanes)))
    print(time.perf_counter() - began - seconds(1), flush=True)
    for seed, _ in enumerate(sys.stdin):
        print(lanes * STEPS, seconds(2 + seed), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
