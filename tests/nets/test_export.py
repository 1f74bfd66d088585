"""Networks in files: equal after loading, refused when anything is wrong; ONNX agrees with torch."""

from __future__ import annotations

import importlib.util
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils import _pytree as pytree

from harness.packing import separate
from nets import export, lora, registry
from nets.export import ExportError, load, save
from nets.mlp import MLP
from nets.onnx_export import to_onnx
from nets.registry import build
from nets.transfer import swap_head
from tests.conformance.examples import examples

CONFIG = {"kind": "mlp", "hidden_features": [4, 3], "norm": "batch"}


def network(output=2, **more):
    torch.manual_seed(0)
    return build({**CONFIG, **more}, (5,), output).eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.safetensors"
    save(network(), path)
    return path


def altered(file, tensors=None, **changes):
    """The file with other weights, or with changes to its description."""
    description = {**export.describe_file(file), **changes}
    save_file(tensors or load_file(file), file, metadata={export.KEY: json.dumps(description)})
    return file


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.id)
def test_every_block_survives(example, tmp_path):
    net = build(example.config, example.input_shape, example.output).eval()
    save(net, tmp_path / "net.safetensors")
    state = torch.get_rng_state()
    loaded = load(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    inputs = example.make_inputs()
    found, expected = (pytree.tree_leaves(n(*inputs)) for n in (loaded, net))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert loaded.recipe == json.loads(json.dumps(net.recipe))
    assert {p.name for p in tmp_path.iterdir()} == {"net.safetensors"}


def test_types_heads_and_adapters_survive(tmp_path):
    path, x = tmp_path / "net.safetensors", torch.randn(3, 5, dtype=torch.float64)
    net = swap_head(network().double(), {"kind": "categorical", "out_features": 4})
    lora.adapt(net, rank=2)
    with torch.no_grad():
        for layer in lora.adapted(net).values():
            layer.lora_b.normal_()
    save(net, path)
    assert (load(path)(x) - net(x)).abs().max() < 1e-12
    assert lora.adapted(net)  # the network itself was not merged
    assert not any("lora" in name for name in load_file(path))


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ExportError, match=r"MLP was not made by nets\.registry\.build"):
        save(MLP(4, [3], 2), path)
    net = network()
    net.head = nn.Linear(3, 9)
    with pytest.raises(ExportError, match=r"not what its recipe builds.*head\.bias is not part"):
        save(net, path)
    net = network()
    net.head.double()
    with pytest.raises(ExportError, match=r"several types: torch.float32, torch.float64"):
        save(net, path)
    net = network()
    net.recipe["config"]["norm"] = object()
    with pytest.raises(ExportError, match="not plain data"):
        save(net, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2; this version of Seedbed reads format 1"),
        ({"format": "1"}, "description is damaged"),
        ({"dtype": "load"}, "description is damaged"),
        ({"recipe": {"config": CONFIG}}, "description is damaged"),
        ({"recipe": {"config": {"kind": "os.system"}, "input_shape": [5], "output": 2}}, "unknown block 'os.system'"),
        ({"recipe": {"config": {**CONFIG, "code": "x"}, "input_shape": [5], "output": 2}}, "has no field 'code'"),
        ({"recipe": {"config": CONFIG, "input_shape": [5], "output": 3}}, r"head\.linear\.weight has the shape \[2, 3"),
        ({"recipe": {"config": CONFIG, "input_shape": [5], "output": None}}, "weight is not part of the network"),
        ({"recipe": {"config": {"kind": []}, "input_shape": [5], "output": 2}}, "cannot be rebuilt here"),
        ({"recipe": {"config": CONFIG, "input_shape": [-5], "output": 2}}, "cannot be rebuilt here"),
        ({"recipe": {"config": CONFIG, "input_shape": [5], "output": "x"}}, "cannot be rebuilt here"),
        ({"recipe": {"config": CONFIG, "input_shape": [10**30], "output": 2}}, "cannot be rebuilt here"),
        ({"recipe": {"config": CONFIG, "input_shape": [10**12], "output": 2}}, "holds other weights"),
        ({"dtype": "float64"}, "is torch.float32, not torch.float64"),
    ],
)
def test_a_description_that_lies_is_refused(file, changes, message):
    with pytest.raises(ExportError, match=message):
        load(altered(file, **changes))


def test_other_weights_are_refused_before_any_is_read(file, monkeypatch):
    weights = load_file(file)
    weights["head.linear.bias"] = torch.zeros(2, dtype=torch.int64)
    on_meta = []

    def watched(recipe):
        on_meta.append(torch.empty(()).device.type == "meta")
        return build(recipe["config"], recipe["input_shape"], recipe["output"])

    monkeypatch.setattr(export, "_built", watched)
    with pytest.raises(ExportError, match=r"head\.linear\.bias is torch\.int64"):
        load(altered(file, weights))
    assert on_meta == [True]


def test_damaged_and_foreign_files(file, tmp_path):
    data = file.read_bytes()
    for bad in (data[:-3], data[:20], b"", b"PK\x03\x04" + data, b"\xff" * 64):
        (tmp_path / "bad.safetensors").write_bytes(bad)
        with pytest.raises(ExportError, match="no safetensors file, or a damaged one"):
            load(tmp_path / "bad.safetensors")
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(ExportError, match="without Seedbed's description"):
        load(file)
    for text in ("{", "[]", "[" * 10**5, '{"format": true}'):
        save_file({"x": torch.zeros(1)}, file, metadata={export.KEY: text})
        with pytest.raises(ExportError, match="description is damaged"):
            load(file)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "none.safetensors")


def test_tied_weights_are_stored_once(tmp_path, monkeypatch):
    @registry.register("tied-for-test", role="layer")
    class Tied(nn.Module):
        """Two names of one weight."""

        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.second = nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    monkeypatch.setattr(registry, "_BLOCKS", {"tied-for-test": registry._BLOCKS.pop("tied-for-test")})
    net, path = build({"kind": "tied-for-test"}), tmp_path / "net.safetensors"
    save(net, path)
    loaded = load(path)
    assert list(load_file(path)) == ["first.weight"]
    assert loaded.second.weight is loaded.first.weight
    assert torch.equal(loaded.first.weight, net.first.weight)
    save_file(separate(net.state_dict()), path, metadata=export.metadata_of(net))  # as run folders have it
    again = load(path)
    assert again.second.weight is again.first.weight
    assert torch.equal(again.first.weight, net.first.weight)


def test_memory_format_and_views_make_no_difference(tmp_path):
    torch.manual_seed(0)
    net = build({"kind": "cnn", "hidden_features": 4}, (3, 8, 8), 2)
    plain, turned = tmp_path / "plain.safetensors", tmp_path / "turned.safetensors"
    save(net, plain)
    save(net.to(memory_format=torch.channels_last), turned)
    assert plain.read_bytes() == turned.read_bytes()
    x = torch.randn(2, 3, 8, 8)
    assert (load(turned)(x) - net.eval()(x)).abs().max() < 1e-6


# ONNX


def differences(net, path, inputs):
    """Between torch and onnxruntime: the largest difference of each output."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
    found = session.run(None, given)
    with torch.no_grad():
        expected = pytree.tree_leaves(net.eval()(*inputs))
    return [float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(found, expected, strict=True)]


def onnx_is_equal(net, path, given, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx(net, path, **how)
    for rows in (1, 5):
        batch = tuple(t.repeat(3, *[1] * (t.dim() - 1))[:rows] for t in given)
        assert max(differences(net, path, batch)) <= 1e-5


def test_onnx_agrees_for_any_batch(tmp_path, capfd):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    net = network({"kind": "categorical", "out_features": 3}).train()
    lora.adapt(net, ["encoder"], rank=2)
    onnx_is_equal(net, tmp_path / "net.onnx", (torch.randn(2, 5),))
    assert lora.adapted(net)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx"}
    assert capfd.readouterr() == ("", "")


class OneLength(nn.Module):
    """Takes the length of its batch for a constant."""

    def forward(self, x):
        return x.reshape(len(x), -1)


class OtherNumbers(nn.Module):
    """Gives other numbers once it is exported."""

    def forward(self, x):
        return x + torch.compiler.is_compiling()


def test_onnx_with_a_fixed_batch_is_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    with pytest.raises(ValueError, match=r"OneLength would be written as ONNX with a fixed batch of 2 rows; take"):
        to_onnx(OneLength(), tmp_path / "net.onnx", (3,))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_that_computes_something_else_is_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    with pytest.raises(ValueError, match=r"OtherNumbers, written as ONNX, at 1 rows gives other numbers .* up to 1"):
        to_onnx(OtherNumbers(), tmp_path / "net.onnx", (3,))
    assert not list(tmp_path.iterdir())


def batch_axes(net, path, inputs=None):
    """The names of the inputs' first axes; "" is a fixed one."""
    to_onnx(net, path, inputs=inputs)
    import onnx

    return {i.name: i.type.tensor_type.shape.dim[0].dim_param for i in onnx.load(path).graph.input}


def test_onnx_of_sequences_takes_any_batch(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    axes = batch_axes(build({"kind": "cnn-1d", "hidden_features": 4}, (8, 2), 3).eval(), tmp_path / "net.onnx")
    assert list(axes) == ["input"]
    assert all(axes.values())


@pytest.mark.slow
def test_onnx_of_films_and_denoisers_takes_any_batch(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    for example in (e for e in examples() if e.id in ("mocogan-generator", "unet")):
        net = build(example.config, example.input_shape, example.output).eval()
        axes = batch_axes(net, tmp_path / "net.onnx", example.make_inputs())
        assert list(axes) == ["input", "input_1", "labels"][: len(axes)]
        assert all(axes.values())


@pytest.mark.slow
def test_onnx_agrees_for_a_module_of_ones_own(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    onnx_is_equal(MLP(4, [3], 2), tmp_path / "net.onnx", (torch.randn(3, 4),), input_shape=(4,))


def test_onnx_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "seedbed\[onnx\]"'):
        to_onnx(network(), tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in examples() if e.input_shape and not e.tag], ids=lambda e: e.id)
def test_onnx_agrees_for_every_encoder_and_generator(example, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    net = build(example.config, example.input_shape, example.output).eval()
    onnx_is_equal(net, tmp_path / "net.onnx", example.make_inputs(), inputs=example.make_inputs())
