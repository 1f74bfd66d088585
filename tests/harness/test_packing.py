"""What goes into a checkpoint comes back with its value, type, shape and dtype, or is refused by name."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness import checkpoint
from harness.checkpoint import load, save
from harness.packing import pack, separate, unpack


@pytest.fixture
def through(tmp_path: Path):
    """Saves a tree and loads it back."""
    checkpoint.write_fence(tmp_path / "c", 1)

    def both(tree):
        path = save(tmp_path / "c", 1, 1, tree, {})
        found = load(path).tree
        shutil.rmtree(path)
        return found

    return both


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and (a == b or (math.isnan(a) and math.isnan(b)))


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1 + 2j, 3 - 4j]).conj(),
        torch.tensor([1 + 2j, 3 - 4j]).conj().imag,  # a negated view
        torch.tensor([[1 + 2j]], dtype=torch.complex128),
        torch.tensor(7, dtype=torch.uint16),
        torch.zeros(2, 0),
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(2).as_strided((3, 2), (0, 1)),
        np.array(3.5),
        np.array(3.5, dtype=">f8"),
        np.arange(4, dtype=">i2").reshape(2, 2),
        np.array([1 + 2j]),
        np.array(["a", "bcd"]),
        np.array(["2024-01-02"], dtype="datetime64[D]"),
        np.array([1.5], dtype=np.longdouble),
        np.arange(6)[::-2],
        np.zeros((0, 3), dtype=np.float16),
        np.float32(0.1),
        np.int64(3),
        np.complex128(1j),
        np.bool_(True),
        math.inf,
        -math.inf,
        math.nan,
        -0.0,
        2**70,
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(through, value):
    expected = value.clone() if isinstance(value, torch.Tensor) else value
    assert equal(through({"a": [value]})["a"][0], expected)


def test_a_read_only_array_comes_back(through, recwarn):
    array = np.arange(3.0)
    array.flags.writeable = False
    assert equal(through({"a": array})["a"], np.arange(3.0))
    assert not recwarn.list


@pytest.mark.parametrize(
    "tree",
    [
        {"a.b": 1, "a": {"b": 2}},
        {"a%2Eb": 1, "a.b": 2},
        {1: 1, "1": 2},
        {"$1": 1, 1: 2},
        {(1, 2): 1, "(1, 2)": 2, None: 3, "None": 4, 1.5: 5, True: 6},
        {np.int64(1): 1, "1": 2},
        {"": {"a": 1}, "a": 2},
        {"__metadata__": 1, "%__metadata__": 2},
        {"$tensor": 1, "$float": 2},
    ],
    ids=repr,
)
def test_every_place_has_a_name_of_its_own(through, tree):
    def tensors(value):
        return {k: tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.tensor([value])

    def numbers(value):
        return {k: numbers(v) for k, v in value.items()} if isinstance(value, dict) else int(value)

    assert numbers(through(tensors(tree))) == tree


def test_one_tensor_in_two_places_is_one_tensor_again(through):
    weights, array = torch.arange(4.0), np.arange(3)
    parts = {"whole": weights, "half": weights[:2], "other": weights[2:]}
    back = through({"model": weights, "best": weights, "arrays": [array, array], **parts})
    assert back["model"] is back["best"]
    back["arrays"][0][0] = 9
    assert back["arrays"][1][0] == 9
    assert back["half"].tolist() == [0, 1]
    assert back["other"].tolist() == [2, 3]
    back["half"][0] = 5.0  # a view of a part becomes a copy
    assert back["model"][0] == 0.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(2).to_sparse(), r"x\.y is a sparse or nested tensor; save a dense one"),
        (torch.zeros(2, device="meta"), r"x\.y is a meta tensor"),
        (np.array([object()]), r"x\.y is an array of object"),
        (np.zeros(2, dtype=[("a", "f4")]), r"x\.y is an array of \[\('a', '<f4'\)\]"),
        (np.ma.masked_array([1.0], [True]), r"x\.y is a MaskedArray"),
        ({frozenset(): 1}, r"x\.y has a frozenset for a key"),
        ({1}, r"x\.y is a set"),
    ],
)
def test_what_could_not_come_back_is_refused_by_name(value, message):
    with pytest.raises(TypeError, match=message):
        pack({"x": {"y": value}})


def test_a_tree_that_contains_itself_is_refused():
    tree: dict = {}
    tree["again"] = tree
    with pytest.raises(TypeError, match="nested too deeply, or contains itself"):
        pack(tree)


def test_a_checkpoint_of_the_first_format_still_loads(tmp_path: Path):
    checkpoint.write_fence(tmp_path / "c", 1)
    path = save(tmp_path / "c", 1, 1, {"w": torch.ones(2), "o": torch.zeros(1)}, {})
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["format"] = 1
    del manifest["sha256"], manifest["cohort"]
    manifest["tree"] = {"w": {"$tensor": "w"}, "states": {"$items": [[0, {"$array": "o"}]]}, "n": 0.5}
    (path / "manifest.json").write_text(json.dumps(manifest))
    tree = load(path).tree
    assert tree["w"].tolist() == [1, 1]
    assert tree["states"][0].tolist() == [0]
    assert tree["n"] == 0.5


def test_names_that_need_no_escape_are_what_they_were():
    tensors, skeleton = pack({"a": {"b": torch.ones(1)}, "c": [torch.zeros(1)]})
    assert list(tensors) == ["a.b", "c.0"]
    assert unpack(json.loads(json.dumps(skeleton)), tensors)["a"]["b"] is tensors["a.b"]


def test_weights_are_separate_whatever_they_share():
    net = nn.Linear(3, 3)
    net.register_buffer("part", net.weight.detach()[0])
    net.register_buffer("turned", torch.tensor([1 + 1j]).conj())
    found = separate({**net.state_dict(), "tied": net.weight})
    assert len({t.untyped_storage().data_ptr() for t in found.values()}) == 5
    assert torch.equal(found["part"], net.weight[0])
    assert found["turned"].tolist() == [1 - 1j]
    assert not found["turned"].is_conj()
    with pytest.raises(TypeError, match=r"wide is a torch\.strided tensor of torch\.complex128"):
        separate({"wide": torch.zeros(1, dtype=torch.complex128)})
