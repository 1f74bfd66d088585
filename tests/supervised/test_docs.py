"""The experiment files on the page about supervised learning, and those it names, are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.experiment import load_experiment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "supervised.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_the_pages_files_are_right(tmp_path: Path, text: str):
    (tmp_path / "e.yaml").write_text(text)
    assert load_experiment(tmp_path / "e.yaml").trials


def test_generators_of_the_experiment_have_seen_the_same_few_rows_as_their_classifiers():
    trials = {t.id: t for t in load_experiment(ROOT / "experiments" / "gan_augmentation.yaml").trials}
    taught = [t for t in trials.values() if t.config.get("synthetic_from")]
    assert len(taught) == 20
    for trial in taught:
        parent = trials[trial.config["synthetic_from"]]
        assert (parent.seed, parent.config["train_rows"]) == (trial.seed, trial.config["train_rows"])
