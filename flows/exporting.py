"""The command `seedbed export`: a trial's network as a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.errors import UserError

if TYPE_CHECKING:
    from harness.ledger import Ledger

__all__ = ["begins_with", "export_trial", "find_trial"]


def export_trial(
    root: Path,
    trial: str,
    form: Literal["safetensors", "onnx"],
    which: Literal["best", "final"],
    output: Path | None,
    input_: str | None,
) -> int:
    """Writes the network and prints the file's path.

    Args:
        root: the run root.
        trial: its id, or the beginning of it that no other trial has.
        form: safetensors, which `nets.export.load` rebuilds, or ONNX.
        which: the best network or the one at the end.
        output: the file; None: <trial>.safetensors or <trial>.onnx in the current folder.
        input_: "1,28,28": what one row looks like; needed for ONNX where the network does not say.

    Raises:
        UserError: there is no such trial, it kept no such network, or it cannot be exported.
    """
    row = find_trial(root, trial)
    from harness.results import Results
    from nets.outputs import output_file

    try:
        network = Results(str(row["trained_by"]), [row], root).network(row["id"], which)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error), usage=True) from None
    file = output or Path(f"{row['id']}.{form}")
    _check_not_ours(root, file)
    if not file.parent.is_dir():
        raise UserError(f"there is no folder {file.parent} to write to", usage=True)
    try:
        output_file(file)
    except ValueError as error:
        raise UserError(str(error), usage=True) from None
    _write(network, file, form, input_, row["id"])
    print(file)
    return 0


OURS = ("trials", "cohorts", "experiments", "wandb", "cache", "prefect")  # folders of a run root


def _check_not_ours(root: Path, file: Path) -> None:
    """What a run has written is no place for an export: it would take a ledger's, a result's or a checkpoint's."""
    try:
        first = file.resolve().relative_to(root.resolve()).parts[:1]
    except ValueError:
        return
    if first and (first[0].startswith("ledger") or first[0] in OURS):
        raise UserError(f"{file} belongs to the run root {root} and is not replaced; name another file", usage=True)


def find_trial(root: Path, trial: str) -> dict[str, Any]:
    """A trial's row of the ledger.

    Args:
        root: the run root.
        trial: an id, or the beginning of one.

    Raises:
        UserError: there is none, or there are several.
    """
    from harness.ledger import Ledger
    from harness.ledger_access import missing_ledger
    from harness.own_code import find_own_code, own_folders

    if not (root / "ledger.sqlite").is_file():
        text = missing_ledger(root) or f"{root} is no run root: it has no ledger.sqlite"
        raise UserError(text, usage=True)
    ledger = Ledger(root / "ledger.sqlite")
    try:
        rows = begins_with(root, ledger, trial)
        trained = [ledger.experiment(str(row["trained_by"])) for row in rows.values()]
    finally:
        ledger.close()
    if not rows:
        raise UserError(f"the run root {root} has no trial {trial}", usage=True)
    find_own_code(folder for row in trained if row for folder in own_folders(row["file"]))
    return next(iter(rows.values()))


def begins_with(root: Path, ledger: Ledger, trial: str) -> dict[str, dict[str, Any]]:
    """The one trial with this id, or whose id begins with it: {id: its row}; empty where there is none.

    Raises:
        UserError: there are several.
    """
    folder = root / "trials"
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    rows = ledger.find([trial]) or ledger.find(name for name in names if trial and name.startswith(trial))
    if len(rows) > 1:
        some = ", ".join(sorted(rows)[:4])
        raise UserError(f"{len(rows)} trials begin with {trial}: {some}{', ...' * (len(rows) > 4)}", usage=True)
    return rows


def _write(network: Any, file: Path, form: str, input_: str | None, trial: str) -> None:
    from flows.blocks import parse_shape
    from nets.export import save
    from nets.onnx_export import to_onnx

    shape = parse_shape(input_, "--input") if input_ else None
    if not hasattr(network, "recipe") and (form != "onnx" or shape is None):
        lacking = f"trial {trial}: its {type(network).__name__} does not say how it was built"
        raise UserError(
            f"{lacking}; only --format onnx --input 1,28,28 (the shape of one row) can export it", usage=True
        )
    try:
        if form == "onnx":
            to_onnx(network, file, shape)
        else:
            save(network, file)
    except (ValueError, ImportError) as error:
        raise UserError(f"trial {trial}: {error}", usage=True) from None
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from None
