"""Workers as Ray actors, on this machine or on a cluster. Ray places them; the ledger decides on retries."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from harness.executors import ClusterError, WorkerDiedError
from harness.executors.access import GONE_SECONDS, Probe, check_cluster
from harness.executors.asks import Ask, amounts, room, told
from harness.executors.beats import NAME_SECONDS, REPLACE_SECONDS, Beat, Silence, beat_file
from harness.executors.ray_here import QUIET, RayHere, places, shut_down
from harness.gang import Seat
from harness.messages import Decision, Job, Report

__all__ = ["Ask", "RayExecutor", "room"]

TOGETHER = ("boundary", "done", "stopped")  # what all workers of a cohort say at once
SECONDS_FOR_OTHERS = 10.0  # for the death of one to be noticed after another has complained of it


PLACE_SECONDS = 60.0  # that a worker may wait for a place before the person is told
AGAIN_SECONDS = 600.0  # between two such sentences
RESTARTS = 3  # of Ray on this machine, in one run


@dataclass
class _Slot:
    """The actors of a slot, rank 0 first, and the places that Ray keeps for them."""

    actors: list[Any]
    group: Any
    placed: bool = False


class _Actor:
    """A worker's process; torch and the learners are imported when it starts."""

    def __init__(self) -> None:
        from harness.worker import Worker

        self._beat = Beat()
        self._worker = Worker()

    def open(self, job: Job) -> Report:
        self._beat.at(_beat_of(job))
        return self._worker.open(job)

    def advance(self, decision: Decision) -> Report:
        return self._worker.advance(decision)


class RayExecutor:
    """Keeps the actors of a slot and uses them for cohort after cohort.

    Args:
        address: of a running cluster; None starts Ray on this machine.
    """

    most = math.inf

    def __init__(self, address: str | None = None) -> None:
        self.say: Callable[[str], None] = lambda text: None
        self._address = address
        self._checked = False
        self._slots: list[_Slot] = []
        self._called: dict[int, int] = {}  # slot -> how many of its actors train its cohort
        self._pending: dict[Any, tuple[int, int]] = {}  # answer to come -> slot, rank
        self._heard: dict[int, Report] = {}  # slot -> what rank 0 said, while others are still at it
        self._silence: dict[tuple[int, int], Silence] = {}  # slot, rank -> of the worker that has a cohort
        self._jobs: dict[int, Job] = {}  # slot -> what it was opened with
        self._ask = Ask()
        self._owner = False
        self._here: RayHere | None = None
        self._probe: Probe | None = None
        self._restarts = 0
        self._gone = False
        self._giving_up = False
        self._since = self._told = 0.0  # when a slot began to wait for its place, and when that was last said

    def check(self) -> None:
        """Asks the cluster whether it takes us; Ray on this machine is started when it is needed."""
        if self._address and not self._checked and not ray.is_initialized():
            check_cluster(os.environ.get("RAY_ADDRESS", "auto") if self._address == "auto" else self._address)
        self._checked = True

    def connect(self) -> None:
        """Starts Ray or joins the cluster; done once."""
        if ray.is_initialized():
            return
        self.check()
        if self._address:
            try:
                ray.init(address=self._address, **QUIET)
            except (RayError, ConnectionError, RuntimeError, ValueError) as error:
                text = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ClusterError(f"the Ray cluster at {self._address} cannot be joined: {text}") from None
            self._probe = Probe(places())
        else:
            self._here = RayHere()
            self._here.start()
        self._owner = True

    def start(self, slots: int, cpus: int, gpus: float, workers: int) -> int:
        """Makes up to `slots` slots of actors with `cpus` threads ready, as many as the cluster holds."""
        self.connect()
        if why := self._lost():
            self._recover(why)
        ask = Ask(cpus, gpus, workers)
        if ask != self._ask:
            self._kill_all()
            self._ask = ask
        fit = room(_nodes(), ask)
        if fit == 0 and self._address is None:
            raise ClusterError(
                f"no place for {ask}: Ray has {told(_nodes())} on this machine; "
                "lower the trial's resources, or name a larger cluster by --ray-address",
                usage=True,
            )
        while len(self._slots) < max(1, min(slots, fit)):
            self._slots.append(self._new())
        self._await_places()
        return len(self._slots)

    def _new(self) -> _Slot:
        group = placement_group([self._ask.bundle] * self._ask.workers)
        return _Slot(self._actors(group), group)

    def _actors(self, group: Any) -> list[Any]:
        threads = str(self._ask.cpus)
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        options = {"num_cpus": self._ask.cpus, "num_gpus": self._ask.gpus, "max_restarts": 0, "max_task_retries": 0}
        return [
            ray.remote(_Actor)
            .options(
                runtime_env={"env_vars": env},
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
                **options,
            )
            .remote()
            for rank in range(self._ask.workers)
        ]

    def _await_places(self) -> None:
        """Waits until every slot has its place; after a minute those that have one begin without the rest.

        Without a single one a cluster is waited for, which may grow or become free, until a stop is asked for.
        """
        self._since = time.monotonic()
        self._told = 0.0
        while waiting := [slot for slot in self._slots if not self._has_place(slot)]:
            late = time.monotonic() - self._since > PLACE_SECONDS
            if self._giving_up or (late and len(waiting) < len(self._slots)):
                for slot in waiting:
                    self._remove(slot)
                self._slots = [slot for slot in self._slots if slot.placed]
                if self._slots:
                    self.say(f"{len(waiting)} workers found no place within a minute; {len(self._slots)} begin")
                return
            if why := self._lost():
                self._recover(why)
            elif late:
                self._tell_of_waiting()
            time.sleep(0.1)

    def _tell_of_waiting(self) -> None:
        now = time.monotonic()
        if self._told and now - self._told < AGAIN_SECONDS:
            return
        self._told = now
        free = ray.available_resources()
        self.say(
            f"no place yet for {self._ask}: the cluster has {told(_nodes())}, with {amounts(free)} free; "
            "waiting: add a node, end other jobs, or stop and lower the trial's resources"
        )

    def _remove(self, slot: _Slot) -> None:
        for actor in slot.actors:
            ray.kill(actor)
        remove_placement_group(slot.group)

    def call(self, slot: int, method: str, argument: Any) -> None:
        """Sends the call to the slot's actors, as many as the cohort asks for; a job gives each its seat."""
        if isinstance(argument, Job):
            self._called[slot] = argument.trials[0].resources.workers
            self._jobs[slot] = argument
        for rank, actor in enumerate(self._slots[slot].actors[: self._called[slot]]):
            own = self._seated(argument, rank) if isinstance(argument, Job) else argument
            self._pending[getattr(actor, method).remote(own)] = (slot, rank)
            if isinstance(own, Job):
                self._silence[slot, rank] = Silence(_beat_of(own))

    def _seated(self, job: Job, rank: int) -> Job:
        size = job.trials[0].resources.workers
        if size == 1:
            return job
        meeting = Path(job.root) / "cache" / "gangs" / job.cohort / str(job.fence)
        return replace(job, seat=Seat(rank, size, str(meeting), loopback=self._address is None))

    def wait(self, timeout: float) -> list[tuple[int, Report | WorkerDiedError]]:
        """Collects what is ready; waits for the first at most `timeout` seconds."""
        if not self._pending:
            time.sleep(min(timeout, 0.05))
            return []
        if why := self._lost() or self._no_place():
            return self._start_again(why)
        self._move()
        if silent := self._hear_beats():
            return silent
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        if ready:
            more, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            ready = list(dict.fromkeys([*ready, *more]))
        return [answer for ref in ready if (answer := self._collect(ref))]

    def _lost(self) -> str:
        """Why nothing more can be expected of Ray; nothing as long as it lives."""
        if self._here is not None:
            return (dead := self._here.dead()) and f"Ray's {dead} on this machine has died"
        if self._probe is not None and self._probe.gone():
            return f"the Ray cluster at {self._address} has not answered for {GONE_SECONDS:.0f} s"
        return ""

    def _no_place(self) -> str:
        """Why workers whose node was lost will find no place: for a minute no living node had room for them."""
        if self._busy_cluster() or all(self._has_place(self._slots[slot]) for slot, _ in self._pending.values()):
            return ""
        if time.monotonic() - self._since <= PLACE_SECONDS:
            return ""
        if room(_nodes(), self._ask) == 0:
            return f"a node was lost, and for {PLACE_SECONDS:.0f} s no living node has had room for {self._ask}"
        self._tell_of_waiting()
        return ""

    def _move(self) -> None:
        """Gives a cohort whose node was lost to a slot that has its place and nothing to do."""
        busy = {slot for slot, _ in self._pending.values()}
        idle = [k for k, slot in enumerate(self._slots) if k not in busy and self._has_place(slot)]
        lost = [k for k in busy if not self._has_place(self._slots[k])]
        for one, other in zip(lost, idle, strict=False):
            self._again(one, None)  # takes the call back
            self._slots[one], self._slots[other] = self._slots[other], self._slots[one]
            self.call(one, "open", self._jobs[one])

    def _busy_cluster(self) -> bool:
        """Whether a call to the cluster would block: it gives no answer at the moment."""
        return self._probe is not None and bool(self._probe.silent())

    def _has_place(self, slot: _Slot) -> bool:
        """Whether Ray keeps room for a slot's actors; it is asked until it does."""
        if not slot.placed and not self._busy_cluster():
            slot.placed = slot.group.wait(0)
        return slot.placed

    def _start_again(self, why: str) -> list[tuple[int, Report | WorkerDiedError]]:
        """Starts Ray again where it is ours; else says of every cohort that it ends here, and why."""
        busy = dict.fromkeys(slot for slot, _ in self._pending.values())
        try:
            self._recover(why)
        except ClusterError as error:
            return [(slot, Report("lost", self._jobs[slot].cohort, error=str(error))) for slot in busy]
        return [(slot, WorkerDiedError(why)) for slot in busy]

    def _recover(self, why: str) -> None:
        """Starts Ray on this machine again, with as many slots.

        Raises:
            ClusterError: it is not ours, or has been started too often.
        """
        slots = len(self._slots)
        self._forget_all()
        if self._here is None or self._restarts >= RESTARTS:
            self._gone = True
            often = f", after {RESTARTS} new starts" if self._here else ""
            raise ClusterError(f"{why}{often}; stopped: the same command goes on from the last checkpoints")
        self._restarts += 1
        self.say(f"{why}; starting Ray again ({self._restarts} of {RESTARTS} times)")
        self._here.stop()
        self._here.start()
        self._slots = [self._new() for _ in range(slots)]
        self._since, self._told = time.monotonic(), 0.0

    def _hear_beats(self) -> list[tuple[int, Report | WorkerDiedError]]:
        """Names workers that give no sign of life, and replaces one that has given none for long."""
        for slot, rank in list(self._pending.values()):
            silence = self._silence[slot, rank]
            seconds = silence.seconds()
            if seconds > NAME_SECONDS and not silence.named:
                silence.named = True
                then = f"after {REPLACE_SECONDS / 60:.0f} min another takes over"
                self.say(f"the worker of {self._jobs[slot].cohort} has said nothing for {seconds / 60:.0f} min; {then}")
            if seconds > REPLACE_SECONDS:
                return [(slot, self._again(slot, WorkerDiedError(f"it said nothing for {seconds / 60:.0f} min")))]
        return []

    def _collect(self, ref: Any) -> tuple[int, Report | WorkerDiedError] | None:
        """A slot's answer, once all who were called have theirs or one is in trouble."""
        if ref not in self._pending:  # its slot has been started again
            return None
        slot, rank = self._pending.pop(ref)
        answer = _result(ref)
        others = [r for r, (s, _) in self._pending.items() if s == slot]
        if isinstance(answer, WorkerDiedError):
            return slot, self._again(slot, answer)
        if answer.kind not in TOGETHER and self._called[slot] > 1:
            return slot, self._trouble(slot, answer, others)
        if rank == 0:
            self._heard[slot] = answer
        return None if others else (slot, self._heard.pop(slot))

    def _trouble(self, slot: int, report: Report, others: list[Any]) -> Report | WorkerDiedError:
        """One of several cannot go on: because another has died, or for a reason of its own, which it has told."""
        ended = ray.wait(others, num_returns=len(others), timeout=SECONDS_FOR_OTHERS)[0] if others else []
        deaths = [answer for answer in map(_result, ended) if isinstance(answer, WorkerDiedError)]
        return self._again(slot, deaths[0] if deaths else report)

    def _again(self, slot: int, answer: Any) -> Any:
        """Kills a slot's actors, starts new ones and passes the answer on."""
        again = self._slots[slot]
        for actor in again.actors:
            ray.kill(actor)
        self._forget_beats(slot)
        self._pending = {ref: place for ref, place in self._pending.items() if place[0] != slot}
        self._heard.pop(slot, None)
        self._slots[slot] = _Slot(self._actors(again.group), again.group)
        self._since, self._told = time.monotonic(), 0.0
        return answer

    def give_up_at(self, when: float) -> None:
        """The driver itself watches the time and calls `abandon`; a place is not waited for any longer."""
        self._giving_up = True

    def abandon(self, slots: list[int]) -> None:
        """Kills the actors in these slots; `wait` will report them as dead."""
        for slot in slots:
            for actor in self._slots[slot].actors:
                ray.kill(actor)

    def _kill_all(self) -> None:
        for slot in self._slots:
            self._remove(slot)
        self._forget_all()

    def _forget_all(self) -> None:
        for slot in range(len(self._slots)):
            self._forget_beats(slot)
        self._slots, self._pending, self._heard = [], {}, {}

    def _forget_beats(self, slot: int) -> None:
        for place in [place for place in self._silence if place[0] == slot]:
            self._silence.pop(place).forget()

    def stop(self) -> None:
        """Ends the actors, and Ray if we started it or joined it."""
        if not ray.is_initialized():
            return
        if not (self._gone or self._busy_cluster() or self._lost()):
            self._kill_all()
        self._forget_all()
        if self._here is not None:
            self._here.stop()
        elif self._owner:
            shut_down()
        self._here = self._probe = None


def _nodes() -> list[dict[str, float]]:
    """What each living node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _beat_of(job: Job) -> Path:
    return beat_file(job.root, job.cohort, job.fence, job.seat.rank if job.seat else 0)


def _result(ref: Any) -> Report | WorkerDiedError:
    """What an actor has answered."""
    try:
        return ray.get(ref)
    except RayError as error:
        return WorkerDiedError(str(error).splitlines()[0])
