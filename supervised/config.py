"""What the configurations of supervised learners share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness import data
from harness.blocks import check_builds, encoder_config, frozen
from harness.data import Card, Kind, check_few
from harness.spec import PerLaneFloat, Recipe, TransferConfig

__all__ = ["AugmentationName", "SupervisedConfig", "TrainingConfig"]

DEFAULTS: dict[str, dict[str, Any]] = {  # where they differ from the encoder's own
    "mlp": {"hidden_features": 128, "depth": 2},
    "cnn": {"hidden_features": 16, "depth": 2},
    "gru": {"hidden_features": 64, "depth": 1},
    "transformer": {"hidden_features": 32, "depth": 2, "activation": "relu", "expansion": 2},
}
SECONDS = {"mlp": 2e-5, "cnn": 6e-5, "gru": 4e-5, "transformer": 8e-5}  # a row of 64 numbers, on one of 2 cores
AugmentationName = Literal["flip", "shift", "crop", "cutout", "noise"]

if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", DEFAULTS)


class TrainingConfig(TransferConfig):
    """How any network is trained on rows and their targets."""

    updates_of_a_chunk: ClassVar[int] = 8
    kinds: ClassVar[tuple[Kind, ...]] = ()  # of data that the learner takes

    data: str = Field("digits", description="data set: a name (`seedbed data` lists them) or a path of your own")
    net: Any  # a block's kind and its fields
    epochs: int = Field(40, ge=1, description="passes over the training rows (rounded up to whole chunks)")
    updates: int = Field(0, ge=0, description="updates to train for, instead of `epochs`; 0 counts epochs")
    batch: int = Field(64, ge=1, description="rows of one update")
    accumulate: int = Field(1, ge=1, description="parts of a batch whose gradients are summed before the one update")
    optimiser: Literal["adamw", "adamw-fused", "adam", "sgd", "nesterov", "rmsprop"] = Field(
        "adamw", description="the optimiser; adamw-fused: adamw to rounding, faster for large networks one at a time"
    )
    lr: PerLaneFloat = Field(6e-3, ge=0, description="highest learning rate")
    schedule: Literal["constant", "linear", "cosine", "exponential", "one-cycle"] = Field(
        "cosine", description="how the learning rate falls over the budget"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the budget in which the learning rate rises from 0")
    momentum: PerLaneFloat = Field(0.9, ge=0, lt=1, description="of sgd, nesterov and rmsprop")
    weight_decay: PerLaneFloat = Field(1e-2, ge=0, description="weight decay: decoupled for adamw, else L2 as in torch")
    clip: PerLaneFloat = Field(0.0, ge=0, description="largest norm of a gradient; 0 clips nothing")
    l1: PerLaneFloat = Field(0.0, ge=0, description="weight of the weights' absolute sum in the loss")
    l2: PerLaneFloat = Field(0.0, ge=0, description="weight of the weights' sum of squares in the loss")
    ema_half_life: float = Field(
        0.0, ge=0, description="rows after which the average network has forgotten half of a former one; 0 keeps none"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="type of products and convolutions in training; 16 bits pay on GPUs, and for "
        "convolutions on CPUs with bfloat16 instructions",
    )
    patience: int = Field(0, ge=0, description="evaluations without a better score that end a trial; 0 never ends one")
    layers_every: int = Field(
        0, ge=0, description="updates between two looks at every layer's gradients and activations; 0 never looks"
    )

    @property
    def card(self) -> Card:
        """Of the data set."""
        return data.card(self.data)

    @property
    def held_bytes(self) -> dict[str, int]:
        """The rows of a batch."""
        return {**super().held_bytes, "batch": self.batch * math.prod(self.row_shape) * 4}

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of what the network reads."""
        return self.card.shape

    @property
    def out_features(self) -> int:
        """How many numbers the network gives."""
        raise NotImplementedError

    @property
    def encoder_recipe(self) -> Recipe:
        """The network."""
        return Recipe(self.built, self.row_shape, self.out_features)

    @property
    def built(self) -> dict[str, Any]:
        """The network's configuration with what follows from the data."""
        return self.net.model_dump()

    @property
    def rows_of_an_epoch(self) -> int:
        """How many rows there are to learn from."""
        return self.card.rows["train"]

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What happens to training rows."""
        return ()

    @property
    def chunk(self) -> int:
        """Rows of one chunk."""
        return self.updates_of_a_chunk * self.batch

    @property
    def budget(self) -> int:
        """Rows to train on, whole chunks."""
        rows = self.updates * self.batch or self.epochs * self.rows_of_an_epoch
        return math.ceil(rows / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @field_validator("data")
    @classmethod
    def _known(cls, name: str) -> str:
        card = data.card(name)
        if card.kind not in cls.kinds:
            labelled = card.kind == "pairs" and card.classes
            what = "texts with labels, for `finetune` and `reader`" if labelled else card.kind
            raise ValueError(f"'{name}' holds {what}; this learner takes {', '.join(cls.kinds)}")
        return name

    @model_validator(mode="after")
    def _in_whole_parts(self) -> TrainingConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} parts do not divide a batch of {self.batch}")
        return self


class SupervisedConfig(TrainingConfig):
    """A network that is trained on rows of numbers."""

    train_rows: int = Field(
        0, ge=0, description="real training rows that are used, the first by hash, each class alike; 0 uses all"
    )
    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: an encoder's kind and its fields"
    )
    augment: Annotated[tuple[AugmentationName, ...], BeforeValidator(frozen)] = Field(
        (), description="what happens to training rows; where it is not given, images are shifted"
    )

    @property
    def rows_of_an_epoch(self) -> int:
        """Those that are used."""
        return self.train_rows or super().rows_of_an_epoch

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What the file says."""
        return self.augment

    @property
    def seconds_per_progress(self) -> float:
        """Measured for default sizes on digits; a first guess for other encoders and rows."""
        return SECONDS.get(self.net.kind, 2e-4) * max(math.prod(self.row_shape) / 64, 1)

    @model_validator(mode="before")
    @classmethod
    def _augmented_as_suits_the_data(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "augment" in given:
            return given
        try:
            kind = data.card(str(given.get("data", cls.model_fields["data"].default))).kind
        except data.DataError:
            return given  # `data` itself is refused below
        return {**given, "augment": ("shift",) if kind == "images" else ()}

    @model_validator(mode="after")
    def _goes_together(self) -> SupervisedConfig:
        check_few(self.card, self.train_rows)
        only = [name for name in self.augment if name != "noise"]
        if only and self.card.kind != "images":
            raise ValueError(f"augment: {only[0]} is for images; '{self.data}' holds {self.card.kind}: use noise")
        try:
            check_builds(self.net, self.row_shape, self.out_features)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self
