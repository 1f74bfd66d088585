"""Places for Ray's workers: what fits where, and what is said when nothing does. Ray itself is played."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.executors import ClusterError, access, make_executor, ray_here
from harness.executors import ray as module
from harness.executors.ray import Ask, RayExecutor, room


@pytest.mark.parametrize(
    ("nodes", "ask", "slots"),
    [
        ([{"CPU": 8.0}], Ask(2), 4),
        ([{"CPU": 2.0}, {"CPU": 2.0}], Ask(4), 0),  # four in all, but a worker lives on one node
        ([{"CPU": 2.0}, {"CPU": 2.0}], Ask(2, workers=2), 1),  # workers of a gang may live apart
        ([{"CPU": 2.0}, {"CPU": 3.0}], Ask(2, workers=3), 0),
        ([{"memory": 1e9}], Ask(1), 0),  # half a CPU counts as none, and has no entry
        ([{"CPU": 16.0}], Ask(1, gpus=0.5), 0),
        ([{"CPU": 16.0, "GPU": 1.0}], Ask(1, gpus=0.1), 10),
        ([{"CPU": 16.0, "GPU": 3.0}], Ask(1, gpus=0.3), 10),
        ([{"CPU": 16.0}, {"CPU": 1.0, "GPU": 1.0}], Ask(4, gpus=1.0), 0),
        ([], Ask(1), 0),
    ],
)
def test_room_is_counted_node_by_node(nodes: list[dict[str, float]], ask: Ask, slots: int) -> None:
    assert room(nodes, ask) == slots


class PlayedRay:
    """Answers like the module `ray`; every placement group takes `free` CPUs until none are left."""

    def __init__(self, cpus: float, started: bool = True, free: float | None = None) -> None:
        self.inits: list[dict[str, Any]] = []
        self.cpus, self.started = cpus, started
        self.free = cpus if free is None else free
        self.killed = 0
        self.removed: list[Any] = []

    def is_initialized(self) -> bool:
        return self.started

    def init(self, **values: Any) -> None:
        self.inits.append(values)
        self.cpus = self.free = values.get("num_cpus", self.cpus)
        self.started = True

    def shutdown(self) -> None:
        self.started = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus} if self.cpus else {}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": self.free} if self.free else {}

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "Resources": {"CPU": 64.0}}
        return [{"Alive": True, "Resources": self.cluster_resources()}, gone]

    def remote(self, cls: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: object()))

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def group(self, bundles: list[dict[str, float]]) -> Any:
        need = sum(bundle["CPU"] for bundle in bundles)
        placed: list[bool] = []

        def wait(seconds: float) -> bool:
            if not placed and self.free >= need:
                self.free -= need
                placed.append(True)
            return bool(placed)

        return SimpleNamespace(wait=wait)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[PlayedRay], list[str]]:
    """Puts a played Ray in the place of the real one, with a clock that runs a second a look."""

    def begin(played: PlayedRay) -> None:
        clock = iter(range(10**6))
        monkeypatch.setattr(module, "ray", played)
        monkeypatch.setattr(ray_here, "ray", played)
        monkeypatch.setattr(ray_here, "_joined", lambda: SimpleNamespace(all_processes={}))
        monkeypatch.setattr(module, "placement_group", played.group)
        monkeypatch.setattr(module, "remove_placement_group", played.removed.append)
        monkeypatch.setattr(module, "PlacementGroupSchedulingStrategy", lambda *a, **k: None)
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))

    return begin


def test_ray_on_this_machine_has_at_least_one_cpu(play: Any) -> None:
    played = PlayedRay(0.0, started=False)
    play(played)
    executor = RayExecutor()
    assert executor.start(4, 1, 0.0, 1) == 1
    assert [values.get("num_cpus") for values in played.inits] == [None, 1]


@pytest.mark.parametrize(
    ("resources", "asked"),
    [((4, 0.0, 1), "a worker of 4 CPUs"), ((1, 0.5, 1), "a worker of 1 CPU and 0.5 GPU"),
     ((2, 1.0, 2), "2 workers of 2 CPUs and 1 GPU each")],
)  # fmt: skip
def test_what_never_fits_on_this_machine_ends_the_run(play: Any, resources: Any, asked: str) -> None:
    play(PlayedRay(2.0, started=False))
    with pytest.raises(ClusterError, match=f"^no place for {asked}: Ray has 2 CPUs and no GPU on this machine; lower"):
        RayExecutor().start(1, *resources)


def test_a_cluster_without_room_is_waited_for_and_told_once_in_ten_minutes(play: Any) -> None:
    played = PlayedRay(2.0, free=1.0)
    play(played)
    executor = RayExecutor("head:6379")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            played.free = 2.0

    executor.say = say
    assert executor.start(1, 2, 0.0, 1) == 1
    assert len(said) == 3
    assert said[0].startswith("no place yet for a worker of 2 CPUs: the cluster has 2 CPUs and no GPU, with 1 CPU")
    assert "waiting: add a node, end other jobs, or stop and lower" in said[0]
    assert module.time.monotonic() > 2 * module.AGAIN_SECONDS


def test_workers_without_a_place_do_not_keep_the_others_from_their_work(play: Any) -> None:
    played = PlayedRay(4.0, free=1.0)
    play(played)
    executor = RayExecutor("head:6379")
    said: list[str] = []
    executor.say = said.append
    assert executor.start(4, 1, 0.0, 1) == 1
    assert said == ["3 workers found no place within a minute; 1 begin"]
    assert (played.killed, len(played.removed)) == (3, 3)


def test_a_stop_ends_the_waiting(play: Any) -> None:
    played = PlayedRay(2.0, free=0.0)
    play(played)
    executor = RayExecutor("head:6379")
    executor.say = lambda text: executor.give_up_at(0.0)
    assert executor.start(2, 1, 0.0, 1) == 0
    assert len(played.removed) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "is a dashboard's; give HOST:6379, or hand the file in by `seedbed submit`"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: "),
        ("127.0.0.1:99999", "no Ray cluster answers at 127.0.0.1:99999: "),
    ],
)
def test_a_cluster_that_is_none_is_one_sentence(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(module, "ray", PlayedRay(1.0, started=False))
    with pytest.raises(ClusterError, match=message):
        make_executor("ray", address).check()


@pytest.mark.parametrize(
    ("told", "token", "message"),
    [
        ("ray.exceptions.AuthenticationError: ...", "", "at 127.0.0.1:6379 wants a token: set RAY_AUTH_TOKEN or"),
        ("ray.exceptions.AuthenticationError: ...", "x", "at 127.0.0.1:6379 refused the token"),
        ("ray.exceptions.RpcError: Timed out", "x", "what answers at 127.0.0.1:6379 is not the head of a Ray cluster"),
    ],
)
def test_what_the_cluster_answers_is_one_sentence(
    told: str, token: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    monkeypatch.setattr(access.socket, "create_connection", lambda *a: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(access.subprocess, "run", lambda *a, **k: SimpleNamespace(stderr=told))
    with pytest.raises(ClusterError, match=message):
        access.check_cluster("127.0.0.1:6379")


def test_the_token_decides_how_rays_client_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    for token, mode in (("x", "token"), ("", "disabled")):
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        make_executor("ray", "127.0.0.1:6379")
        assert access.os.environ["RAY_AUTH_MODE"] == mode
    monkeypatch.setenv("RAY_AUTH_MODE", "k8s")
    make_executor("ray", "127.0.0.1:6379")
    assert access.os.environ["RAY_AUTH_MODE"] == "k8s"


def test_sessions_lie_where_no_other_user_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray opens its own folder to everybody when it starts."""
    with tempfile.TemporaryDirectory(prefix="r") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        folder = ray_here._folder()
        assert folder is not None
        folder.chmod(0o777)  # as Ray does
        private = Path(short) / f"seedbed-{os.getuid()}"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert private in folder.parents
        folder.rmdir()
        folder.symlink_to(tmp_path)
        assert ray_here._folder() is None
