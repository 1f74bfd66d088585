"""docs/transfer.md: its experiment is sound, its files exist, and it names every way, model and pinned pickle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from harness.experiment import load_experiment
from supervised.finetune_config import RATES, Way
from supervised.finetune_models import ALIASES, PICKLES, find

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "transfer.md").read_text()
EVIDENCE = sorted((PROJECT / "experiments" / "evidence").glob("transfer-*.yaml"))


def test_every_file_it_names_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert len(links) >= 3
    for link in links:
        assert (PROJECT / "docs" / link).exists(), link


def test_it_names_every_way_and_model() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", PAGE, flags=re.M)) >= set(get_args(Way))
    assert set(RATES) == set(get_args(Way))
    assert all(f"| `{alias}` |" in PAGE for alias in ALIASES)
    assert all(sha256[:12] in PAGE for sha256 in PICKLES)


def test_its_experiments_are_sound(tmp_path: Path) -> None:
    for model in ALIASES:
        try:
            find(model)
        except ValueError as error:
            pytest.skip(f"{model}: {error}")
    pytest.importorskip("transformers", reason="needs the extra `pretrained`: make models")
    for i, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.S | re.M)):
        (tmp_path / f"{i}.yaml").write_text(text)
    for file in (*sorted(tmp_path.glob("*.yaml")), *EVIDENCE):
        assert load_experiment(file).trials
