"""Checkpoints of cohorts: one atomic folder, safetensors and JSON only.

Write protocol: a temporary folder per attempt; tensors, fsync; the manifest with sizes and sha256 last, fsync; the
fence is checked; rename; fsync of the parent. The previous checkpoint goes only after the new one counts, and one older
generation is kept for the case that the newest turns out to be damaged.

The manifest holds a sha256 of its own contents, its cohort, and the progress and fence of the folder's name, so a
changed bit and a folder that was moved or renamed are detected.

What is large and changes little (replay) lies beside the checkpoints in segments, immutable files that several of them
list: a segment is written and synced before the manifest that first lists it, verified with every checkpoint that lists
it, and goes with the last one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from harness.files import make_folder, room_for, set_aside, sync, temporary_name, write_json, write_tensors
from harness.packing import pack, resolved, unpack

__all__ = [
    "Checkpoint",
    "DamagedError",
    "FencedError",
    "Segment",
    "check_like",
    "generations",
    "good_checkpoints",
    "load",
    "manifest_of",
    "newest_progress",
    "pack",
    "save",
    "segments_of",
    "sha256_file",
    "unpack",
    "write_fence",
]

FORMAT = 3  # what is written; 1 had no escaped names and fewer types, 2 no sha256 of the manifest: both are read
READABLE = (1, 2, 3)
UNSUMMED = (1, 2)
LARGEST_MANIFEST = 2**30  # bytes; a larger one is not ours
_NAME = re.compile(r"ckpt-(\d{12,})-(\d{1,18})(?:-(\d{1,18}))?$", re.ASCII)
_SEGMENT_NAME = re.compile(r".+-\d{12}-\d{12}-(\d+)(-whole)?\.safetensors$")


class DamagedError(Exception):
    """A checkpoint that must not be used: incomplete, altered, or not of this cohort's shape."""


class FencedError(Exception):
    """Another driver took the cohort over: this worker must not write any more."""


@dataclass(frozen=True)
class Segment:
    """Steps [first, last) of something that grows, in a file of its own.

    Attributes:
        owner: what it is a part of; a path in the state.
        first: its first step.
        last: the step after its last one.
        whole: whether its steps change no more, so that later checkpoints may list it too.
        tensors: what is to be written, made when it is; not kept.
        name: of the file, once it is written.
        bytes: its size.
        sha256: of its bytes.
    """

    owner: str
    first: int
    last: int
    whole: bool
    tensors: Callable[[], dict[str, Tensor]] = field(default=dict, compare=False, repr=False)
    name: str = ""
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: the tree of tensors, the JSON facts beside it, the segments that it lists."""

    path: Path
    progress: int
    tree: Any
    meta: dict[str, Any]
    segments: tuple[Segment, ...] = ()

    def file(self, segment: Segment) -> Path:
        """Where a segment is found."""
        return _segments(self.path.parent) / Path(segment.name).name


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_fence(folder: Path, fence: int) -> None:
    """The driver's: declares the only fence number whose worker may commit checkpoints to a cohort's folder."""
    set_aside(folder, Path.is_dir)
    set_aside(folder / "fence.json")
    write_json(folder / "fence.json", {"fence": fence})


def check_fence(folder: Path, fence: int) -> None:
    """Raises FencedError unless `fence` is the current one."""
    try:
        current = json.loads((folder / "fence.json").read_text())["fence"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # the driver writes it anew when it opens the cohort
        raise FencedError(f"{folder / 'fence.json'} cannot be read, so no worker may write: {error}") from error
    if current != fence:
        raise FencedError(f"cohort {folder.name} was taken over (fence {current}, this worker has {fence})")


def save(
    folder: Path,
    progress: int,
    fence: int,
    tree: Any,
    meta: dict[str, Any],
    segments: Sequence[Segment] = (),
    damaged: Sequence[Path] = (),
) -> Path:
    """Writes a checkpoint and makes it count, then drops all but the newest two, and segments that none of them lists.

    Args:
        folder: the cohort's folder (holds fence.json).
        progress: the cohort's progress.
        fence: this worker's fence number.
        tree: what to save.
        meta: JSON facts: lane -> trial, alive, mode, threads, committed bytes of the metrics files.
        segments: what it lists; those without a name are written.
        damaged: older checkpoints that cannot be used; they are removed once this one counts.

    Raises:
        FencedError: another driver took the cohort over; nothing was committed.
        NoSpaceError: the disk is full; nothing was committed.
    """
    temporary = folder / temporary_name("tmp")
    with room_for(temporary):
        temporary.mkdir(parents=True)
    try:
        tensors, skeleton = pack(tree)
        state = temporary / "state.safetensors"
        write_tensors(state, tensors)
        check_fence(folder, fence)
        listed = [s if s.name else _write_segment(folder, temporary, fence, s) for s in segments]
        if listed:
            sync(_segments(folder))
        manifest = {
            "format": FORMAT,
            "cohort": folder.name,
            "progress": progress,
            "fence": fence,
            "files": {state.name: {"bytes": state.stat().st_size, "sha256": sha256_file(state)}},
            "segments": [_facts(s) for s in listed],
            "tensors": {n: [str(t.dtype), list(t.shape)] for n, t in tensors.items()},
            "tree": skeleton,
            "meta": meta,
        }
        manifest["sha256"] = _digest(manifest)
        write_json(temporary / "manifest.json", manifest, durable=True)
        check_fence(folder, fence)
        target = _free_name(folder, progress, fence)
        with room_for(target):
            temporary.rename(target)
            sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _drop_old(folder, target, damaged)
    _drop_segments(folder, fence)
    return target


def _drop_old(folder: Path, newest: Path, damaged: Sequence[Path]) -> None:
    """Removes damaged checkpoints, and all but the newest and the one before it."""
    for path in damaged:
        _remove(path)
    others = [path for path in generations(folder) if path != newest]
    for path in others[1:]:
        _remove(path)


def _free_name(folder: Path, progress: int, fence: int) -> Path:
    """Where a checkpoint goes: a user's function may save several times at one step, and the last of them counts."""
    name = f"ckpt-{progress:012d}-{fence}"
    same = [int(m[3] or 0) for p in folder.glob(f"{name}*") if (m := _NAME.match(p.name)) and int(m[2]) == fence]
    return folder / (f"{name}-{max(same) + 1}" if same else name)


def _remove(path: Path) -> None:
    """Removes a checkpoint's folder, or whatever has taken its place."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _digest(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest's contents, however they are laid out in the file."""
    read_back = json.loads(json.dumps(manifest))  # as whoever reads the file sees them
    return hashlib.sha256(json.dumps(read_back, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def segments_of(path: Path) -> tuple[Segment, ...]:
    """The segments that a checkpoint's manifest lists."""
    return _listed(manifest_of(path))


def _listed(manifest: dict[str, Any]) -> tuple[Segment, ...]:
    return tuple(Segment(**facts) for facts in manifest.get("segments", ()))


def manifest_of(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, after its own sha256 and what it says of its place were verified.

    Raises:
        DamagedError: it is not what was written, or was written for another place.
        ValueError, KeyError, ...: it cannot be read at all.
    """
    file = _regular(path / "manifest.json")
    if file.stat().st_size > LARGEST_MANIFEST:
        raise DamagedError(f"{file} is larger than any manifest")
    manifest = json.loads(file.read_bytes())
    found = manifest.pop("sha256", None)
    if manifest["format"] not in READABLE:
        raise DamagedError(f"{path} has format {manifest['format']}; this version of Seedbed reads {READABLE}")
    if (found or manifest["format"] not in UNSUMMED) and found != _digest(manifest):
        raise DamagedError(f"{file} is not what was written")
    name = _NAME.match(path.name)
    if name is None or [manifest["progress"], manifest["fence"]] != [int(name[1]), int(name[2])]:
        raise DamagedError(f"{file} belongs to a folder of another name")
    if manifest.get("cohort", path.parent.name) != path.parent.name:
        raise DamagedError(f"{file} belongs to cohort {manifest['cohort']}")
    return manifest


def _regular(file: Path) -> Path:
    """A file, after checking that it is one: reading a pipe would wait for ever."""
    if not file.is_file():
        raise DamagedError(f"{file} {'is not a file' if file.exists() else 'is missing'}")
    return file


def _segments(folder: Path) -> Path:
    return folder / "segments"


def _facts(segment: Segment) -> dict[str, Any]:
    return {name: value for name, value in vars(segment).items() if name != "tensors"}


def _write_segment(folder: Path, temporary: Path, fence: int, segment: Segment) -> Segment:
    """Writes a segment under a name that no other content ever has: steps differ at most between fences."""
    whole = "-whole" * segment.whole
    name = f"{segment.owner}-{segment.first:012d}-{segment.last:012d}-{fence}{whole}.safetensors"
    file = temporary / name
    write_tensors(file, {key: resolved(t) for key, t in segment.tensors().items()})
    written = replace(segment, name=name, bytes=file.stat().st_size, sha256=sha256_file(file))
    set_aside(_segments(folder), Path.is_dir)
    make_folder(_segments(folder))
    with room_for(file):
        file.replace(_segments(folder) / name)
    return written


def _drop_segments(folder: Path, fence: int) -> None:
    """Removes segments that no checkpoint lists; those of a later fence are another worker's, which is about to."""
    listed: set[str] = set()
    for path in generations(folder):
        with contextlib.suppress(Exception):  # a damaged one lists nothing that could be used
            listed.update(s.name for s in segments_of(path))
    for file in _segments(folder).glob("*.safetensors"):
        match = _SEGMENT_NAME.match(file.name)
        if match and file.name not in listed and int(match[1]) <= fence:
            file.unlink(missing_ok=True)


def generations(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first: by progress, then by fence, then by turn."""
    found = [(int(m[1]), int(m[2]), int(m[3] or 0), p) for p in folder.glob("ckpt-*") if (m := _NAME.match(p.name))]
    return [path for *_, path in sorted(found, reverse=True)]


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint after verifying every byte of it.

    Raises:
        DamagedError: a file is missing, has another size or another sha256, or the manifest cannot be read.
    """
    try:
        manifest = manifest_of(path)
        for name, facts in manifest["files"].items():
            _check_file(path / Path(name).name, facts["bytes"], facts["sha256"], path)
        found = Checkpoint(path, manifest["progress"], None, manifest["meta"], _listed(manifest))
        for segment in found.segments:
            _check_file(found.file(segment), segment.bytes, segment.sha256, path)
        tensors = load_file(path / "state.safetensors")
        shapes = {n: [str(t.dtype), list(t.shape)] for n, t in tensors.items()}
        if shapes != manifest["tensors"]:
            raise DamagedError(f"{path} holds other tensors than its manifest says")
        tree = unpack(manifest["tree"], tensors)
    except DamagedError:
        raise
    except Exception as error:  # damage may show in any way: nested too deeply, too large for the memory, ...
        raise DamagedError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return replace(found, tree=tree)


def _check_file(file: Path, size: int, sha256: str, path: Path) -> None:
    if _regular(file).stat().st_size != size or sha256_file(file) != sha256:
        raise DamagedError(f"{file} is not what the manifest of {path.name} says")


def good_checkpoints(folder: Path) -> Iterator[Checkpoint | DamagedError]:
    """The cohort's checkpoints, newest first; a damaged one comes as the error that says so."""
    for path in generations(folder):
        try:
            yield load(path)
        except DamagedError as error:
            yield error


def newest_progress(folder: Path) -> int | None:
    """The progress of a cohort's newest checkpoint, read off its name and not checked; None where there is none."""
    names = [path.name for path in generations(folder)]
    return int(names[0].split("-")[1]) if names else None


def check_like(template: Any, tree: Any, path: str = "state") -> None:
    """Checks that a tree has the template's names, shapes and dtypes.

    Raises:
        DamagedError: naming the first place where they differ.
    """
    if isinstance(template, dict):
        if not isinstance(tree, dict) or template.keys() != tree.keys():
            raise DamagedError(f"{path}: other names than this version's")
        for key, value in template.items():
            check_like(value, tree[key], f"{path}.{key}")
    elif not isinstance(tree, Tensor) or tree.shape != template.shape or tree.dtype != template.dtype:
        raise DamagedError(f"{path}: another shape or type than this version's")
