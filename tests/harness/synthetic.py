"""A run root as CONTRIBUTING describes it, with plausible curves, for the tests of whatever reads run roots.

`python -m tests.harness.synthetic ROOT` writes one and builds its page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.gif import gif

VERSIONS = {"python": "3.11.9", "torch": "2.13.0", "seedbed": "0.1.0", "numpy": "2.4.6"}
MACHINE = {"cpu": "Example CPU", "cores": 2, "platform": "Linux x86_64", "gpu": None}
FILE = """name: synthetic
seeds: 8
trials:
  - learner: ppo
    env: CartPole-v1
    steps: 100_000
  - {learner: gan, data: ring-8, seeds: 4}
  - learner: classifier
    data: digits
    grid: {net.kind: [mlp, cnn, gru, transformer]}
    seeds: 4
"""
SCORES = {
    "ppo": {"name": "return", "direction": "max"},
    "gan": {"name": "quality", "direction": "max"},
    "classifier": {"name": "accuracy", "direction": "max"},
}
UNITS = {"ppo": "env_steps", "gan": "images", "classifier": "rows"}
BUDGETS = {"ppo": 100_000, "gan": 640_000, "classifier": 60_000}
CONFIGS: dict[str, dict[str, Any]] = {
    "ppo": {
        "env": "CartPole-v1",
        "steps": 100_000,
        "lr": 1e-3,
        "gamma": 0.99,
        "clip": 0.2,
        "net": {"width": 64, "depth": 2},
    },
    "gan": {"data": "ring-8", "lr": 2e-4, "betas": [0.0, 0.99], "r1": 0.1, "r2": 0.1},
    "classifier": {
        "data": "digits",
        "lr": 3e-3,
        "epochs": 40,
        "net": {"kind": "mlp", "width": 128},
        "weight_decay": 0.0,
    },
}


def make_root(root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes a run root with finished, failed, diverged, running and planned trials.

    Returns:
        (experiment, ledger rows).
    """
    rows = [_trial(root, "ppo", "ppo", seed) for seed in range(8)]
    rows += [_trial(root, "gan", "gan data=ring-8", seed) for seed in range(4)]
    rows += [_trial(root, "gan", "gan data=digits-8x8", seed) for seed in range(2)]
    for kind in ("mlp", "cnn", "gru", "transformer"):
        rows += [_trial(root, "classifier", f"classifier net.kind={kind}", seed) for seed in range(4)]
    _alter(root, rows[5], "running")
    _alter(root, rows[6], "diverged", "loss became NaN at 34000 env_steps")
    rows[6]["score"] = 0.0  # the learner's worst
    _alter(root, rows[-1], "failed", "RuntimeError: attention needs 1.2 GB, 0.9 GB are free")
    _alter(root, rows[-2], "planned")
    experiment = {
        "name": "synthetic",
        "state": "running",
        "started": 1_790_000_000.0,
        "finished": None,
        "text": FILE,
    }
    return experiment, rows


def _trial(root: Path, learner: str, label: str, seed: int) -> dict[str, Any]:
    identity = f"{abs(hash_text(label)) % 16**8:08x}{seed:08x}"
    rng = np.random.default_rng([hash_text(label), seed])
    folder = root / "trials" / identity
    (folder / "media").mkdir(parents=True)
    config = json.loads(json.dumps(CONFIGS[learner]))
    if "=" in label:
        name, value = label.split(" ")[1].split("=")
        (config["net"] if name == "net.kind" else config)[name.split(".")[-1]] = value
    budget = BUDGETS[learner]
    metrics = _metrics(learner, label, budget, rng)
    score = metrics[-1][f"eval/{SCORES[learner]['name']}"]
    cohort = {"id": f"c-{hash_text(label) % 10**6:06d}", "lanes": 8 if learner == "ppo" else 4, "lane": seed}
    cohort |= {
        "mode": "compiled" if learner == "ppo" else "eager",
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
    }
    seconds = metrics[-1]["seconds"]
    head = {
        "trial": identity,
        "learner": learner,
        "version": 1,
        "label": label,
        "seed": seed,
        "config": config,
    }
    resources = {"cpus": 1, "gpus": 0.0, "device": "auto", "mode": "auto", "lanes": 64}
    write(
        folder / "config.json",
        head | {"resources": resources, "unit": UNITS[learner], "score": SCORES[learner]},
    )
    _write_lines(folder, metrics)
    result = {"trial": identity, "state": "done", "reason": "the budget is spent", "progress": budget}
    result |= {
        "score": {"name": SCORES[learner]["name"], "value": score},
        "metrics": metrics[-1],
        "episodes": {},
    }
    result |= {"best": {"progress": budget, "metrics": metrics[-1]}, "seconds": seconds, "cohort": cohort}
    result |= {
        "versions": VERSIONS,
        "commit": "2eeee38c0ffee",
        "machine": MACHINE,
        "weights_sha256": "ab" * 32,
    }
    write(folder / "result.json", result)
    _media(folder / "media", learner, label, rng)
    row = {k: head[k] for k in ("learner", "version", "label", "seed", "config")} | {
        "id": identity,
        "entry": 0,
    }
    row |= {
        "resources": resources,
        "state": "done",
        "attempts": 1,
        "score_name": SCORES[learner]["name"],
        "score": score,
    }
    row |= {
        "reason": "the budget is spent",
        "cohort": cohort["id"],
        "lane": seed,
        "progress": budget,
        "budget": budget,
    }
    return row | {"unit": UNITS[learner], "seconds": seconds, "reused": False, "trained_by": "synthetic"}


def hash_text(value: str) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(value.encode()[-6:], "big")


def write(path: Path, value: Any) -> None:
    """Writes JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_lines(folder: Path, metrics: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics), encoding="utf-8")


def _metrics(learner: str, label: str, budget: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    points, rows = 50, []
    speed, top = 5 + 2 * rng.random(), {"mlp": 0.968, "cnn": 0.985, "gru": 0.961, "transformer": 0.957}
    ceiling = top.get(label.rpartition("=")[2], 0.97) + 0.006 * rng.standard_normal()
    for k in range(1, points + 1):
        t = k / points
        rise = 1 / (1 + np.exp(-speed * 2 * (t - 0.35)))
        row: dict[str, Any] = {
            "progress": budget * k // points,
            "seconds": round(2.4 * k * (1 + 0.1 * speed), 2),
        }
        if learner == "ppo":
            row |= {"return": 500 * rise * (1 + 0.05 * rng.standard_normal()), "kl": 0.02 * rng.random()}
            row |= {"policy_loss": -0.02 * rng.random(), "value_loss": 40 * (1 - t) + 4 * rng.random()}
            row |= {"entropy": 0.69 * (1 - 0.6 * t)}
        elif learner == "gan":
            row |= {
                "d_loss": 0.7 + 0.05 * rng.standard_normal(),
                "g_loss": 0.7 + 0.08 * rng.standard_normal(),
            }
        else:
            row |= {"loss": 2.3 * np.exp(-speed * t) + 0.02 * rng.random(), "lr": 3e-3 * (1 - t)}
        if k % 5 == 0:
            row |= _scores(learner, rise, ceiling, rng)
        rows.append({name: float(f"{v:.6g}") for name, v in row.items()} | {"progress": row["progress"]})
    return rows


def _scores(learner: str, rise: float, ceiling: float, rng: np.random.Generator) -> dict[str, float]:
    if learner == "ppo":
        return {"eval/return": min(500.0, 505 * rise + 6 * rng.standard_normal())}
    if learner == "gan":
        return {
            "eval/quality": 0.9 * rise + 0.02 * rng.random(),
            "eval/modes": float(min(8, 1 + int(8 * rise))),
        }
    share = 0.1 + (ceiling - 0.1) * rise**0.3
    return {
        "eval/accuracy": share,
        "eval/validation_accuracy": min(1.0, share + 0.004 * rng.standard_normal()),
    }


def _media(folder: Path, learner: str, label: str, rng: np.random.Generator) -> None:
    if label.endswith("ring-8"):
        data, reference = _ring(rng, 1500, 0.05), _ring(rng, 1500, 0.02)
        value = {"kind": "points", "data": data.tolist(), "reference": reference.tolist()}
        write(folder / "samples.json", value | {"caption": "samples over the data: eight Gaussians on a ring"})
    elif learner == "gan":
        for name in ("samples.png", "samples-reference.png"):
            Image.fromarray(_glyphs(rng)).save(folder / name)
        value = {"kind": "image", "caption": "generated digits beside scanned ones", "file": "samples.png"}
        write(folder / "samples.json", value | {"reference_file": "samples-reference.png"})
    elif learner == "classifier":
        counts = np.diag(rng.integers(33, 37, 10)) + (rng.random((10, 10)) < 0.06) * rng.integers(1, 3, (10, 10))
        value = {"kind": "matrix", "data": counts.tolist(), "labels": [str(k) for k in range(10)]}
        write(folder / "confusion.json", value | {"caption": "held-out fifth of the digits"})
    else:
        frames = np.zeros((40, 60, 90, 3), dtype=np.uint8)
        for k, x in enumerate(rng.integers(5, 75) + np.rint(4 * np.sin(np.arange(40) / 6)).astype(int)):
            frames[k, 20:50, x : x + 10] = (255, 200, 90)
        (folder / "episode.gif").write_bytes(gif(frames, 25.0))
        write(folder / "episode.json", {"kind": "video", "caption": "return 40 in 40 steps", "file": "episode.gif"})


def _ring(rng: np.random.Generator, n: int, spread: float) -> np.ndarray:
    angle = rng.integers(0, 8, n) * np.pi / 4
    return np.round(2 * np.stack([np.cos(angle), np.sin(angle)], 1) + spread * rng.standard_normal((n, 2)), 4)


def _glyphs(rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_digits  # real scanned digits, inside the package

    images = np.pad(load_digits().images[rng.integers(0, 1797, 64)], ((0, 0), (1, 1), (1, 1))).reshape(8, 8, 10, 10)
    return (255 * images.transpose(0, 2, 1, 3).reshape(80, 80) / 16).astype(np.uint8)


def _alter(root: Path, row: dict[str, Any], state: str, reason: str = "") -> None:
    folder = root / "trials" / row["id"]
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = {"planned": 0, "failed": 0, "running": 31, "diverged": 17}[state]
    row |= {"state": state, "reason": reason, "score": None, "progress": row["budget"] * kept // 50}
    if state == "diverged":
        result = json.loads((folder / "result.json").read_text())
        write(
            folder / "result.json",
            result | {"state": state, "reason": reason, "score": None, "progress": row["progress"]},
        )
    else:
        (folder / "result.json").unlink()
    for file in (folder / "media").glob("*") if state != "diverged" else ():
        file.unlink()
    (folder / "metrics.jsonl").write_text("".join(lines[:kept]))
    if state == "running":
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"progress": 64000, "sec')  # a line that is just being written
    if state == "failed":
        row["attempts"] = 3
        (folder / "traceback.txt").write_text(f"Traceback (most recent call last):\n  ...\n{reason}\n")
    if state == "planned":
        row |= {"cohort": None, "lane": None, "seconds": None, "attempts": 0}
        for file in (folder / "config.json", folder / "metrics.jsonl"):
            file.unlink()


if __name__ == "__main__":
    from harness.report import build_page

    here = Path(sys.argv[1])
    print(build_page(*make_root(here), here, here / "experiments" / "synthetic" / "page.html"))
