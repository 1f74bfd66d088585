"""Checkpoints of cohorts: one atomic folder, safetensors and JSON only.

Write protocol: a temporary folder per attempt; tensors, fsync; the manifest with sizes and sha256 last, fsync; the
fence is checked; rename; fsync of the parent. The previous checkpoint goes only after the new one counts, and one older
generation is kept for the case that the newest turns out to be damaged.

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

from harness.files import make_folder, room_for, sync, temporary_name, write_json, write_tensors
from harness.packing import pack, resolved, unpack

__all__ = [
    "Checkpoint",
    "DamagedError",
    "FencedError",
    "Segment",
    "check_like",
    "good_checkpoints",
    "load",
    "newest_progress",
    "pack",
    "save",
    "segments_of",
    "sha256_file",
    "unpack",
    "write_fence",
]

FORMAT = 2  # what is written; 1 had no escaped names and fewer types, and is read likewise
READABLE = (1, 2)
_NAME = re.compile(r"ckpt-(\d{12})-(\d+)$")
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
    write_json(folder / "fence.json", {"fence": fence})


def check_fence(folder: Path, fence: int) -> None:
    """Raises FencedError unless `fence` is the current one."""
    try:
        current = json.loads((folder / "fence.json").read_text())["fence"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # the driver writes it anew when it opens the cohort
        raise FencedError(f"cohort {folder.name} has no readable fence.json ({error})") from error
    if current != fence:
        raise FencedError(f"cohort {folder.name} was taken over (fence {current}, this worker has {fence})")


def save(
    folder: Path, progress: int, fence: int, tree: Any, meta: dict[str, Any], segments: Sequence[Segment] = ()
) -> Path:
    """Writes a checkpoint and makes it count, then drops all but the newest two, and segments that none of them lists.

    Args:
        folder: the cohort's folder (holds fence.json).
        progress: the cohort's progress.
        fence: this worker's fence number.
        tree: what to save.
        meta: JSON facts: lane -> trial, alive, mode, threads, committed bytes of the metrics files.
        segments: what it lists; those without a name are written.

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
            "progress": progress,
            "fence": fence,
            "files": {state.name: {"bytes": state.stat().st_size, "sha256": sha256_file(state)}},
            "segments": [_facts(s) for s in listed],
            "tensors": {n: [str(t.dtype), list(t.shape)] for n, t in tensors.items()},
            "tree": skeleton,
            "meta": meta,
        }
        write_json(temporary / "manifest.json", manifest, durable=True)
        check_fence(folder, fence)
        target = folder / f"ckpt-{progress:012d}-{fence}"
        if target.exists():  # the same boundary under the same fence: what is there already counts
            return target
        with room_for(target):
            temporary.rename(target)
            sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _folders(folder)[2:]:
        shutil.rmtree(old, ignore_errors=True)
    _drop_segments(folder, fence)
    return target


def segments_of(path: Path) -> tuple[Segment, ...]:
    """The segments that a checkpoint's manifest lists."""
    manifest = json.loads((path / "manifest.json").read_text())
    return tuple(Segment(**facts) for facts in manifest.get("segments", ()))


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
    make_folder(_segments(folder))
    with room_for(file):
        file.replace(_segments(folder) / name)
    return written


def _drop_segments(folder: Path, fence: int) -> None:
    """Removes segments that no checkpoint lists; those of a later fence are another worker's, which is about to."""
    listed: set[str] = set()
    for path in _folders(folder):
        with contextlib.suppress(OSError, ValueError, TypeError):  # a damaged one lists nothing that could be used
            listed.update(s.name for s in segments_of(path))
    for file in _segments(folder).glob("*.safetensors"):
        match = _SEGMENT_NAME.match(file.name)
        if match and file.name not in listed and int(match[1]) <= fence:
            file.unlink(missing_ok=True)


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first: by progress, then by fence."""
    found = [(int(m[1]), int(m[2]), p) for p in folder.glob("ckpt-*") if (m := _NAME.match(p.name))]
    return [path for _, _, path in sorted(found, reverse=True)]


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint after verifying every byte of it.

    Raises:
        DamagedError: a file is missing, has another size or another sha256, or the manifest cannot be read.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name, facts in manifest["files"].items():
            file = path / Path(name).name
            if file.stat().st_size != facts["bytes"] or sha256_file(file) != facts["sha256"]:
                raise DamagedError(f"{file} is not what its manifest says")
        found = Checkpoint(path, manifest["progress"], None, manifest["meta"], segments_of(path))
        for segment in found.segments:
            file = found.file(segment)
            if file.stat().st_size != segment.bytes or sha256_file(file) != segment.sha256:
                raise DamagedError(f"{file} is not what the manifest of {path.name} says")
        tensors = load_file(path / "state.safetensors")
        shapes = {n: [str(t.dtype), list(t.shape)] for n, t in tensors.items()}
        if manifest["format"] not in READABLE or shapes != manifest["tensors"]:
            raise DamagedError(f"{path} holds other tensors than its manifest says")
        tree = unpack(manifest["tree"], tensors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    return replace(found, tree=tree)


def good_checkpoints(folder: Path) -> Iterator[Checkpoint | DamagedError]:
    """The cohort's checkpoints, newest first; a damaged one comes as the error that says so."""
    for path in _folders(folder):
        try:
            yield load(path)
        except DamagedError as error:
            yield error


def newest_progress(folder: Path) -> int | None:
    """The progress of a cohort's newest checkpoint, read off its name and not checked; None where there is none."""
    names = [path.name for path in _folders(folder)]
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
