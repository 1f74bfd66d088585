"""Transfer: one network's encoder in another, parts that stay frozen, learning rates by layer, another head.

    source = harness.load("quickstart").network(trial)       # of any family
    print(load_encoder(net, source))                         # what matched, was missing, left over, resized
    freeze(net, ["encoder"])

What is frozen is written in one place, each parameter's `requires_grad`, and holds in functional training too:

    net, params, buffers = execution.stack(build, seeds)     # `build` loads and freezes
    trained, frozen = trainable(net, params)                 # take gradients for `trained` alone,
    adam(params, grads, state, lr, scale=scales(net))        # or let the optimiser's steps skip the frozen
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from nets.registry import Network, build

__all__ = [
    "Report",
    "encoder_parameters",
    "freeze",
    "held",
    "layers",
    "layerwise_rates",
    "load_encoder",
    "load_encoders",
    "matches",
    "read_weights",
    "scales",
    "swap_head",
    "trainable",
    "unfreeze",
    "unfreeze_top",
]

Shape = tuple[int, ...]


@dataclass
class Report:
    """What `load_encoder` did, by the encoder's own names; `print` it.

    Attributes:
        where: the encoder's place in the network that took the weights; "" is the whole network.
        from_: the encoder's place in the source.
        matched: tensors that were copied.
        resized: (name, its shape in the source, its shape here, what was done).
        skipped: (name, its shape in the source, its shape here): left as they were.
        missing: tensors that the source lacks: left as they were.
        left_over: tensors of the source's encoder that have no place here.
    """

    where: str
    from_: str
    matched: list[str] = field(default_factory=list)
    resized: list[tuple[str, Shape, Shape, str]] = field(default_factory=list)
    skipped: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = len(self.matched) + len(self.resized) + len(self.skipped) + len(self.missing)
        lines = [
            f"{self.from_ or '(the whole source)'} -> {self.where or '(the whole network)'}: "
            f"{len(self.matched)} of {count} tensors matched"
        ]
        lines += [f"  resized    {name}: {list(old)} -> {list(new)}, {how}" for name, old, new, how in self.resized]
        lines += [f"  skipped    {name}: {list(old)} does not fit {list(new)}" for name, old, new in self.skipped]
        lines += [f"  missing    {name}: not in the source" for name in self.missing]
        lines += [f"  left over  {name}: only in the source" for name in self.left_over]
        return "\n".join(lines)


def load_encoder(
    into: nn.Module,
    source: Mapping[str, Tensor] | nn.Module,
    where: str | None = None,
    from_: str | None = None,
) -> Report:
    """Copies an encoder's weights, parameters and running moments, by name and shape.

    A first convolution for another number of channels, and position tables of another length, are resized; whatever
    else is wider, narrower, missing or left over is reported, and this network's own numbers stay.

    Args:
        into: the network that takes the weights, changed in place.
        source: a network, or its weights by name (`read_weights`).
        where: path of the encoder in `into`; None: the module called "encoder", or else the whole network.
        from_: the same in the source; with several encoders (an actor's, a critic's) the one that fits best.

    Raises:
        ValueError: no encoder is there, several are and none is named, or not one tensor fits.
    """
    weights = dict(source.state_dict() if isinstance(source, nn.Module) else source)
    own = into.state_dict()
    places = [where] if where is not None else _encoders(own)
    if len(places) > 1:
        raise ValueError(f"the network has several encoders, say which with `where`: {', '.join(places)}")
    there = _part(own, places[0], "network")
    images = hasattr(into.get_submodule(places[0]), "patch")  # positions in a square of patches, not in a row
    origins = [from_] if from_ is not None else _encoders(weights)
    reports = []
    for origin in origins:
        reports.append(_fit(there, _part(weights, origin, "source"), Report(places[0], origin), images))
    report, values = max(reports, key=lambda r: len(r[0].matched) + len(r[0].resized))  # the first of equals
    if not values:
        raise ValueError(
            f"nothing of the source's '{report.from_}' fits this network's '{report.where}': the source has "
            f"{_some(weights)}; the network has {_some(own)}"
        )
    with torch.no_grad():
        for name, value in values.items():
            there[name].copy_(value)  # the state dict's tensors are the network's own
    return report


def load_encoders(into: nn.Module, source: Mapping[str, Tensor]) -> None:
    """Copies a source's encoder into every encoder of a network (an actor's and a critic's), whole or not at all.

    Raises:
        ValueError: it lacks something, or something has another shape; says what.
    """
    for where in _encoders(into.state_dict()):
        report = load_encoder(into, source, where)
        if report.skipped or report.missing or report.left_over:
            raise ValueError(f"the encoder to start from is not this network's own:\n{report}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights in a safetensors file, such as a run folder's best.safetensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from None


# What is trained


def matches(name: str, pattern: str) -> bool:
    """Whether a dotted name is the pattern, lies within it ("encoder"), or fits its wildcards ("*.bias")."""
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def freeze(net: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Parameters that training must not move: names, modules ("encoder") or wildcards ("*.bias").

    Batch norm's running moments are no parameters: they follow the data unless the module is in evaluation mode.

    Returns:
        The names of these parameters.

    Raises:
        ValueError: a pattern fits no parameter.
    """
    return _require_grad(net, patterns, False)


def encoder_parameters(params: Iterable[str]) -> frozenset[str]:
    """Those of some parameters' names that lie in an encoder: what `freeze_encoder` in an experiment file holds."""
    return frozenset(n for n in params if any(part.endswith("encoder") for part in n.split(".")[:-1]))


def held(grads: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Gradients with zeros for the parameters that are held: an optimiser without weight decay never moves them."""
    still = frozenset(names)
    return {name: torch.zeros_like(g) if name in still else g for name, g in grads.items()}


def unfreeze(net: nn.Module, patterns: Iterable[str]) -> list[str]:
    """The opposite of `freeze`."""
    return _require_grad(net, patterns, True)


def unfreeze_top(net: nn.Module, count: int) -> list[str]:
    """Freezes all but the last `count` layers: gradual unfreezing (Howard & Ruder 2018) calls it with 1, 2, ...

    Returns:
        The names of the parameters that are trained.
    """
    freeze(net, ["*"])
    top = layers(net)[-count:] if count else []
    return [name for names in top for name in unfreeze(net, names)]


def trainable(net: nn.Module, params: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits parameters (one trial's or stacked ones) into those that are trained and those that are frozen."""
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    chosen = {name: p for name, p in params.items() if name in trained}
    return chosen, {name: p for name, p in params.items() if name not in trained}


def scales(net: nn.Module) -> dict[str, float]:
    """A factor for each parameter's step, as `nets.optim` takes it: 1, or 0 for a frozen one."""
    return {name: float(p.requires_grad) for name, p in net.named_parameters()}


def layers(net: nn.Module) -> list[list[str]]:
    """Names of the parameters, by layer, in the order in which the network registers them: input first.

    A layer is an item of a list or sequence of modules (a residual block, a transformer block), or else a module that
    holds parameters (an embedding, a head).
    """
    groups: dict[str, list[str]] = {}
    for name, _ in net.named_parameters():
        item = re.match(r"(?:.*?\.)?\d+(?=\.)(?:\.\d+(?=\.))*", name)
        groups.setdefault(item.group() if item else name.rpartition(".")[0], []).append(name)
    return list(groups.values())


def layerwise_rates(net: nn.Module, decay: float) -> dict[str, float]:
    """A factor of the learning rate for each parameter: discriminative fine-tuning (Howard & Ruder 2018).

    Args:
        net: the network.
        decay: factor from a layer to the one before it, in (0, 1]; the paper's is 1 / 2.6. The last has 1.

    Returns:
        Factors by name, as `nets.optim` takes them for `scale`; 0 for frozen parameters.
    """
    groups, active = layers(net), scales(net)
    return {n: active[n] * decay ** (len(groups) - 1 - i) for i, names in enumerate(groups) for n in names}


def swap_head(net: nn.Module, output: int | Mapping[str, Any]) -> nn.Module:
    """Gives a network a new head, freshly initialised, in place, and returns the network.

    Args:
        net: with an `encoder`, which knows its `out_features`, and a `head`: what `build` makes.
        output: how many outputs, or {"kind": ..., "out_features": ...}, as `nets.registry.build` takes it.

    Raises:
        ValueError: the network has no such encoder and head.
    """
    head = getattr(net, "head", None)
    features = getattr(getattr(net, "encoder", None), "out_features", None)
    if features is None or not isinstance(head, nn.Module):
        raise ValueError(f"{type(net).__name__} has no encoder with `out_features` and no head to swap")
    config = dict(output) if isinstance(output, Mapping) else {"kind": "linear", "out_features": output}
    old = next(head.parameters(), torch.zeros(()))
    net.head = build({**config, "in_features": features}).to(old.device, old.dtype).train(net.training)
    recipe: Any = getattr(net, "recipe", None)
    if isinstance(net, Network) and recipe:
        net.recipe = {**recipe, "output": config if isinstance(output, Mapping) else output}  # type: ignore[assignment]
    return net


# Details


def _encoders(weights: Mapping[str, Tensor]) -> list[str]:
    """Outermost modules called "encoder" or "..._encoder"; [""], the whole network, where there is none."""
    found: dict[str, None] = {}
    for name in weights:
        parts = name.split(".")[:-1]
        end = next((i for i, part in enumerate(parts, start=1) if part.endswith("encoder")), None)
        if end:
            found[".".join(parts[:end])] = None
    return list(found) or [""]


def _part(weights: Mapping[str, Tensor], path: str, whose: str) -> dict[str, Tensor]:
    start = f"{path}." if path else ""
    found = {name[len(start) :]: t for name, t in weights.items() if name.startswith(start)}
    if not found:
        raise ValueError(f"the {whose} has nothing at '{path}'; it has {_some(weights)}")
    return found


def _some(weights: Mapping[str, Tensor], most: int = 4) -> str:
    names = [f"{name} {list(t.shape)}" for name, t in list(weights.items())[:most]]
    return ", ".join(names) + (f" and {len(weights) - most} more" if len(weights) > most else "")


def _fit(
    there: Mapping[str, Tensor], part: Mapping[str, Tensor], report: Report, images: bool
) -> tuple[Report, dict[str, Tensor]]:
    """The report, and what to copy."""
    first = next((name for name, t in there.items() if t.dim() >= 4), None)
    classes = "class_token" in there
    values = {}
    for name, tensor in there.items():
        if name not in part:
            report.missing.append(name)
            continue
        given, new = part[name], tuple(tensor.shape)
        old = tuple(given.shape)
        if old == new:
            values[name] = given
            report.matched.append(name)
        elif name == first and old[:1] + old[2:] == new[:1] + new[2:]:
            values[name] = _channels(given, new[1])
            report.resized.append((name, old, new, "channels averaged" if new[1] < old[1] else "channels repeated"))
        elif "position" in name and len(old) == 2 and old[1] == new[1] and ("class_token" in part) == classes:
            values[name] = _positions(given, new[0], images, int(classes))
            report.resized.append((name, old, new, "positions interpolated"))
        else:
            report.skipped.append((name, old, new))
    report.left_over.extend(name for name in part if name not in there)
    return report, values


def _channels(weight: Tensor, count: int) -> Tensor:
    """A kernel [out, in, ...] for `count` input channels; a picture with equal channels gives what it gave before."""
    have = weight.shape[1]
    if count < have:
        return weight.mean(1, keepdim=True).expand(-1, count, *weight.shape[2:]) * (have / count)
    repeats = torch.arange(count, device=weight.device) % have
    share = (count // have + (repeats < count % have)).to(weight.dtype)  # how often its channel is repeated
    return weight[:, repeats] / share.reshape(-1, *[1] * (weight.dim() - 2))


def _positions(table: Tensor, length: int, images: bool, kept: int) -> Tensor:
    """A table [T, features] for another length; the first `kept` rows are no places, but a class token's."""
    rest = table[kept:].T  # [features, T]
    sides = math.isqrt(rest.shape[1]), math.isqrt(length - kept)
    if images and (sides[0] ** 2, sides[1] ** 2) == (rest.shape[1], length - kept):
        grid = rest.reshape(1, -1, sides[0], sides[0])
        stretched = functional.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic").flatten(2)
    else:  # the ends stay where they are
        stretched = functional.interpolate(rest[None], size=length - kept, mode="linear", align_corners=True)
    return torch.cat([table[:kept], stretched[0].T])


def _require_grad(net: nn.Module, patterns: Iterable[str], value: bool) -> list[str]:
    parameters = dict(net.named_parameters())
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in parameters if matches(name, pattern)]
        if not found:
            raise ValueError(f"'{pattern}' fits no parameter; there are {', '.join(parameters)}")
        chosen |= dict.fromkeys(found)
    for name in chosen:
        parameters[name].requires_grad_(value)
    return list(chosen)
