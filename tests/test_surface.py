"""The public surface: commands, options, configuration fields, keys on disk. It changes only on purpose.

After a wanted change: `python -m tests.test_surface` writes tests/surface.json anew; the diff is the review.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.driver import Driver
from harness.expansion import Entry, ExperimentFile
from harness.experiment import load_experiment
from harness.learner import BUILTIN, learner_class
from harness.spec import Resources

FILE = Path(__file__).with_name("surface.json")


def surface() -> dict[str, Any]:
    """What users and scripts rely on, apart from what only a run shows."""
    from flows.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {
        "commands": {n: sorted(o for p in c.params for o in p.opts) for n, c in sorted(commands.items())},
        "experiment": sorted(ExperimentFile.model_fields),
        "entry": sorted(Entry.model_fields),
        "resources": sorted(Resources.model_fields),
        "learners": {n: sorted(learner_class(n).Config.model_fields) for n in sorted(BUILTIN)},
        "per_lane": {n: sorted(learner_class(n).Config.per_lane_fields()) for n in sorted(BUILTIN)},
    }


def on_disk(folder: Path) -> dict[str, Any]:
    """Keys of the files that a run writes."""
    file = folder / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: toy, steps: 10}]\n")
    outcome = Driver(load_experiment(file), folder / "runs", executor="inline").train()
    trial = folder / "runs" / "trials" / outcome.trials[0]["id"]
    manifest = json.loads(max((folder / "runs").glob("cohorts/*/ckpt-*/manifest.json")).read_text())
    line = json.loads((trial / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "trial folder": sorted(p.name for p in trial.iterdir()),
        "config.json": sorted(json.loads((trial / "config.json").read_text())),
        "result.json": sorted(json.loads((trial / "result.json").read_text())),
        "metrics.jsonl": list(line),
        "manifest.json": sorted(manifest),
        "manifest.json meta": sorted(manifest["meta"]),
        "ledger trials": sorted(outcome.trials[0]),
    }


def test_the_surface_changes_only_on_purpose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")
    disk = on_disk(tmp_path)
    monkeypatch.undo()
    assert {**surface(), "disk": disk} == json.loads(FILE.read_text())


def test_every_field_of_a_configuration_is_described():
    for name in BUILTIN:
        for field, info in learner_class(name).Config.model_fields.items():
            assert info.description, f"{name}.{field}"
            assert "\n" not in info.description
    assert all(f.description for f in Resources.model_fields.values())
    assert len(fields(learner_class("ppo").score)) == 5


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        found = surface()
        BUILTIN["toy"] = "tests.toy:Toy"
        found["disk"] = on_disk(Path(name))
    FILE.write_text(json.dumps(found, indent=1) + "\n")
