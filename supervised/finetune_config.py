"""What learners with a pretrained network are told: the model, the data, what is trained and how fast."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from harness import data
from harness.data import check_few
from harness.spec import LearnerConfig
from supervised.finetune_models import GET, Source, check_reads, find

__all__ = ["FROZEN", "RANDOM", "FinetuneConfig", "PretrainedConfig"]

TASKS = {"pairs": "texts", "tokens": "language", "images": "images"}  # by the kind of data
FROZEN = ("head", "random")  # the trunk is never trained
RANDOM = ("scratch", "random")  # the trunk's own weights are not read
RATES = {"full": 2e-4, "layerwise": 4e-4, "gradual": 2e-4, "lora": 5e-4, "scratch": 3e-4, "head": 0.0, "random": 0.0}
READERS = {  # packages by the kind of a model's source
    "folder": ("transformers",),
    "gguf": ("transformers", "gguf", "accelerate"),
    "efficientnet": ("efficientnet_lite_pytorch",),
}

Way = Literal["full", "head", "layerwise", "gradual", "lora", "scratch", "random"]


class PretrainedConfig(LearnerConfig):
    """A pretrained network, and how it is trained further."""

    model: str = Field(
        "minilm",
        validate_default=True,
        description="minilm, smollm2, efficientnet-lite0, a folder as Hugging Face lays it out, or a package that ships"
        " one",
    )
    weights: str = Field(
        default_factory=lambda given: find(given["model"]).sha256 if "model" in given else "",
        description="sha256 of the model's weights; filled in, and refused where the files are others",
    )
    way: Way = Field("full", description="what is trained: see the learner's heading")
    updates: int = Field(96, ge=1, description="steps of the optimiser")
    batch: int = Field(16, ge=1, description="rows of one update")
    lr: float = Field(
        default_factory=lambda given: RATES.get(given.get("way", ""), 0.0),
        ge=0,
        description="peak learning rate of the trunk; where it is not given, one that suits the way",
    )
    head_lr: float = Field(1e-3, ge=0, description="peak learning rate of a new head")
    warm_up: float = Field(0.1, ge=0, lt=1, description="share of the updates in which rates rise; then they fall to 0")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay (AdamW)")
    clip: float = Field(1.0, gt=0, description="largest norm of all gradients together")
    rate_decay: float = Field(
        0.8, gt=0, le=1, description="layerwise: a layer's rate as a share of that of the layer after it"
    )
    unfreeze_every: int = Field(8, ge=1, description="gradual: updates until one layer more is trained")
    rank: int = Field(8, ge=1, description="lora: width of the adapters")
    alpha: float = Field(16.0, gt=0, description="lora: strength of the adapters; it is divided by the rank")
    adapt: tuple[str, ...] = Field(("trunk",), description="lora: layers with adapters, by path or wildcard")
    length: int = Field(64, ge=2, description="tokens of one row; longer texts are cut")
    train_rows: int = Field(
        0, ge=0, description="training rows that are used, the first ones (images: of each class alike); 0 uses all"
    )
    held_rows: int = Field(0, ge=0, description="validation and test rows that are used of each; 0 uses all")

    @field_validator("model")
    @classmethod
    def _is_here(cls, model: str) -> str:
        find(model)  # an error of this field; what is made of it below has no field of its own
        return model

    @property
    def budget(self) -> int:
        """Rows to train on."""
        return self.updates * self.batch

    @property
    def seconds_per_progress(self) -> float:
        """Measured for MiniLM, rows of 64 tokens, all weights; in proportion for others."""
        return 1e-3 * self.length if self.way not in FROZEN else 1e-3

    def source(self) -> Source:
        """Where the model lies.

        Raises:
            ValueError: its weights are others, or what reads it is not installed.
        """
        source = find(self.model)
        if self.weights != source.sha256:
            raise ValueError(f"weights: {source.path} has sha256 {source.sha256}; leave the field out to take these")
        missing = [package for package in READERS[source.kind] if importlib.util.find_spec(package) is None]
        if missing:
            raise ValueError(f"model: to read it, {' and '.join(missing)} must be installed; {GET}")
        return source


def labelled_hint(name: str) -> str:
    """How to have a table or JSONL of one's own read as texts with labels, where that may be meant."""
    if not name.endswith((".csv", ".jsonl")) or not Path(name).exists():
        return ""
    return f"; to read its texts and their labels, name the columns: {name}?text=COLUMN&label=COLUMN"


class FinetuneConfig(PretrainedConfig):
    """A pretrained network on a new task."""

    data: str = Field(
        "drug-reviews",
        validate_default=True,
        description="data set: texts with classes, text, or images; or your own: reviews.csv, reviews.jsonl (columns"
        " `text` and `label`, or reviews.csv?text=COLUMN&label=COLUMN), a text, a folder of images",
    )
    side: int = Field(96, ge=32, description="images: side in pixels to which they are enlarged")

    @field_validator("data")
    @classmethod
    def _is_read(cls, name: str) -> str:
        hint = labelled_hint(name)
        try:
            card = data.card(name)
        except data.DataError as error:
            raise ValueError(f"{error}{hint}") from None
        if TASKS.get(card.kind) is None or (card.kind == "pairs" and card.classes < 2):
            raise ValueError(f"'{name}' is neither text, nor texts with classes, nor images{hint}")
        return name

    @property
    def task(self) -> str:
        """What the data asks for: "texts", "language" or "images"."""
        return TASKS[data.card(self.data).kind]

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @model_validator(mode="after")
    def _suits(self) -> FinetuneConfig:
        card = data.card(self.data)
        if self.task != "language":
            check_few(card, self.train_rows)
        source = self.source()
        check_reads(source, self.task)
        if (source.kind == "efficientnet") != (self.task == "images") and source.kind != "folder":
            raise ValueError(f"model: '{self.model}' does not read the {card.kind} of '{self.data}'")
        if self.task == "language" and self.way in FROZEN:
            raise ValueError(f"way: a language model keeps its head, '{self.way}' would train nothing; try lora")
        if source.kind == "efficientnet" and self.way == "lora":
            raise ValueError("way: EfficientNet pads inside its own kind of convolution, which lora cannot adapt")
        return self
