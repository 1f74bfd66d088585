"""Blocks of `nets` as configuration: a field of an experiment file for every field of a block, checked before anything
starts.

    Net = encoder_config("mlp", {"cnn": {"hidden_features": 16}})
    Made = block_config("generator", "mlp-generator", {})

    class MyConfig(LearnerConfig):
        net: Net = Field(default_factory=dict, validate_default=True, description="the network")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, create_model
from torch import nn

from harness.bounds import memory_of_this_machine
from nets.registry import Block, Role, blocks, build

__all__ = ["block_config", "check_builds", "check_generates", "encoder_config", "frozen"]

BYTES_OF_A_WEIGHT = 16  # the weight, its gradient and two moments in float32


@cache
def _models(role: Role) -> dict[str, type[BaseModel]]:
    """A configuration model for every registered block of a role, by kind."""
    return {kind: _model(block) for kind, block in blocks().items() if block.role == role}


def encoder_config(default: str, defaults: Mapping[str, Mapping[str, Any]]) -> Any:
    """The type of a configuration field that holds an encoder; see `block_config`."""
    return block_config("encoder", default, defaults)


def block_config(role: Role, default: str, defaults: Mapping[str, Mapping[str, Any]], only: Sequence[str] = ()) -> Any:
    """The type of a configuration field that holds a block: {"kind": ..., and that block's fields}.

    Args:
        role: of the blocks to choose from.
        default: the kind where none is given.
        defaults: kind -> values that differ from the block's own defaults.
        only: kinds to choose from; () takes all of the role.
    """

    def completed(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        kind = given.get("kind", default)
        own = defaults.get(kind, {}) if isinstance(kind, str) else {}
        return {"kind": kind, **own, **{name: frozen(value) for name, value in given.items()}}

    models = _models(role)
    union: Any = Union[tuple(models[kind] for kind in only or models)]  # noqa: UP007  known at run time only
    return Annotated[union, Discriminator("kind"), BeforeValidator(completed)]


def frozen(value: Any) -> Any:
    """Lists as tuples: what a validator returns is checked strictly, and a list is then no tuple."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def check_builds(config: BaseModel, input_shape: tuple[int, ...], output: Any) -> None:
    """Builds a network without memory.

    Raises:
        ValueError: the fields do not go together, or not with the data; says which.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        _check_fits(build(config.model_dump(), input_shape, output))


def check_generates(config: Mapping[str, Any], in_features: int, out_shape: tuple[int, ...]) -> None:
    """Builds a generator without memory.

    Raises:
        ValueError: the fields do not go together, or not with the data; says which.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        _check_fits(build(config, in_features, out_shape))


def _check_fits(net: nn.Module) -> None:
    """Compares what training a network takes with this machine's memory.

    Raises:
        ValueError: it takes more.
    """
    weights, most = sum(p.numel() for p in net.parameters()), memory_of_this_machine()
    if weights * BYTES_OF_A_WEIGHT > most:
        needed, there = weights * BYTES_OF_A_WEIGHT / 2**30, most / 2**30
        raise ValueError(
            f"{weights:,} weights with their gradients and moments take {needed:,.1f} GiB, this machine has"
            f" {there:,.1f} GiB; make the network smaller"
        )


def _model(block: Block) -> type[BaseModel]:
    fields: dict[str, Any] = {"kind": (Literal[block.kind], Field(block.kind, description=block.summary))}
    for field in block.fields:
        default = ... if field.required else field.default
        fields[field.name] = (field.type, Field(default, description=field.description))
    name = "".join(part.title() for part in block.kind.split("-")) + "Net"
    return create_model(name, __config__=ConfigDict(frozen=True, extra="forbid"), __doc__=block.summary, **fields)
