"""The write protocol: what counts, what is detected, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import checkpoint
from harness.checkpoint import Checkpoint, DamagedError, FencedError, good_checkpoints, load, pack, save, unpack


def tree() -> dict:
    return {
        "w": torch.arange(6.0).reshape(2, 3),
        "nested": {"flag": torch.tensor([True, False]), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimiser": {0: {"step": 3, "moment": torch.zeros(2)}, 1: {"betas": (0.9, 0.99)}},
        "list": [1, 2.5, "x", None, True, np.arange(3)],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.write_fence(tmp_path / "c", 1)
    return tmp_path / "c"


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and a == b


def test_what_is_packed_comes_back():
    tensors, skeleton = pack(tree())
    assert same(tree(), unpack(json.loads(json.dumps(skeleton)), tensors))


def test_a_foreign_object_is_refused_by_name():
    with pytest.raises(TypeError, match=r"a\.b is a object"):
        pack({"a": {"b": object()}})


def test_saved_and_loaded(folder: Path):
    path = save(folder, 40, 1, tree(), {"trials": ["x"]})
    back = load(path)
    assert same(tree(), back.tree)
    assert (back.progress, back.meta) == (40, {"trials": ["x"]})


def test_two_generations_are_kept_and_no_temporary_folder(folder: Path):
    for progress in (10, 20, 30, 40):
        save(folder, progress, 1, tree(), {})
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["ckpt-000000000030-1", "ckpt-000000000040-1", "fence.json"]


def test_an_old_fence_commits_nothing(folder: Path):
    save(folder, 10, 1, tree(), {})
    checkpoint.write_fence(folder, 2)
    with pytest.raises(FencedError):
        save(folder, 20, 1, tree(), {})
    assert sorted(p.name for p in folder.iterdir()) == ["ckpt-000000000010-1", "fence.json"]


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_every_truncation_is_detected(folder: Path, name: str):
    path = save(folder, 10, 1, tree(), {"trials": ["x"]})
    whole = (path / name).read_bytes()
    for cut in np.linspace(0, len(whole) - 1, 64).astype(int):
        (path / name).write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            load(path)
    (path / name).write_bytes(whole)
    load(path)


def test_every_flipped_bit_of_the_tensors_is_detected(folder: Path):
    path = save(folder, 10, 1, tree(), {})
    file = path / "state.safetensors"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(256):
        bad = bytearray(whole)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(bad))
        with pytest.raises(DamagedError):
            load(path)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(folder: Path):
    save(folder, 10, 1, tree(), {})
    newest = save(folder, 20, 1, tree(), {})
    (newest / "state.safetensors").unlink()
    found = list(good_checkpoints(folder))
    assert isinstance(found[0], DamagedError)
    assert isinstance(found[1], Checkpoint)
    assert found[1].progress == 10


def test_another_shape_type_or_name_is_refused():
    ok = {"a": torch.zeros(2, 3), "b": {"c": torch.zeros(2)}}
    checkpoint.check_like(ok, {"a": torch.ones(2, 3), "b": {"c": torch.ones(2)}})
    for bad in (
        {"a": torch.zeros(2, 4), "b": ok["b"]},
        {"a": torch.zeros(2, 3).double(), "b": ok["b"]},
        {"a": ok["a"]},
        {"a": ok["a"], "b": {"c": 1}},
    ):
        with pytest.raises(DamagedError, match="state"):
            checkpoint.check_like(ok, bad)
