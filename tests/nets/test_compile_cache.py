"""Compiled code: kept where this user alone can write, as texts and libraries; a pickle is neither written nor read."""

import os
import stat
import tempfile

import pytest
import torch

from nets import lanes
from nets.compile_cache import NAMED, cache_folder, untrusted, use_compile_cache
from nets.lanes import Execution, Work, choose_mode


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A user without a cache yet: (the usual folder, the one instead)."""
    monkeypatch.delenv(NAMED, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "xdg/seedbed/compiled", tmp_path / f"seedbed-{os.getuid()}/compiled"


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_the_users_own_cache_and_private(places, monkeypatch):
    umask = os.umask(0)
    try:
        assert cache_folder() == (places[0], "")
    finally:
        os.umask(umask)
    assert rights(places[0]) == rights(places[0].parent) == 0o700
    places[0].chmod(0o755)  # readable by others: closed, and used
    assert cache_folder() == (places[0], "")
    assert rights(places[0]) == 0o700
    assert use_compile_cache() == ""
    assert os.environ[NAMED] == str(places[0])
    monkeypatch.setenv(NAMED, "/somewhere/of/mine")
    assert use_compile_cache() == ""
    assert os.environ[NAMED] == "/somewhere/of/mine"
    monkeypatch.setenv(NAMED, tempfile.gettempdir() + "/torchinductor_me")  # torch's own choice: all users write there
    assert use_compile_cache() == ""
    assert os.environ[NAMED] == str(places[0])


def test_without_xdg_it_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in (None, "", "relative"):
        monkeypatch.delenv("XDG_CACHE_HOME") if named is None else monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert cache_folder() == (tmp_path / ".cache/seedbed/compiled", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert "not an absolute path" in cache_folder()[1]


@pytest.mark.parametrize("which", ["folder", "parent"])
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(places, which, mode):
    places[0].mkdir(parents=True)
    open_one = places[0] if which == "folder" else places[0].parent
    open_one.chmod(mode)
    folder, why = cache_folder()
    assert folder == places[1]
    assert why == (
        f"compiled code is kept in {places[1]}: others may write to {open_one}; remove it, or chmod 700 if nobody did"
    )
    assert rights(open_one) == mode
    assert rights(folder) == rights(folder.parent) == 0o700


def test_a_folder_of_another_user_is_not_used_and_without_any_lanes_are_eager(places, monkeypatch):
    assert untrusted(places[0]) == untrusted(places[1]) == ""
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    folder, why = cache_folder()
    assert folder is None
    for place in places:
        assert f"{place.parent} belongs to another user" in why
    assert use_compile_cache() == why
    assert NAMED not in os.environ
    monkeypatch.setattr(lanes, "has_compiler", lambda: True)
    assert choose_mode("compiled", Work(1.0)) == ("eager", f"{why}: lanes run eagerly instead of compiled")
    assert choose_mode("auto", Work(1000.0))[0] == "eager"


def test_a_link_counts_as_what_it_leads_to(places, tmp_path, monkeypatch):
    target = tmp_path / "scratch"
    target.mkdir(mode=0o700)
    places[0].parent.mkdir(parents=True, mode=0o700)
    places[0].symlink_to(target)
    assert untrusted(places[0]) == ""
    target.chmod(0o777)
    assert "others may write" in untrusted(places[0])
    target.chmod(0o700)
    owner = os.lstat(places[0])
    monkeypatch.setattr("pathlib.Path.lstat", lambda path: owner if path != places[0] else Other(owner))
    assert "belongs to another user" in untrusted(places[0])


class Other:
    """The link itself made by somebody else."""

    def __init__(self, found):
        self.st_uid, self.st_mode = found.st_uid + 1, found.st_mode


def test_what_cannot_be_a_folder_is_named(places):
    places[0].parent.mkdir(parents=True)
    places[0].write_text("")
    assert untrusted(places[0]).startswith(f"{places[0]} cannot be used (")


@pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler with Python headers on this machine")
def test_a_kept_program_is_read_as_text_and_a_damaged_one_made_again(places, monkeypatch):
    from torch._inductor import compile_fx

    made = []
    original = compile_fx.compile_fx_inner
    monkeypatch.setattr(compile_fx, "compile_fx_inner", lambda *a, **b: made.append(1) or original(*a, **b))
    x = torch.linspace(-2, 2, 24).reshape(3, 8)

    def run():
        return Execution("compiled").each(lambda x: torch.tanh(x) * 3.0)(x)

    first = run()
    torch.testing.assert_close(first, torch.tanh(x) * 3.0)
    assert torch.equal(run(), first)
    assert len(made) == 1
    (kept,) = (places[0] / "programs").rglob("*.txt")
    kept.write_text(kept.read_text()[:-20])
    assert torch.equal(run(), first)
    assert len(made) == 2
    assert torch.equal(run(), first)
    assert len(made) == 2
    assert not list(places[0].rglob("fxgraph"))
