"""Trials as data: a learner's typed configuration, its seed and the identity that follows from them.

A run is data: frozen, typed, and equal runs have equal ids. This module needs pydantic and nothing of torch, so that
`seedbed plan` stays quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "LearnerConfig",
    "PerLane",
    "PerLaneFloat",
    "Recipe",
    "Resources",
    "Score",
    "SyntheticConfig",
    "TransferConfig",
    "Trial",
    "canonical",
    "trial_id",
]


class Recipe(NamedTuple):
    """What `nets.registry.build` makes a network of.

    Attributes:
        fields: of the block, its `kind` among them.
        input_shape: of one row.
        output: how many outputs, or a head's fields.
    """

    fields: Mapping[str, Any]
    input_shape: tuple[int, ...]
    output: Any


@dataclass(frozen=True)
class PerLane:
    """Marks a configuration field that may differ between the lanes of one cohort (it becomes a tensor [K])."""


PerLaneFloat = Annotated[float, PerLane()]


class Resources(BaseModel):
    """Where and how a trial is computed: never part of its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int = Field(1, ge=1, le=4096, description="CPU threads of the worker that trains the cohort")
    gpus: float = Field(0.0, ge=0, le=64, description="GPUs of the worker; a fraction shares one")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:([0-9]|[1-5][0-9]|6[0-3]))?)$",
        description="auto, cpu, cuda or cuda:INDEX, an index of 0 to 63",
    )
    mode: Literal["auto", "eager", "compiled", "loop"] = Field(
        "auto", description="how lanes are executed: vmapped eagerly, vmapped and compiled, or one after another"
    )
    lanes: int = Field(64, ge=1, le=10_000, description="largest number of lanes in one cohort")
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="workers that train a cohort together, each on its part of every batch, each with its own"
        " cpus and gpus; needs Ray",
    )


class LearnerConfig(BaseModel):
    """What every learner's configuration has; a learner adds its own fields, one line of description each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report_every: int = Field(0, ge=0, description="progress between two reports; 0 is a fiftieth of the budget")
    evaluate_every: int = Field(0, ge=0, description="progress between two evaluations; 0 is a tenth of the budget")
    checkpoint_every: int = Field(0, ge=0, description="progress between two checkpoints; 0 is a tenth of the budget")

    @property
    def budget(self) -> int:
        """How far a trial trains, in the learner's unit of progress."""
        raise NotImplementedError

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets (harness.data) whose sha256 is part of the trial's identity."""
        return ()

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the trials that must be done before this one starts."""
        return ()

    @property
    def held_bytes(self) -> dict[str, int]:
        """Fields that decide how much a trial holds beside its networks, with a lower bound in bytes for each."""
        return {}

    @property
    def seconds_per_progress(self) -> float:
        """A rough cost of one unit of progress of one lane on one CPU, for plans before anything was measured."""
        return 1e-4

    @property
    def encoder_recipe(self) -> Recipe | None:
        """The network that hands on its encoder, or takes another's; None where it is known in training only."""
        return None

    def check_parent(self, field: str, parent: Trial) -> None:
        """Refuses a trial of the same file that a field names as a parent but that cannot give what is needed.

        Raises:
            ValueError: says what the parent lacks.
        """

    @classmethod
    def per_lane_fields(cls) -> tuple[str, ...]:
        """Names of the fields marked PerLane."""
        return tuple(
            name for name, info in cls.model_fields.items() if any(isinstance(m, PerLane) for m in info.metadata)
        )


PARENT = r"^(|[0-9a-f]{16}|trials\.\d+)$"


class TransferConfig(LearnerConfig):
    """A learner whose network may start from the encoder of another trial, of whatever family."""

    encoder_from: Annotated[str, PerLane()] = Field(
        "",
        pattern=PARENT,
        description="trial whose encoder the network starts from: its id, or trials.N, an entry above in the same file"
        " (the trial of the same seed)",
    )
    freeze_encoder: bool = Field(False, description="whether the encoder stays as it starts; only the rest is trained")

    @property
    def parents(self) -> tuple[str, ...]:
        """The trial that gives the encoder."""
        return (*super().parents, self.encoder_from) if self.encoder_from else super().parents


class SyntheticConfig(LearnerConfig):
    """A learner that may learn from rows which another trial's generator makes, beside real ones."""

    synthetic_from: Annotated[str, PerLane()] = Field(
        "",
        pattern=PARENT,
        description="trial whose conditional generator makes rows beside the real ones: its id, or trials.N, an entry"
        " above in the same file (the trial of the same seed)",
    )
    synthetic_share: float = Field(
        0.5, gt=0, le=1, description="share of every batch that is generated, where `synthetic_from` names a trial"
    )

    @property
    def parents(self) -> tuple[str, ...]:
        """The trial that gives the generator, and others."""
        return (*super().parents, self.synthetic_from) if self.synthetic_from else super().parents


@dataclass(frozen=True)
class Score:
    """The headline metric of a learner.

    Attributes:
        name: key of `evaluate`'s result.
        direction: "max" or "min".
        worst: what a diverged trial counts as.
        select: metric by whose best value the best network is kept and the score is read (e.g. validation
            accuracy); None reads the score at the last evaluation.
        select_direction: direction of `select`.
    """

    name: str
    direction: Literal["max", "min"]
    worst: float
    select: str | None = None
    select_direction: Literal["max", "min"] = "max"


@dataclass(frozen=True)
class Trial:
    """One learner, one fully resolved configuration, one seed."""

    id: str
    learner: str
    version: int
    config: dict[str, Any]  # fully resolved, JSON values only
    seed: int
    label: str  # short, for people: the learner and what the grid varies, e.g. "classifier net.kind=cnn"
    resources: Resources = field(default_factory=Resources)
    entry: int = 0  # index in the experiment file's `trials`
    parents: tuple[str, ...] = ()  # trials that must be done before this one starts


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def trial_id(learner: str, version: int, config: dict[str, Any], seed: int, data: dict[str, str]) -> str:
    """A trial's identity: the first 16 hex digits of the sha256 over what decides its numbers.

    Args:
        learner: registered name.
        version: the learner's version, raised when its numbers change.
        config: fully resolved configuration without budget-free fields (resources, names).
        seed: the trial's seed.
        data: data set name -> sha256.
    """
    key = {"learner": learner, "version": version, "config": config, "seed": seed, "data": data}
    return hashlib.sha256(canonical(key).encode()).hexdigest()[:16]
