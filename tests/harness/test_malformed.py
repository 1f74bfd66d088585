"""Experiment files that are wrong: each gives one clear error, exit 2, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from harness.experiment import SpecError, load_experiment

FOLDER = Path(__file__).parents[1] / "malformed"

# file -> the line it must name (0: the whole file), and words of the message
EXPECTED: dict[str, tuple[int, str]] = {
    "alias_bomb": (4, "aliases counted"),
    "alias_of_itself": (4, "stands for itself"),
    "alias_unknown": (2, "`*many` has no anchor"),
    "bidirectional_text": (4, "trials.0.data: the text holds the invisible character U+202E"),
    "binary_junk": (1, "not UTF-8"),
    "bool_for_number": (4, "trials.0.epochs: expected an integer, given true"),
    "colon_twice": (3, "not YAML"),
    "control_character": (1, "U+0007"),
    "duplicate_entries": (5, "is the same trial as `classifier` seed 0 of trials.0"),
    "duplicate_key": (5, "duplicate key `epochs` (first on line 4)"),
    "duplicate_seeds": (4, "trials.0.seeds: the seed 3 is listed 2 times"),
    "empty": (0, "the file is empty"),
    "empty_comments": (0, "the file is empty"),
    "empty_trials": (2, "trials: the list is empty"),
    "entry_is_text": (3, 'trials.0: expected a mapping, given "classifier"'),
    "float_seeds": (4, "trials.0.seeds: expected an integer or a list, given 1.5"),
    "grid_bad_value": (5, 'trials.0.grid.epochs.1: expected an integer, given "many"'),
    "grid_beside_field": (5, "trials.0.grid.epochs: set beside the grid too"),
    "grid_empty_list": (4, "trials.0.grid.epochs: the list is empty"),
    "grid_inside_number": (4, "trials.0.grid.epochs.first: `epochs` has no fields inside"),
    "grid_is_list": (4, "trials.0.grid: expected a mapping"),
    "grid_not_list": (4, "trials.0.grid.epochs: expected a list, given 3"),
    "grid_of_seeds": (4, "a grid varies the learner's own fields, not `seeds`"),
    "grid_overlap": (6, "trials.0.grid.net.kind: another line of this grid sets the whole of it"),
    "grid_repeats": (4, "trials.0.grid: gives `classifier lr=0.001` twice"),
    "grid_too_large": (2, "27,000 trials; an experiment has at most 10,000"),
    "grid_unknown_field": (4, "trials.0.grid.epoch: unknown field `epoch`; did you mean `epochs`?"),
    "huge_integer": (4, "trials.0.epochs: the integer `123456789012345678901234567890` does not fit"),
    "huge_seed_count": (4, "expected a count from 1 to 10,000 or a list of seeds"),
    "infinite_number": (4, "trials.0.lr: `.inf` is not a finite number"),
    "key_is_list": (2, "a key must be plain text"),
    "latin_1": (2, "not UTF-8"),
    "learner_is_list": (3, "trials.0.learner: expected text"),
    "list_for_number": (4, "trials.0.lr: expected a number, given [0.001, 0.0001]"),
    "missing_learner": (3, "trials.0.learner: is missing"),
    "missing_name": (1, "name: is missing"),
    "missing_trials": (1, "trials: is missing"),
    "name_dots": (1, 'name: ".." cannot name a folder'),
    "name_empty": (1, 'name: "" cannot name a folder'),
    "name_hidden": (1, 'name: ".ssh" cannot name a folder'),
    "name_number": (1, "name: expected text, given 2026"),
    "name_slash": (1, "cannot name a folder"),
    "name_too_long": (1, "use 1 to 64 letters"),
    "nan": (4, "trials.0.lr: `.nan` is not a finite number"),
    "negative_budget": (4, "trials.0.epochs: expected greater than or equal to 1, given -5"),
    "negative_seed": (4, "the seed -1 is out of range"),
    "nested_too_deep": (2, "nested deeper than 50 levels"),
    "nested_unknown": (4, "trials.0.net.kidn: unknown field `kidn`; did you mean `kind`?"),
    "nested_wrong_choice": (4, "trials.0.net.kind: unknown kind `resnett`; did you mean `resnet`?"),
    "not_yaml": (2, "not YAML"),
    "nul_byte": (3, "U+0000"),
    "number_in_quotes": (4, 'trials.0.lr: expected a number, given "1e-3"; remove the quotes'),
    "out_of_range": (4, "trials.0.label_smoothing: expected less than or equal to 1, given 1.5"),
    "overflowing_number": (4, "trials.0.lr: `1e999` is too large"),
    "python_tag": (1, "is not known here; remove it"),
    "resources_device": (4, 'trials.0.resources.device: does not fit, given "tpu"'),
    "resources_unknown": (4, "unknown field `cpu`; did you mean `cpus`?"),
    "resources_zero": (4, "trials.0.resources.cpus: expected greater than or equal to 1"),
    "seeds_empty": (4, "trials.0.seeds: the list of seeds is empty"),
    "seeds_text": (2, 'seeds: expected an integer or a list, given "eight"'),
    "seeds_zero": (4, "trials.0.seeds: expected a count from 1 to 10,000"),
    "tab_indentation": (3, "a tab where YAML needs spaces"),
    "text_for_number": (4, 'trials.0.epochs: expected an integer, given "many" (epochs: passes'),
    "three_mistakes": (2, "seed: unknown field `seed`; did you mean `seeds`?"),
    "top_level_list": (1, "expected a mapping with `name` and `trials`"),
    "top_level_text": (1, "expected a mapping with `name` and `trials`"),
    "trials_is_mapping": (2, "trials: expected a list"),
    "two_documents": (5, "a second document begins here"),
    "unclosed_quote": (4, "not YAML"),
    "unknown_data": (4, "trials.0.data: no data set is called 'imagenet'; there are "),
    "unknown_field": (4, "trials.0.epocs: unknown field `epocs`; did you mean `epochs`?"),
    "unknown_learner": (3, "trials.0.learner: unknown learner `clasifier`; did you mean `classifier`?"),
    "unknown_top_field": (1, "trails: unknown field `trails`; did you mean `trials`?"),
}


def test_every_file_has_its_expectation() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(EXPECTED)
    assert len(EXPECTED) >= 30


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_malformed_file(name: str) -> None:
    file = FOLDER / f"{name}.yaml"
    line, words = EXPECTED[name]
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        load_experiment(file)
    assert time.perf_counter() - start < 5, "the first file also imports torch; none may take longer"
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: " if line else f"{file}: ")
    assert words in message
    assert len(message.splitlines()) <= 11
    assert "Traceback" not in message


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        load_experiment(FOLDER / "three_mistakes.yaml")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "seed",
        "trials.0.seeds",
        "trials.1.learner",
    ]


def said(text: str) -> str:
    """What a terminal of any width shows, without line breaks and blanks."""
    return "".join(text.split())


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_command_says_it_and_exits_with_2(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [command, str(FOLDER / f"{name}.yaml"), "--root", str(tmp_path / "runs")])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert said(EXPECTED[name][1]) in said(done.output)
    assert list(tmp_path.iterdir()) == [], "nothing may be written"


def test_the_real_command_ends_the_same_way(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(FOLDER / "unknown_field.yaml")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert said("did you mean `epochs`?") in said(done.stderr)
    assert list(tmp_path.iterdir()) == []
