"""From the plain values of an experiment file to its trials: types, seeds x grid, identities and labels.

The learners (and torch) are imported only after the file itself is sound.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness.bounds import check_memory, too_large
from harness.data import DataError, card
from harness.spec import LearnerConfig, Resources, Trial, trial_id
from harness.spec_errors import Problems, nearest, validate
from harness.trial_labels import Variant, label_variants
from harness.yaml_lines import Path

__all__ = ["Entry", "ExperimentFile", "expand"]

MAX_TRIALS = 10_000
MAX_SEED = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{json.dumps(name[:80])} cannot name a folder; use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or a digit"
        )
    return name


def _check_seeds(seeds: int | list[int]) -> int | list[int]:
    if isinstance(seeds, int):
        if not 1 <= seeds <= MAX_TRIALS:
            raise ValueError(f"expected a count from 1 to {MAX_TRIALS:,} or a list of seeds, given {seeds}")
        return seeds
    if not seeds:
        raise ValueError("the list of seeds is empty; give at least one seed")
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"the seed {seed} is out of range; use 0 to 2**63 - 1")
    seed, times = Counter(seeds).most_common(1)[0]
    if times > 1:
        raise ValueError(f"the seed {seed} is listed {times} times; keep it once")
    return seeds


Seeds = Annotated[int | list[int], AfterValidator(_check_seeds)]


class ExperimentFile(BaseModel):
    """The top level of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_check_name)] = Field(
        description="the experiment's name: letters, digits, '.', '_' and '-'; also its folder and its W&B group"
    )
    seeds: Seeds = Field(1, description="how many seeds (0, 1, ...) or a list of them, for every entry without its own")
    trials: list[dict[str, Any]] = Field(min_length=1, description="the entries; each names a learner")


class Entry(BaseModel):
    """What every entry of `trials` may have; the rest of it is the learner's own configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learner: str = Field(description="the name of a registered learner")
    seeds: Seeds | None = Field(None, description="how many seeds (0, 1, ...) or a list of them, for this entry")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="field (dotted where nested) -> values to try; every combination is trained"
    )
    resources: Resources = Field(default_factory=Resources, description="where and how its trials are computed")


@dataclass
class _Checked:
    """A sound entry: the learner, its variants (one a grid point) and its seeds."""

    index: int
    entry: Entry
    learner: Any
    seeds: list[int]
    variants: list[Variant] = field(default_factory=list)


def expand(spec: dict[str, Any], problems: Problems) -> list[Trial]:
    """All trials of an experiment in the file's order: seeds change fastest, then the grid's last field.

    Args:
        spec: the file as plain values.
        problems: knows where every value stands.

    Raises:
        SpecError: anything is wrong.
    """
    head, found = validate(ExperimentFile, spec)
    for path, what in found:
        problems.add(path, what)
    raw = spec.get("trials")
    raw_entries = raw if isinstance(raw, list) else []
    entries = []
    for index, one in enumerate(raw_entries):
        if isinstance(one, dict) and not problems.full:
            entries.append(_entry(one, index, problems))
    problems.check()
    assert head is not None
    _check_count(head, [entry for entry in entries if entry], problems)
    checked = []
    for index, entry in enumerate(entries):
        if entry and not problems.full:
            checked.append(_checked(head, entry, index, raw_entries[index], problems))
    problems.check()
    trials: list[Trial] = []
    for one in _labelled([c for c in checked if c]):
        trials.extend(_trials(one, trials, problems))
    problems.check()
    _check_unique(trials, problems)
    problems.check()
    return trials


def _entry(raw: dict[str, Any], index: int, problems: Problems) -> Entry | None:
    entry, found = validate(Entry, {key: raw[key] for key in raw if key in Entry.model_fields})
    for path, what in found:
        problems.add(("trials", index, *path), what)
    for key, values in entry.grid.items() if entry else ():
        at: Path = ("trials", index, "grid", key)
        parts = key.split(".")
        if not values:
            problems.add(at, "the list is empty; give at least one value")
        if parts[0] in Entry.model_fields:
            problems.add(at, f"a grid varies the learner's own fields, not `{key}`; write a second entry")
        if _holds(raw, parts):
            problems.add(at, "set beside the grid too; keep one of them")
        if entry and any(".".join(parts[:n]) in entry.grid for n in range(1, len(parts))):
            problems.add(at, "another line of this grid sets the whole of it; keep one of them")
    return entry


def _holds(raw: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _seeds(head: ExperimentFile, entry: Entry) -> list[int]:
    seeds = head.seeds if entry.seeds is None else entry.seeds
    return list(range(seeds)) if isinstance(seeds, int) else seeds


def _check_count(head: ExperimentFile, entries: list[Entry], problems: Problems) -> None:
    """Before anything is expanded: a small file can ask for a great many trials."""
    total = sum(len(_seeds(head, e)) * math.prod(map(len, e.grid.values())) for e in entries)
    if total > MAX_TRIALS:
        problems.add(("trials",), f"{total:,} trials; an experiment has at most {MAX_TRIALS:,}, write several files")
        problems.check()


def _checked(
    head: ExperimentFile, entry: Entry, index: int, raw: dict[str, Any], problems: Problems
) -> _Checked | None:
    from harness.learner import learner_class, learner_names  # imports torch: only for a sound file

    try:
        learner = learner_class(entry.learner)
    except KeyError:
        problems.add(("trials", index, "learner"), nearest(entry.learner, learner_names(), "learner"))
        return None
    except (ImportError, AttributeError) as error:
        problems.add(("trials", index, "learner"), f"`{entry.learner}` cannot be loaded here: {error}")
        return None
    own = {key: value for key, value in raw.items() if key not in Entry.model_fields}
    checked = _Checked(index, entry, learner, _seeds(head, entry))
    for point in _grid_points(entry.grid):
        if problems.full:
            break
        config = _configure(learner.Config, own, point, index, entry, problems)
        if config is not None:
            _check_elsewhere(learner, config, index, problems)
            _check_workers(learner, config, entry, index, problems)
            varied = {key: entry.grid[key][choice] for key, choice in point.items()}
            checked.variants.append(Variant(entry.learner, index, config, varied, tuple(own)))
    return checked


def _check_elsewhere(learner: Any, config: LearnerConfig, index: int, problems: Problems) -> None:
    try:
        check_memory(config.held_bytes)
        learner.check(config)
    except (ValueError, DataError) as error:
        field, _, what = str(error).partition(": ")
        path: Path = ("trials", index, field) if field in type(config).model_fields else ("trials", index)
        problems.add(path, what if len(path) == 3 else str(error))


def _check_workers(learner: Any, config: LearnerConfig, entry: Entry, index: int, problems: Problems) -> None:
    """Several workers need a learner that can share its rows, and rows that divide."""
    workers, at = entry.resources.workers, ("trials", index, "resources", "workers")
    rows = learner.rows_to_share(config) if workers > 1 else workers
    if rows == 1 < workers:
        problems.add(at, f"`{entry.learner}` trains in one worker; leave it out")
    elif rows % workers:
        problems.add(at, f"{workers} workers cannot share {rows} rows of a batch equally; change one of the two")


def _grid_points(grid: dict[str, list[Any]]) -> Iterator[dict[str, int]]:
    """Every combination as key -> index of the value; the first key changes slowest."""
    for choice in itertools.product(*(range(len(values)) for values in grid.values())):
        yield dict(zip(grid, choice, strict=True))


def _configure(
    model: type[LearnerConfig],
    own: dict[str, Any],
    point: dict[str, int],
    index: int,
    entry: Entry,
    problems: Problems,
) -> LearnerConfig | None:
    """The typed configuration of one grid point; problems stand where the value was written: entry or grid."""
    values = json.loads(json.dumps(own))
    for key, choice in point.items():
        at = values
        *parents, leaf = key.split(".")
        for part in parents:
            at = at.setdefault(part, {}) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            problems.add(
                ("trials", index, "grid", key), f"`{'.'.join(parents)}` is a plain value; nothing is inside it"
            )
            return None
        at[leaf] = entry.grid[key][choice]
    absurd = list(too_large(values))  # before a network is built from them
    try:
        config, found = (None, absurd) if absurd else validate(model, values, also=tuple(Entry.model_fields))
    except DataError as error:  # a validator that looks into the data
        config, found = None, [((), str(error))]
    for path, what in found:
        problems.add(*_blame(path, what, point, index))
    return config


def _blame(path: Path, what: str, point: dict[str, int], index: int) -> tuple[Path, str]:
    """Where a problem of a grid point was written, the entry or its grid, and what to say there."""
    for key, choice in point.items():
        parts = tuple(key.split("."))
        if path[: len(parts)] == parts:
            rest = path[len(parts) :]
            known = rest or not what.startswith("unknown field")
            return ("trials", index, "grid", key, *((choice, *rest) if known else ())), what
        if path and parts[: len(path)] == path:
            here = ".".join(str(part) for part in path)
            return ("trials", index, "grid", key), what if what.startswith(
                "unknown"
            ) else f"`{here}` has no fields inside"
    return ("trials", index, *path), what


def _labelled(checked: list[_Checked]) -> list[tuple[_Checked, list[str]]]:
    labels = iter(label_variants([variant for one in checked for variant in one.variants]))
    return [(one, [next(labels) for _ in one.variants]) for one in checked]


def _trials(labelled: tuple[_Checked, list[str]], above: Sequence[Trial], problems: Problems) -> Iterator[Trial]:
    checked, labels = labelled
    for variant, label in zip(checked.variants, labels, strict=True):
        try:
            data = _data_hashes(variant.config.data_sets)
            parents = [_parents_of(variant.config, seed, above) for seed in checked.seeds]
        except (DataError, ValueError) as error:
            problems.add(("trials", checked.index), str(error))
            return
        for seed, found in zip(checked.seeds, parents, strict=True):
            resolved = variant.config.model_copy(update=found)
            config = resolved.model_dump(mode="json")
            key = trial_id(checked.entry.learner, checked.learner.version, config, seed, data)
            yield Trial(
                id=key,
                learner=checked.entry.learner,
                version=checked.learner.version,
                config=config,
                seed=seed,
                label=label,
                resources=checked.entry.resources,
                entry=checked.index,
                parents=resolved.parents,
            )


def _parents_of(config: LearnerConfig, seed: int, above: Sequence[Trial]) -> dict[str, str]:
    """Fields that name an entry above ("trials.0") with the id of its trial of the same seed, or of its only one.

    Raises:
        ValueError: no entry above has that place, or it holds several trials of that seed, or none, or one that cannot
            give what is needed.
    """
    found = {}
    for name in (n for n, value in config if isinstance(value, str) and value and value in config.parents):
        value = getattr(config, name)
        if not value.startswith("trials."):
            continue
        entry = [t for t in above if f"trials.{t.entry}" == value]
        same = [t for t in entry if t.seed == seed] if len(entry) > 1 else entry
        if len(same) != 1:
            what = f"{len(same)} trials of seed {seed}" if entry else "no trials above this entry"
            raise ValueError(f"{name}: {value} has {what}; name an entry above with one trial of every seed")
        config.check_parent(name, same[0])
        if name == "encoder_from":
            _check_encoder(config, same[0], value)
        found[name] = same[0].id
    return found


def _check_encoder(config: LearnerConfig, parent: Trial, value: str) -> None:
    """Refuses a parent whose encoder does not fit, as far as both configurations say what their networks are.

    Raises:
        ValueError: says what differs.
    """
    from harness.encoders import check_encoder
    from harness.learner import learner_class

    given = learner_class(parent.learner).Config.model_validate(parent.config).encoder_recipe
    if config.encoder_recipe is None or given is None:
        return
    try:
        check_encoder(config.encoder_recipe, given)
    except ValueError as error:
        raise ValueError(
            f"encoder_from: the encoder of {parent.label} ({value}) does not fit this network ({error}); give both the"
            " same fields of the encoder and rows of one shape"
        ) from None


def _data_hashes(names: Sequence[str]) -> dict[str, str]:
    return {name: card(name).sha256 for name in names}


def _check_unique(trials: list[Trial], problems: Problems) -> None:
    first: dict[str, Trial] = {}
    said: set[tuple[int, int]] = set()
    for trial in trials:
        other = first.setdefault(trial.id, trial)
        if other is trial or (other.entry, trial.entry) in said:
            continue
        said.add((other.entry, trial.entry))
        if other.entry == trial.entry:
            problems.add(
                ("trials", trial.entry, "grid"), f"gives `{trial.label}` twice; remove one of the equal values"
            )
        else:
            same = f"`{trial.label}` seed {trial.seed} is the same trial as `{other.label}` seed {other.seed}"
            problems.add(("trials", trial.entry), f"{same} of trials.{other.entry}; remove one of them")
