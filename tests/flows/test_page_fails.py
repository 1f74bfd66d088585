"""A page that cannot be built costs one sentence, not the run's outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.steps import Options, Steps


def test_results_and_exit_status_outlive_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: object) -> Path:
        raise ValueError("cannot be drawn")

    monkeypatch.setattr("harness.report.build_page", broken)
    trial = {"learner": "function", "call": "tests.own_function:unstorable"}
    (tmp_path / "e.yaml").write_text(json.dumps({"name": "e", "trials": [trial]}))
    said: list[str] = []
    steps = Steps.load(tmp_path / "e.yaml", [], Options(str(tmp_path / "runs"), "inline", tracker="files"))
    steps.listeners.append(lambda event: said.append(event.get("text", "")))
    assert steps.rest() == 0
    assert steps.summarise()["trials"][0]["score"]["value"] == 2.0
    assert any(
        text.startswith("the page could not be written: ValueError: cannot be drawn; `seedbed report e`")
        for text in said
    )
