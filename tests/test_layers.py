"""What import-linter cannot see: lazy knowledge of lanes in learners, stray imports, sizes of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "agents", "generative", "supervised", "harness", "nets")
LEARNERS = ("agents", "generative", "supervised")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

# who may import what: a package and the places (prefixes of paths) that may
MAY_IMPORT = {
    "prefect": ("flows/",),
    "ray": ("harness/executors/ray.py", "harness/executors/ray_here.py", "flows/submit.py"),
    "wandb": ("harness/tracking/",),
    "gymnasium": ("agents/",),
    "stable_baselines3": ("agents/",),
}
NEVER = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def knows_execution(tree: ast.AST) -> list[str]:
    """Signs that code knows how lanes are executed: vmap, torch.compile, a branch on the device."""
    found = []
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        imports = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom | ast.Import) else set()
        if name == "vmap" or "vmap" in imports:
            found.append("vmap")
        if name == "compile" and not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "re"):
            found.append("compile")
        if name == "cuda":
            found.append("cuda")
        if isinstance(node, ast.If | ast.IfExp | ast.While) and "device" in ast.unparse(node.test):
            found.append("a branch on the device")
        if isinstance(node, ast.Match) and "device" in ast.unparse(node.subject):
            found.append("a branch on the device")
    return found


def own_writes(tree: ast.AST) -> list[str]:
    """Places that write a file by other means than `harness.files`."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        method = isinstance(node.func, ast.Attribute)
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opens = name in ("open", "fdopen") and any(set(mode) & set("wax") and len(mode) < 4 for mode in modes)
        if (
            opens
            or name in ("save_file", "mkstemp", "copyfile", "copy2")
            or (method and name in ("write_text", "write_bytes", "mkdir"))
        ):
            found.append(f"line {node.lineno}: {name}")
    return found


def long_functions(tree: ast.AST, most: int) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno + 1 > most]


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_stay_where_they_belong(file: Path) -> None:
    here = relative(file)
    names = set(imported(ast.parse(file.read_text())))
    assert not names & NEVER
    for package, places in MAY_IMPORT.items():
        if package in names:
            assert here.startswith(places), f"{here} must not import {package}"


@pytest.mark.parametrize("file", [f for f in FILES if relative(f).startswith(LEARNERS)], ids=relative)
def test_learners_do_not_know_how_lanes_are_executed(file: Path) -> None:
    assert knows_execution(ast.parse(file.read_text())) == []


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="ascii")
    assert len(text.splitlines()) <= 400
    assert long_functions(ast.parse(text), 60) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from torch.func import vmap", ["vmap"]),
        ("torch.func.vmap(f)(x)", ["vmap"]),
        ("step = torch.compile(step)", ["compile"]),
        ("@torch.compile\ndef f(): ...", ["compile"]),
        ("y = x if x.device.type == 'cpu' else z", ["a branch on the device"]),
        ("if execution.device:\n    pass", ["a branch on the device"]),
        ("x = x.cuda()", ["cuda"]),
        ("pattern = re.compile('x')\ny = x.to(device)", []),
    ],
)
def test_the_check_itself_sees_what_it_should(code: str, found: list[str]) -> None:
    assert knows_execution(ast.parse(code)) == found


def test_lazy_imports_and_long_functions_are_seen() -> None:
    assert list(imported(ast.parse("def f():\n    import ray.util\n    from wandb import x"))) == ["ray", "wandb"]
    assert long_functions(ast.parse("def f():\n" + "    x = 1\n" * 60), 60) == ["f"]
    assert long_functions(ast.parse("def f():\n" + "    x = 1\n" * 59), 60) == []
    assert len(FILES) > 20


# what does not write into a run root, or cannot be a file that is replaced
MAY_WRITE = {
    "flows/prefect_server.py": "the log that the server's process inherits",
    "flows/stopping.py": "the log that a serving process inherits",
    "flows/submit.py": "a temporary folder that travels to a cluster",
    "flows/zoo.py": "the experiment file that the user named",
    "generative/extractors/train.py": "a file of the package",
    "harness/checkpoint.py": "the temporary folder of a checkpoint",
    "harness/executors/access.py": "Ray's token, in the user's home",
    "harness/executors/beats.py": "empty files whose times alone count",
    "harness/executors/ray_here.py": "the folder of Ray's sockets",
    "harness/files.py": "this is the place",
    "harness/runfolder.py": "metrics are cut back",
    "harness/tracking/feeder.py": "the feeder's standard output",
    "harness/tracking/state.py": "a lock, which stays empty",
}


def test_one_place_writes_files():
    """A full disk is one error, and nothing is left half written, as long as all goes through `harness.files`."""
    writers = {relative(file): found for file in FILES if (found := own_writes(ast.parse(file.read_text())))}
    outside = {name: found for name, found in writers.items() if name.split("/")[0] != "nets"}
    assert {name: found for name, found in outside.items() if name not in MAY_WRITE} == {}
    assert MAY_WRITE.keys() <= outside.keys()  # the list says nothing that is not so
