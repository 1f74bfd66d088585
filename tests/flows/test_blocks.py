"""`seedbed blocks` and `seedbed export`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

import harness
from flows.blocks import parse_shape, type_name
from flows.cli import app
from flows.errors import UserError
from harness import learner
from harness.ledger import Ledger
from harness.spec import LearnerConfig, Score, Trial
from nets.export import load, save
from nets.outputs import output_file
from nets.registry import blocks, build
from nets.transfer import load_encoder, read_weights
from tests.flows.conftest import ROOT, environment

PAGE = (ROOT / "docs" / "blocks.md").read_text()
TRIALS = ("aaaa000000000001", "aaaa000000000002", "bbbb000000000003", "cccc000000000004")


def seedbed(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, list(map(str, arguments)))


def refused(*arguments: str | Path) -> str:
    """The one sentence of a command that was wrong."""
    done = seedbed(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr.strip()


def test_it_lists_every_block_with_every_field_and_loads_little() -> None:
    code = (
        "import sys\nfrom flows.cli import main\nsys.argv = ['seedbed', 'blocks', '--json']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'ray', 'prefect', 'wandb', 'pandas', 'sqlalchemy', 'harness', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment())
    found, heavy = done.stdout.strip().splitlines()
    assert heavy == "[]"
    assert done.stderr == ""
    listed = {b["kind"]: b for b in json.loads(found)["blocks"]}
    assert set(listed) == set(blocks())
    for kind, block in blocks().items():
        assert [f["name"] for f in listed[kind]["fields"]] == [f.name for f in block.fields]
        assert all(f["type"] and f["description"] for f in listed[kind]["fields"])
        assert listed[kind]["summary"]


def test_the_list_for_people() -> None:
    lines = seedbed("blocks").stdout.splitlines()
    assert set(blocks()) == {line.strip() for line in lines if line.startswith("  ") and line[2] != " "}
    assert any(line.startswith("      activation: str = relu. a name in") for line in lines)
    assert max(map(len, lines)) <= 120


def test_one_block_and_its_network() -> None:
    text = seedbed("blocks", "mlp").stdout
    assert "Encoders" in text
    assert "Heads" not in text
    wanted = ("--input", "1x4", "--output", "3", "--set", "hidden_features=[5]", "--set", "norm=layer")
    text = seedbed("blocks", "mlp", *wanted).stdout
    assert "input [1, 1, 4]" in text
    assert "53 parameters: 53 trainable" in text  # 4 * 5 + 5, the norm's 10, 5 * 3 + 3
    assert "[1, 4]" in seedbed("blocks", "gaussian", "--input", "3", "--output", "2").stdout
    found = json.loads(seedbed("blocks", "mlp", *wanted, "--json").stdout)
    assert found["description"]["parameters"] == 53
    assert [b["kind"] for b in found["blocks"]] == ["mlp"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mpl"], "there is no block called mpl: did you mean mlp?"),
        (["no such thing"], "there is no block called no such thing; `seedbed blocks` lists them"),
        (["mlp", "--input", "4", "--set", "width=3"], "block 'mlp' has no field 'width'; it has: hidden_features"),
        (["mlp", "--input", "4", "--set", "width"], "--set width: write field=value"),
        (["mlp", "--input", "4", "--set", "depth=two"], "block 'mlp', field 'depth': 'two' is no int"),
        (["mlp", "--input", "4", "--set", "depth=["], "--set depth=[: [ is no YAML value"),
        (["mlp", "--input", "4,"], "--input 4,: a shape is written like 1,28,28"),
        (["mlp", "--input", "-4"], "--input -4: a shape is written like 1,28,28"),
        (["mlp", "--set", "depth=1"], "--output and --set need an input shape: --input 1,28,28"),
        (["--input", "4"], "--input, --output and --set describe one block: name it"),
        (["dropout", "--input", "4", "--output", "3"], "a layer takes no --output"),
        (["linear", "--input", "4"], "a head needs --output"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], message: str) -> None:
    assert refused("blocks", *arguments).startswith(message)


def test_types_and_shapes_as_people_write_them() -> None:
    assert type_name(int | tuple[int, ...] | None) == "int | list of int | null"
    assert type_name(Literal["a", "b"]) == "a | b"
    assert type_name(dict[str, int]) == "mapping"
    assert parse_shape("1x28, 28", "--input") == (1, 28, 28)
    with pytest.raises(UserError, match="--input 0"):
        parse_shape("0", "--input")


class TinyConfig(LearnerConfig):
    built: bool = True


class Tiny(learner.Learner):
    """Has a network and trains nothing."""

    Config = TinyConfig
    unit = "steps"
    score = Score("accuracy", "max", 0.0)

    def start(self, lanes: Any) -> Any:
        self.built = lanes.config.built
        return {}

    def network(self, state: Any, lane: int) -> nn.Module:
        return build({"kind": "mlp", "hidden_features": [3]}, (4,), 2) if self.built else nn.Linear(4, 2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four trials: built from the registry, built without network files (twice), an ordinary module."""
    monkeypatch.setitem(learner.BUILTIN, "tiny", "tests.flows.test_blocks:Tiny")
    root = tmp_path / "runs"
    root.mkdir()
    ledger = Ledger(root / "ledger.sqlite")
    with ledger.drive("small", "small.yaml"):
        trials = [Trial(t, "tiny", 1, {"built": t[0] != "c"}, 0, "tiny") for t in TRIALS]
        ledger.register("small", trials, {t: (10, "steps") for t in TRIALS})
        ledger.set_trials(TRIALS, state="done")
    ledger.close()
    for trial in TRIALS:
        (root / "trials" / trial).mkdir(parents=True)
    torch.manual_seed(0)
    built = build({"kind": "mlp", "hidden_features": [3]}, (4,), 2)
    save_file(built.state_dict(), root / "trials" / TRIALS[2] / "best.safetensors")
    save_file(nn.Linear(4, 2).state_dict(), root / "trials" / TRIALS[3] / "best.safetensors")
    monkeypatch.chdir(tmp_path)
    return root


def test_a_trial_is_exported_by_the_beginning_of_its_id(root: Path, tmp_path: Path) -> None:
    done = seedbed("export", "bb", "--root", root)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{TRIALS[2]}.safetensors\n"
    net = load(tmp_path / f"{TRIALS[2]}.safetensors")
    trained = build({"kind": "mlp", "hidden_features": [3]}, (4,), 2)
    trained.load_state_dict(net.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(net(x), trained.eval()(x))


def test_a_trial_as_onnx(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    asked = ("export", TRIALS[3], "--root", root, "--format", "onnx", "--output", tmp_path / "x.onnx")
    assert refused(*asked).startswith(f"trial {TRIALS[3]}: its Linear does not say how it was built; only")
    assert seedbed(*asked, "--input", "4").stdout == f"{tmp_path / 'x.onnx'}\n"
    assert (tmp_path / "x.onnx").stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aa"], "2 trials begin with aa: aaaa000000000001, aaaa000000000002"),
        (["dd"], "has no trial dd"),
        ([""], "has no trial"),
        ([TRIALS[0]], f"trial {TRIALS[0]} (done) has no best.safetensors"),
        ([TRIALS[2], "--which", "final"], f"trial {TRIALS[2]} (done) has no final.safetensors"),
        ([TRIALS[2], "--output", "no/such/file"], "there is no folder no/such to write to"),
        ([TRIALS[3]], f"trial {TRIALS[3]}: its Linear does not say how it was built; only --format onnx"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(root: Path, arguments: list[str], message: str) -> None:
    assert message in refused("export", *arguments, "--root", root)
    assert not list(root.parent.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(Path.mkdir, "a folder"), (os.mkfifo, "a named pipe"), (lambda path: path.symlink_to("kept"), "a symbolic link")],
)
def test_only_a_regular_file_is_replaced(root: Path, tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    (tmp_path / "kept").write_text("kept")
    place = tmp_path / "there"
    make(place)
    before = os.lstat(place)
    sentence = f"{place} is {kind}, not a regular file, and is not replaced; name another file"
    assert refused("export", "bb", "--root", root, "--output", place) == sentence
    with pytest.raises(ValueError, match=f"is {kind}, not a regular file"):
        save(build({"kind": "mlp"}, (4,), 2), place)
    assert (os.lstat(place).st_ino, os.lstat(place).st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "kept").read_text() == "kept"
    with pytest.raises(ValueError, match="/dev/null is a device"):  # only asked: root could replace it
        output_file("/dev/null")
    assert seedbed("export", "bb", "--root", root, "--output", tmp_path / "kept").exit_code == 0  # this one is
    assert load(tmp_path / "kept")


def test_a_folder_that_is_no_run_root(tmp_path: Path) -> None:
    assert "is no run root: it has no ledger.sqlite" in refused("export", "aa", "--root", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_encoder_from_a_trial(root: Path) -> None:
    source = harness.load("small", root).network(TRIALS[2])
    net = build({"kind": "mlp", "hidden_features": [3]}, (4,), 5)
    assert "2 of 2 tensors matched" in str(load_encoder(net, source))
    file = root / "trials" / TRIALS[2] / "best.safetensors"
    assert torch.equal(net.encoder.layers[0].weight, read_weights(file)["encoder.layers.0.weight"])


def test_the_page_about_blocks_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.S | re.M):
        exec(compile(code, "blocks.md", "exec"), names)
    assert {file.name for file in tmp_path.iterdir()} == {"net.safetensors", "net.onnx"}
    assert names["net"](torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    commands = re.findall(r"^seedbed (.*?) *(?:#.*)?$", PAGE, flags=re.M)
    assert len(commands) == 3
    for command in commands:
        assert seedbed(*command.split()).exit_code == 0, command
