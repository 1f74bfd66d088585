"""Results from Python: trials as a DataFrame, metrics, networks; notebooks need nothing else.

results = harness.load("quickstart")
results.trials.groupby("label").score.mean()
results.metrics("0a1b2c3d4e5f6071").plot(x="progress", y="eval/return")
results.network("0a1b2c3d4e5f6071")(inputs)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from harness.own_code import find_own_code, own_folders
from harness.report.folders import read_json, read_metrics

if TYPE_CHECKING:
    from torch import nn

    from harness.learner import Learner, State

__all__ = ["Results", "load"]


def load(name: str, root: str | Path = "runs") -> Results:
    """The results of an experiment, as far as it has come.

    Args:
        name: the experiment's name.
        root: the run root.

    Raises:
        FileNotFoundError: there is no ledger under `root`.
        KeyError: the ledger knows no experiment of that name.
    """
    from harness.ledger import Ledger  # SQLAlchemy
    from harness.ledger_access import missing_ledger

    file = Path(root) / "ledger.sqlite"
    if not file.is_file():
        raise FileNotFoundError(missing_ledger(Path(root)) or f"{file} does not exist: is {str(root)!r} a run root?")
    ledger = Ledger(file)
    try:
        row = ledger.experiment(name)
        if row is None:
            raise KeyError(f"{root} has no experiment named {name!r}")
        find_own_code(own_folders(row["file"]))
        return Results(name, ledger.trials(name), Path(root))
    finally:
        ledger.close()


class Results:
    """An experiment's trials, metrics and networks.

    Args:
        name: the experiment's name.
        rows: ledger rows.
        root: the run root.
    """

    def __init__(self, name: str, rows: Sequence[Mapping[str, Any]], root: Path) -> None:
        self.name = name
        self.root = root
        self._rows = {row["id"]: dict(row) for row in rows}

    def __repr__(self) -> str:
        return f"Results({self.name!r}, {len(self._rows)} trials)"

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, indexed by its id: the ledger's columns, and each configuration field as `config.NAME`."""
        rows = []
        for row in self._rows.values():
            plain = {key: value for key, value in row.items() if key not in ("config", "resources")}
            rows.append(plain | _flat(row.get("config") or {}, "config."))
        frame = pd.DataFrame(rows)
        return frame.set_index("id") if rows else frame

    def metrics(self, trial: str | None = None) -> pd.DataFrame:
        """What was measured at every boundary.

        Args:
            trial: an id; None gives all trials, with the columns `trial`, `label` and `seed` in front.

        Raises:
            KeyError: no trial has that id.
        """
        if trial is not None:
            self._row(trial)
            return pd.DataFrame(read_metrics(self.folder(trial) / "metrics.jsonl"))
        frames = []
        for identity, row in self._rows.items():
            frame = pd.DataFrame(read_metrics(self.folder(identity) / "metrics.jsonl"))
            for place, (name, value) in enumerate(
                (("trial", identity), ("label", row["label"]), ("seed", row["seed"]))
            ):
                frame.insert(place, name, value)
            frames.append(frame)
        return pd.concat([f for f in frames if len(f)], ignore_index=True) if any(map(len, frames)) else pd.DataFrame()

    def folder(self, trial: str) -> Path:
        """A trial's run folder."""
        return self.root / "trials" / trial

    def network(self, trial: str, which: Literal["best", "final"] = "best") -> nn.Module:
        """One ordinary network on the CPU, in evaluation mode, with a trial's weights.

        Args:
            trial: an id.
            which: the best network by the learner's own selection, or the one at the end.

        Raises:
            KeyError: no trial has that id.
            FileNotFoundError: the trial has kept no such network (yet).
            ValueError: the file is damaged, or its names, shapes or dtypes are not those of the learner's network.
        """
        from harness.runfolder import check_network

        row = self._row(trial)
        file = self.folder(trial) / f"{which}.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"trial {trial} ({row['state']}) has no {file.name}")
        check_network(file)
        network = _blank_network(row["learner"], self._config(row), int(row["seed"]))
        _load_weights(network, file)
        return network.eval()

    def learner(self, trial: str) -> Learner:
        """A trial's learner, started anew with this one lane: for what it alone can do with a network.

            learner, network = results.learner(trial), results.network(trial)
            learner.draw(network, labels)                      # a generator's rows

        Args:
            trial: an id.

        Raises:
            KeyError: no trial has that id.
        """
        row = self._row(trial)
        return _started(row["learner"], self._config(row), int(row["seed"]))[0]

    def _config(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return row.get("config") or read_json(self.folder(row["id"]) / "config.json").get("config") or {}

    def _row(self, trial: str) -> dict[str, Any]:
        if trial not in self._rows:
            raise KeyError(f"experiment {self.name!r} has no trial {trial!r}")
        return self._rows[trial]


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
    return found


def _blank_network(learner: str, config: Mapping[str, Any], seed: int) -> nn.Module:
    own, state = _started(learner, config, seed)
    return own.network(state, 0)


def _started(name: str, config: Mapping[str, Any], seed: int) -> tuple[Learner, State]:
    from harness.learner import Lanes, learner_class

    kind = learner_class(name)
    own = kind()
    return own, own.start(Lanes((kind.Config(**config),), (seed,)))


def _load_weights(network: nn.Module, file: Path) -> None:
    """Loads a safetensors file after names, shapes and dtypes were compared; nothing is loaded otherwise."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        safe_open(file, framework="pt", device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file, or a damaged one: {error}") from None
    own = network.state_dict()
    with safe_open(file, framework="pt", device="cpu") as stored:
        there = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
        for name in sorted(own.keys() ^ there.keys()):
            raise ValueError(f"{file.name}: {name} is {'missing' if name in own else 'not part of the network'}")
        tensors = {}
        for name, tensor in own.items():
            if there[name] != tuple(tensor.shape):
                raise ValueError(f"{file.name}: {name} has shape {there[name]}, not {tuple(tensor.shape)}")
            tensors[name] = stored.get_tensor(name)
            if tensors[name].dtype != tensor.dtype:
                raise ValueError(f"{file.name}: {name} is {tensors[name].dtype}, not {tensor.dtype}")
    with torch.no_grad():
        network.load_state_dict(tensors)
