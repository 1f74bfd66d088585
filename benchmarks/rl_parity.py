"""Our learners beside stable-baselines3's: reads what `seedbed run experiments/evidence/rl-parity.yaml` has trained.

`python -m benchmarks.rl_parity [--root runs] [--keep] [--json]` trains nothing and may be asked at any time: a line
whose trials are not all done is open, and says how many are. Trials count that the run root has, and those of
`benchmarks/kept/rl_parity.jsonl`, to which `--keep` adds the root's: so the lines grow over many nights and machines.
A result belongs to a trial's id, hence to its configuration, seed and learner version: what the file of today would not
train does not count.

For every algorithm and environment: interquartile means (IQM) over seeds of the last evaluation (`final`) and of the
mean over all evaluations (`area`, under the learning curve), their difference ours - SB3's with a 95 % percentile
bootstrap interval (both sides resampled, 20,000 times), and the verdict: the interval's lower end is at least -5 % of
(SB3 - random). The random policy's score is the table's of `agents.envs.scores`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.common import finish, note, parser
from harness.report.folders import read_metrics
from harness.spec import Trial
from harness.statistics import iqm

__all__ = ["Result", "Side", "difference", "line_of", "read_kept", "results_of", "sides_of", "write_kept"]

HERE = Path(__file__).parent
FILE, KEPT = HERE.parent / "experiments" / "evidence" / "rl-parity.yaml", HERE / "kept" / "rl_parity.jsonl"
MARGIN = 0.05
REPETITIONS = 20_000
# beside ours, for the reader: rl-baselines3-zoo's benchmark.md, mean over 150,000 steps of ONE trained agent
PUBLISHED = {
    ("ppo", "CartPole-v1"): 500.0,
    ("a2c", "CartPole-v1"): 500.0,
    ("ppo", "Acrobot-v1"): -73.5,
    ("dqn", "CartPole-v1"): 500.0,
    ("dqn", "MountainCar-v0"): -100.8,
    ("sac", "Pendulum-v1"): -157.0,
    ("td3", "Pendulum-v1"): -151.9,
    ("ppo", "LunarLander-v3"): 242.1,  # v2
    ("ppo", "Hopper-v5"): 2410.4,  # v3
    ("ppo", "Walker2d-v5"): 3478.8,  # v3
}


class Result(NamedTuple):
    """What a trial that has ended came to: score of its last evaluation, and the mean over all of them."""

    final: float
    area: float


@dataclass
class Side:
    """Seeds of one learner on one environment.

    Attributes:
        planned: how many there are to be.
        final: score of the last evaluation, one a seed that is done; a diverged one counts as the worst.
        area: mean over all evaluations, likewise.
        versions: of the learner.
    """

    planned: int = 0
    final: list[float] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)


def difference(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """(ours - theirs in IQM, lower and upper end of its 95 % bootstrap interval); both sides are resampled."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    drawn = [iqm(side[rng.integers(len(side), size=(REPETITIONS, len(side)))], axis=1) for side in (a, b)]
    low, high = np.quantile(drawn[0] - drawn[1], (0.025, 0.975))
    return float(iqm(a) - iqm(b)), float(low), float(high)


def line_of(ours: Side, theirs: Side, random: float) -> dict[str, Any]:
    """One line of the table.

    Args:
        ours: our seeds.
        theirs: SB3's.
        random: the random policy's score.
    """
    done = {"ours": f"{len(ours.final)} of {ours.planned}", "sb3": f"{len(theirs.final)} of {theirs.planned}"}
    line: dict[str, Any] = {**done, "versions": sorted(ours.versions), "random": random}
    if not ours.final or not theirs.final:
        return {**line, "verdict": "open"}
    passed = True
    for name in ("final", "area"):
        a, b = getattr(ours, name), getattr(theirs, name)
        middle, low, high = difference(a, b)
        least = -MARGIN * (float(iqm(b)) - random)
        passed &= low >= least
        line[name] = {
            "ours": float(iqm(a)), "sb3": float(iqm(b)), "difference": middle, "low": low, "high": high, "least": least
        }  # fmt: skip
    complete = len(ours.final) == ours.planned and len(theirs.final) == theirs.planned
    return {**line, "verdict": ("met" if passed else "missed") if complete else "open"}


def results_of(rows: Mapping[str, Mapping[str, Any]], root: Path) -> dict[str, Result]:
    """Trial id -> its result, for those of a ledger's rows that have ended; a diverged one has the worst score."""
    ended = [identity for identity, row in rows.items() if row["state"] in ("done", "diverged")]
    curves = {i: pd.DataFrame(read_metrics(root / "trials" / i / "metrics.jsonl"))["eval/return"] for i in ended}
    return {i: Result(float(rows[i]["score"]), float(curves[i].dropna().mean())) for i in ended}


def sides_of(planned: Iterable[Trial], found: Mapping[str, Result]) -> dict[tuple[str, str], dict[str, Side]]:
    """(algorithm, environment) -> {"ours", "sb3"}, for the trials of the experiment file."""
    sides: dict[tuple[str, str], dict[str, Side]] = {}
    for trial in planned:
        foreign = trial.learner == "sb3"
        key = (str(trial.config["algo"] if foreign else trial.learner).lower(), str(trial.config["env"]))
        side = sides.setdefault(key, {"ours": Side(), "sb3": Side()})["sb3" if foreign else "ours"]
        side.planned += 1
        if result := found.get(trial.id):
            side.final.append(result.final)
            side.area.append(result.area)
            side.versions.add(trial.version)
    return sides


def read_kept(file: Path) -> dict[str, Result]:
    """Trial id -> its result, of a file that `write_kept` wrote; a missing one holds none."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {line["trial"]: Result(line["final"], line["area"]) for line in map(json.loads, lines)}


def write_kept(file: Path, planned: Iterable[Trial], found: Mapping[str, Result]) -> None:
    """One line of JSON for every planned trial that has ended, in the experiment file's order."""
    file.parent.mkdir(exist_ok=True)
    lines = [
        {"trial": t.id, "label": t.label, "seed": t.seed, "version": t.version, **found[t.id]._asdict()}
        for t in planned
        if t.id in found
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def table(lines: Mapping[str, Mapping[str, Any]]) -> str:
    """The lines as a Markdown table."""
    both = "ours, SB3 | difference [95 %] (least)"
    rows = [f"| line | seeds: ours, SB3 | final: {both} | area: {both} | published | verdict |", "|---" * 8 + "|"]
    for name, line in lines.items():
        cells = [name, f"{line['ours']}, {line['sb3']}"]
        for part in ("final", "area"):
            if part in line:
                p = line[part]
                cells += [
                    f"{p['ours']:.1f}, {p['sb3']:.1f}",
                    f"{p['difference']:+.2f} [{p['low']:+.2f}, {p['high']:+.2f}] ({p['least']:+.2f})",
                ]
            else:
                cells += ["", ""]
        cells += [str(line["published"]), line["verdict"]]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table and its lines as JSON."""
    from agents.envs.scores import SCORES
    from harness.experiment import load_experiment
    from harness.ledger import Ledger

    options = parser("rl_parity", __doc__)
    options.add_argument("--root", default="runs", help="the run root")
    options.add_argument("--keep", action="store_true", help=f"add what it holds to {KEPT.relative_to(HERE.parent)}")
    args = options.parse_args()
    planned = load_experiment(FILE).trials
    found = read_kept(KEPT)
    root = Path(args.root)
    if (root / "ledger.sqlite").is_file():
        ledger = Ledger(root / "ledger.sqlite")
        found |= results_of(ledger.find({trial.id for trial in planned}), root)
        ledger.close()
    else:
        note(f"{root} is no run root: only {KEPT.relative_to(HERE.parent)} is read")
    if args.keep:
        write_kept(KEPT, planned, found)
    lines = {}
    for (algorithm, env), pair in sorted(sides_of(planned, found).items()):
        line = line_of(pair["ours"], pair["sb3"], SCORES[env].random)
        lines[f"{algorithm} {env}"] = {**line, "published": PUBLISHED.get((algorithm, env))}
    note(table(lines))
    met = sum(line["verdict"] == "met" for line in lines.values())
    finish("rl_parity", {"lines_met": met, "lines": len(lines)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
