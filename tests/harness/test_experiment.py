"""Experiment files: what they become, what overrides do, and that no text at all leads to anything but a SpecError."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from harness import learner as learners
from harness.experiment import Experiment, SpecError, load_experiment
from harness.learner import Learner
from harness.spec import LearnerConfig, PerLaneFloat, Score, Trial, trial_id

FILE = """\
name: small
seeds: 2
trials:
  - learner: fitter           # a comment
    lr: 1e-3
    steps: 100_000
    resources: {cpus: 2}
  - learner: fitter
    task: cubic
    grid: {net.kind: [wide, deep], lr: [0.1, 1]}
    seeds: [7, 3]
"""


class Net(BaseModel):
    """A nested part of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wide", "deep"] = Field("wide", description="shape of the network")
    widths: tuple[int, ...] = Field((8, 8), description="widths of the layers")


class FitterConfig(LearnerConfig):
    """Configuration of a learner that only this file knows."""

    task: str = Field("square", description="what is fitted")
    data: str = Field("", description="data set, if any")
    steps: int = Field(1000, ge=1, description="updates")
    lr: PerLaneFloat = Field(0.01, gt=0, description="learning rate")
    exact: bool = Field(False, description="whether to be exact")
    net: Net = Field(default_factory=Net, description="the network")

    @property
    def budget(self) -> int:
        return self.steps

    @property
    def data_sets(self) -> tuple[str, ...]:
        return (self.data,) if self.data else ()


class Fitter(Learner):
    """A learner that is never started."""

    Config = FitterConfig
    unit = "steps"
    score = Score("loss", "min", worst=1e9)


@pytest.fixture(autouse=True)
def fitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.BUILTIN, "fitter", f"{__name__}:Fitter")


def load(folder: Path, text: str, *overrides: str) -> Experiment:
    file = folder / "file.yaml"
    file.write_text(text)
    return load_experiment(file, overrides)


def error(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(folder, text, *overrides)
    return str(caught.value).replace(str(folder / "file.yaml"), "FILE")


def entry(**fields: Any) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in fields.items())
    return f"name: small\ntrials:\n  - learner: fitter\n{lines}"


def test_seeds_and_grid_are_expanded_in_order(tmp_path: Path) -> None:
    experiment = load(tmp_path, FILE)
    assert experiment.name == "small"
    assert experiment.text == FILE
    got = [(t.entry, t.config["net"]["kind"], t.config["lr"], t.seed) for t in experiment.trials]
    first = [(0, "wide", 0.001, 0), (0, "wide", 0.001, 1)]
    grid = [(1, kind, lr, seed) for kind in ("wide", "deep") for lr in (0.1, 1.0) for seed in (7, 3)]
    assert got == first + grid


def test_values_are_typed_and_complete(tmp_path: Path) -> None:
    trial = load(tmp_path, FILE).trials[0]
    assert trial.config == {
        "report_every": 0,
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "task": "square",
        "data": "",
        "steps": 100_000,
        "lr": 0.001,
        "exact": False,
        "net": {"kind": "wide", "widths": [8, 8]},
    }
    assert trial.resources.cpus == 2
    assert trial.id == trial_id("fitter", 1, trial.config, 0, {})


def test_lists_behind_validators_of_ours_are_lists(tmp_path: Path) -> None:
    """A network's widths and an agent's wrappers: pydantic's strict mode would take only tuples there."""
    net = "{kind: mlp, hidden_features: [8, 9]}"
    text = f"name: x\ntrials: [{{learner: ppo, wrappers: [normalise-rewards], net: {net}}}]\n"
    (trial,) = load(tmp_path, text).trials
    assert trial.config["net"]["hidden_features"] == [8, 9]
    assert trial.config["wrappers"] == ["normalise-rewards"]


def test_labels_say_what_differs(tmp_path: Path) -> None:
    labels = list(dict.fromkeys(t.label for t in load(tmp_path, FILE).trials))
    assert labels == [
        "fitter",
        "fitter net.kind=wide lr=0.1",
        "fitter net.kind=wide lr=1",
        "fitter net.kind=deep lr=0.1",
        "fitter net.kind=deep lr=1",
    ]


def test_labels_name_the_data_where_entries_differ_in_it(tmp_path: Path) -> None:
    text = "name: s\ntrials:\n- {learner: fitter, data: digits}\n- {learner: fitter, data: ring-8, lr: 1}\n"
    assert [t.label for t in load(tmp_path, text).trials] == ["fitter digits", "fitter ring-8"]


def test_labels_name_other_fields_where_nothing_else_tells_entries_apart(tmp_path: Path) -> None:
    entries = ("steps: 5", "steps: 6", "steps: 6, seeds: [9]")
    text = "name: s\ntrials:\n" + "".join(f"- {{learner: fitter, {fields}}}\n" for fields in entries)
    assert [t.label for t in load(tmp_path, text).trials] == ["fitter steps=5", "fitter steps=6", "fitter steps=6"]


def test_labels_name_networks_by_their_kind_and_by_what_differs_within_it(tmp_path: Path) -> None:
    text = """name: s
trials:
- learner: classifier
  grid:
    lr: [0.1, 0.2]
    net: [{kind: mlp}, {kind: gru, depth: 2}, {kind: gru, hidden_features: 8, depth: 2}]
"""
    labels = list(dict.fromkeys(t.label for t in load(tmp_path, text).trials))
    nets = ("net=mlp", "net=gru", "net=gru hidden_features=8")
    assert labels == [f"classifier lr={lr} {net}" for lr in (0.1, 0.2) for net in nets]


def test_labels_name_as_few_fields_as_tell_entries_apart(tmp_path: Path) -> None:
    def labels(*entries: str) -> list[str]:
        text = "name: s\ntrials:\n" + "".join(f"- {{learner: classifier, {fields}}}\n" for fields in entries)
        return [t.label.removeprefix("classifier ") for t in load(tmp_path, text).trials]

    assert labels("net: {kind: mlp}, lr: 0.1", "net: {kind: cnn}, lr: 0.2, clip: 1") == ["net=mlp", "net=cnn"]
    assert labels("net: {kind: mlp}, optimiser: sgd", "net: {kind: cnn}, optimiser: sgd", "net: {kind: mlp}") == [
        "net=mlp optimiser=sgd",
        "net=cnn optimiser=sgd",
        "net=mlp optimiser=adamw",
    ]
    assert labels("net: {kind: mlp, depth: 1}", "net: {kind: mlp, depth: 2}") == ["net=mlp depth=1", "net=mlp depth=2"]
    assert labels("lr: 0.1, clip: 1, batch: 8", "lr: 0.2, clip: 1, batch: 8", "lr: 0.1, clip: 2, batch: 8") == [
        "lr=0.1 clip=1.0",
        "lr=0.2 clip=1.0",
        "lr=0.1 clip=2.0",
    ]


def test_labels_never_stand_for_two_configurations(tmp_path: Path) -> None:
    long = "x" * 100
    text = f"name: s\ntrials:\n- {{learner: fitter, task: {long}a}}\n- {{learner: fitter, task: {long}b}}\n"
    labels = [t.label for t in load(tmp_path, text).trials]
    assert len(set(labels)) == 2


def test_identity_leaves_resources_names_and_spelling_out(tmp_path: Path) -> None:
    plain = load(tmp_path, entry(lr="0.5")).trials[0].id
    assert load(tmp_path, entry(lr="5e-1", resources="{cpus: 3}")).trials[0].id == plain
    assert load(tmp_path, entry(lr="0.5", steps="1_000").replace("small", "other")).trials[0].id == plain
    assert load(tmp_path, entry(lr="0.5", steps="1001")).trials[0].id != plain
    assert load(tmp_path, entry(lr="0.5", seeds="[1]")).trials[0].id != plain


def test_identity_holds_the_data(tmp_path: Path) -> None:
    from harness.data import card

    trial = load(tmp_path, entry(data="ring-8")).trials[0]
    assert trial.id == trial_id("fitter", 1, trial.config, 0, {"ring-8": card("ring-8").sha256})
    assert "trials.0: no data set is called 'ring-9'" in error(tmp_path, entry(data="ring-9"))


def test_an_integer_may_be_written_as_1e5(tmp_path: Path) -> None:
    trial = load(tmp_path, entry(steps="1e5", net="{widths: [1e2, 3]}")).trials[0]
    assert trial.config["steps"] == 100_000
    assert trial.config["net"]["widths"] == [100, 3]
    assert "expected an integer, given 1.5" in error(tmp_path, entry(steps="1.5"))


def test_anchors_can_be_reused(tmp_path: Path) -> None:
    text = "name: s\ntrials:\n- {learner: fitter, net: &n {kind: deep}}\n- {learner: fitter, net: *n, lr: 1}\n"
    assert [t.config["net"]["kind"] for t in load(tmp_path, text).trials] == ["deep", "deep"]


@pytest.mark.parametrize(
    ("override", "index", "name", "value"),
    [
        ("trials.0.lr=1e-2", 0, "lr", 0.01),
        ("trials.0.exact=true", 0, "exact", True),
        ("trials.0.net={kind: deep}", 0, "net", {"kind": "deep", "widths": [8, 8]}),
        ("trials.0.net.widths=[4]", 0, "net", {"kind": "wide", "widths": [4]}),
        ("trials.1.grid.net.kind=[deep]", 2, "net", {"kind": "deep", "widths": [8, 8]}),
        ("trials.0.task=a=b", 0, "task", "a=b"),
    ],
)
def test_overrides(tmp_path: Path, override: str, index: int, name: str, value: Any) -> None:
    assert load(tmp_path, FILE, override).trials[index].config[name] == value


def test_what_is_kept_of_an_overridden_file_gives_the_same_trials(tmp_path: Path) -> None:
    overrides = ("trials.0.lr=1e-7", "seeds=[4]", "trials.0.task='no: yes'", "name=other")
    experiment = load(tmp_path, FILE, *overrides)
    again = load(tmp_path, experiment.text)
    assert again.trials == experiment.trials
    assert (again.name, again.spec) == ("other", experiment.spec)
    assert "--set trials.0.lr=1e-7" in experiment.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trials.0.stpes=3", "--set trials.0.stpes=3: trials.0.stpes: unknown field `stpes`; did you mean `steps`?"),
        ("trials.0.steps=x", "--set trials.0.steps=x: trials.0.steps: expected an integer"),
        ("trials.0.nett.kind=deep", "unknown field `nett`; did you mean `net`?"),
        ("trials.2.lr=1", "--set trials.2.lr=1: `trials` has the entries 0 to 1, not `2`"),
        ("trials.first.lr=1", "`trials` has the entries 0 to 1, not `first`"),
        ("trials.0.lr.x=1", "`trials.0.lr` is a plain value; nothing is inside it"),
        ("trails.0.lr=1", "unknown field `trails`; did you mean `trials`?"),
        ("trials.1.lr=3", "FILE:10: trials.1.grid.lr: set beside the grid too; keep one of them"),
        ("trials.0.lr", "write PATH=VALUE"),
        ("trials..lr=1", "write PATH=VALUE"),
        ("=1", "write PATH=VALUE"),
        ("trials.0.lr=[1", "--set trials.0.lr=[1: not YAML"),
        ("trials.0.lr=.nan", "`.nan` is not a finite number"),
        ("trials.0.lr=", "trials.0.lr: expected a number, given null"),
        ("name=../x", "cannot name a folder"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    assert message in error(tmp_path, FILE, override)


def test_at_most_ten_problems_are_told(tmp_path: Path) -> None:
    lines = error(tmp_path, entry(**{f"unknown_{i}": i for i in range(30)})).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and more"


def test_a_learner_that_cannot_be_imported_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.BUILTIN, "absent", "no_such_package:Learner")
    assert "FILE:3: trials.0.learner: `absent` cannot be loaded here" in error(
        tmp_path, entry().replace("fitter", "absent")
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent.yaml", "there is no such file"), (".", "is a folder"), ("a\0b", "no such file|cannot be read")],
)
def test_paths_that_are_no_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load_experiment(tmp_path / name)


def test_large_files_are_refused(tmp_path: Path) -> None:
    assert "larger than 1,000,000 bytes" in error(tmp_path, FILE + "# comment\n" * 100_000)


def test_yaml_mistakes_are_found_without_torch(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: small\ntrials:\n  - learner: ppo\n    seeds: many\n")
    code = (
        "import sys\nfrom harness.experiment import SpecError, load_experiment\n"
        f"try: load_experiment({str(tmp_path / 'bad.yaml')!r})\n"
        "except SpecError: sys.exit(3 + ('torch' in sys.modules))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 3


def test_the_ready_made_files_are_sound() -> None:
    from harness.learner import learner_names

    files = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
    assert files
    for file in files:
        experiment = load_experiment(file)
        assert {t.learner for t in experiment.trials} <= set(learner_names())


# No text leads to anything but an Experiment or a SpecError.

SNIPPETS = st.sampled_from(
    (
        *("\t", "\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "'", '"', "|", ">", "!!int ", "!x ", "%", "---\n"),
        *("? ", "#", "1e999", ".nan", "0x", "null", "~", "\x00", "\x85", "\u202e", "\ud7ff", "9" * 50, "<<: "),
        *("trials:", "  ", "grid"),
    )
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = FILE
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 12))
        put = draw(st.one_of(SNIPPETS, st.text(max_size=5)))
        text = text[:at] + put + text[at + cut :]
    return text


def outcome(file: Path, *overrides: str) -> tuple[str, list[Trial]]:
    """The message of the SpecError, or the trials; any other exception fails the test."""
    try:
        return "", load_experiment(file, overrides).trials
    except SpecError as problem:
        return str(problem), []


def sound_or_spec_error(folder: Path, data: bytes) -> None:
    file = folder / "fuzzed.yaml"
    file.write_bytes(data)
    start = time.process_time()
    message, trials = outcome(file)
    assert time.process_time() - start < 1
    assert message.startswith(str(file)) if message else len({trial.id for trial in trials}) == len(trials) > 0


fuzz = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@fuzz
@given(mutated())
@example("!" * 9_999)
@example("[" * 900_000)
@example("- a\n" * 19_999)
@example("a\n" * 400_000)
@example("%A\n" * 19_999)
@example("{a: " * 2_400)
@example(FILE.replace("seeds: 2", "seeds: 4_990"))
def test_mutated_files(tmp_path: Path, text: str) -> None:
    sound_or_spec_error(tmp_path, text.encode("utf-8", "surrogatepass"))


@fuzz
@given(st.binary(max_size=200))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    sound_or_spec_error(tmp_path, data)


@fuzz
@given(
    st.sampled_from(
        ["lr", "steps", "net", "net.kind", "grid", "grid.lr", "seeds", "resources", "", "learner", "x.y.z"]
    ),
    st.text(max_size=20),
)
def test_random_overrides(tmp_path: Path, field: str, value: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(FILE)
    message, trials = outcome(file, f"trials.0.{field}={value}")
    assert bool(message) != bool(trials)


def test_lists_inside_a_network_are_taken(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: classifier, net: {kind: mlp, hidden_features: [8, 4]}}]")
    (trial,) = load_experiment(file).trials
    assert trial.config["net"]["hidden_features"] == [8, 4]
