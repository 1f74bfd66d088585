"""Ray's own processes die, or fall silent: the run starts Ray again, goes on elsewhere, or ends with the reason."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from harness.executors import ClusterError, WorkerDiedError, access, beats
from harness.executors import ray as module
from harness.executors.beats import Beat, Silence
from harness.executors.ray import Ask, RayExecutor
from tests.faults.test_kill import Driven
from tests.invariants import check_invariants, weights


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_silence_counts_from_the_last_sign_of_life_that_was_seen(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "beat"
    silence = Silence(file, clock)
    for clock.now in range(0, 1000, 10):
        assert silence.seconds() == 0.0  # it has not begun: its place, or its imports, may take long
    file.touch()
    for clock.now in range(1000, 1100, 10):
        os.utime(file, (clock.now - 5000, clock.now - 5000))  # by another machine's clock
        assert silence.seconds() == 0.0
    for clock.now in range(1100, 1300, 10):
        found = silence.seconds()
    assert found == 200.0
    clock.now += 10 * beats.NAME_SECONDS  # this process slept
    assert silence.seconds() == 0.0


def test_a_worker_shows_that_it_lives_while_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "BEAT_SECONDS", 0.02)
    file = tmp_path / "beats" / "one"
    beat = Beat()
    beat.at(file)
    before = file.stat().st_mtime_ns
    end = time.monotonic() + 5
    while file.stat().st_mtime_ns == before and time.monotonic() < end:
        sum(range(100_000))
    assert file.stat().st_mtime_ns > before
    beat.end()


def test_a_cluster_is_given_up_after_45_silent_seconds(tmp_path: Path) -> None:
    clock = Clock()
    probe = access.Probe([str(tmp_path / "no-socket")], clock)
    assert not probe.gone()
    for clock.now in range(0, 46):
        assert not probe.gone()
    assert probe.silent().endswith("no-socket")
    clock.now = 46.0
    assert probe.gone()


JOB: Any = SimpleNamespace(cohort="c")


def executor_with_a_cohort(monkeypatch: pytest.MonkeyPatch) -> tuple[RayExecutor, list[str]]:
    """An executor whose slot 0 trains cohort `c`; Ray is played."""
    monkeypatch.setattr(module, "ray", SimpleNamespace(kill=lambda actor: None, wait=lambda refs, **_: ([], refs)))
    executor, said = RayExecutor("head:6379"), []
    executor.say = said.append
    slot = module._Slot([object()], SimpleNamespace(wait=lambda seconds: False), placed=True)
    executor._slots, executor._pending, executor._jobs = [slot], {"ref": (0, 0)}, {0: JOB}
    executor._silence = {(0, 0): Silence(Path("/no/such/file"))}
    monkeypatch.setattr(executor, "_actors", lambda group: [object()])
    return executor, said


def test_a_silent_worker_is_named_once_then_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, said = executor_with_a_cohort(monkeypatch)
    for seconds in (100.0, 130.0, 300.0):
        monkeypatch.setattr(Silence, "seconds", lambda self, s=seconds: s)
        assert executor.wait(0.0) == []
    assert said == ["the worker of c has said nothing for 2 min; after 10 min another takes over"]
    monkeypatch.setattr(Silence, "seconds", lambda self: 610.0)
    ((slot, answer),) = executor.wait(0.0)
    assert (slot, str(answer)) == (0, "it said nothing for 10 min")
    assert isinstance(answer, WorkerDiedError)


def test_a_lost_cluster_ends_every_cohort_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, _ = executor_with_a_cohort(monkeypatch)
    executor._probe = SimpleNamespace(gone=lambda: True, silent=lambda: "head:6379")  # type: ignore[assignment]
    ((slot, answer),) = executor.wait(0.0)
    assert (slot, answer.kind, answer.cohort) == (0, "lost", "c")
    assert answer.error.startswith("the Ray cluster at head:6379 has not answered for 45 s; stopped: the same command")


def test_a_lost_node_without_another_ends_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, _ = executor_with_a_cohort(monkeypatch)
    executor._slots[0].placed, executor._ask = False, Ask(4)
    monkeypatch.setattr(module, "_nodes", lambda: [{"CPU": 2.0}])
    executor._since = time.monotonic()
    assert executor.wait(0.0) == []
    executor._since -= 61.0
    ((_, answer),) = executor.wait(0.0)
    assert "for 60 s no living node has had room for a worker of 4 CPUs; stopped" in answer.error


def test_a_cohort_whose_node_was_lost_moves_to_a_slot_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, _ = executor_with_a_cohort(monkeypatch)
    lost, free = executor._slots[0], module._Slot([object()], None, placed=True)
    lost.placed = False
    executor._slots.append(free)
    calls: list[Any] = []
    monkeypatch.setattr(executor, "call", lambda *call: calls.append(call))
    executor._since = time.monotonic()
    assert executor.wait(0.0) == []
    assert calls == [(0, "open", JOB)]
    assert executor._slots[0] is free
    assert executor._slots[1].group is lost.group


def test_ray_here_is_started_again_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, said = executor_with_a_cohort(monkeypatch)
    done: list[str] = []
    here = SimpleNamespace(
        dead=lambda: "raylet", stop=lambda: done.append("stop"), start=lambda: done.append("start")
    )  # fmt: skip
    executor._here = here  # type: ignore[assignment]
    monkeypatch.setattr(executor, "_new", lambda: module._Slot([object()], None, placed=True))
    ((slot, answer),) = executor.wait(0.0)
    assert (slot, str(answer), done) == (0, "Ray's raylet on this machine has died", ["stop", "start"])
    assert said == ["Ray's raylet on this machine has died; starting Ray again (1 of 3 times)"]
    executor._recover("again")
    executor._recover("again")
    with pytest.raises(ClusterError, match="again, after 3 new starts; stopped"):
        executor._recover("again")


def test_the_token_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    old = os.umask(0)
    try:
        access.private_token()
    finally:
        os.umask(old)
    token = tmp_path / ".ray" / "auth_token"
    text = token.read_text()
    assert len(text) == 64
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    token.chmod(0o644)  # as Ray leaves it
    token.parent.chmod(0o755)
    access.private_token()
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert token.read_text() == text


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of the final weights of an uninterrupted run."""
    driven = Driven(tmp_path_factory.mktemp("oracle"), "runs", "inline")
    driven.finish()
    return weights(driven.root, "e")


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Driven]:
    """A run on Ray in the middle; nothing of it is left at the end."""
    one = Driven(tmp_path, "runs", "ray")
    assert one.reports(20) == 20
    yield one
    if one.process.poll() is None:
        one.process.kill()
    one.process.communicate()


def ray_process(driven: Driven, name: str) -> psutil.Process:
    return next(p for p in psutil.Process(driven.process.pid).children(recursive=True) if name in p.name())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_ray_is_started_again_where_it_is_ours(driven: Driven, name: str, oracle: dict[str, str]) -> None:
    family = psutil.Process(driven.process.pid).children(recursive=True)
    began = time.monotonic()
    ray_process(driven, name).kill()
    driven.finish()
    assert time.monotonic() - began < 90
    check_invariants(driven.root, "e", every=2)
    assert weights(driven.root, "e") == oracle
    _, left = psutil.wait_procs(family, timeout=5)
    assert left == []
    log = (driven.root / "experiments" / "e" / "driver.log").read_text()
    assert f"Ray's {name} on this machine has died" in log
    assert not list(Path(os.environ["RAY_TMPDIR"]).glob(f"seedbed-*/session_*_{driven.process.pid}"))


def test_nothing_listens_beyond_this_machine(driven: Driven) -> None:
    driven_process = psutil.Process(driven.process.pid)
    listening = set()
    for process in [driven_process, *driven_process.children(recursive=True)]:
        for socket in process.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                listening.add((process.name().split(":")[-1], socket.laddr.ip.removeprefix("::ffff:")))
    assert {"gcs_server", "raylet", "RuntimeEnvAgent"} <= {name for name, _ in listening}
    assert {address for _, address in listening} == {"127.0.0.1"}
    driven.finish()
