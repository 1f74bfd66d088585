"""The ledger: the database of trials, cohorts, decisions and of who holds what. Only the driver writes it.

SQLite (WAL, local disk) by default, PostgreSQL by URL for a team.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from harness import holding
from harness.files import NoSpaceError
from harness.holding import Watch, identity, is_here, lives_here
from harness.ledger_access import Database, LedgerError
from harness.ledger_tables import cohorts as _cohorts
from harness.ledger_tables import decisions as _decisions
from harness.ledger_tables import experiments as _experiments
from harness.ledger_tables import members as _members
from harness.ledger_tables import new_trial
from harness.ledger_tables import trials as _trials
from harness.spec import Trial

__all__ = ["FINAL", "BusyError", "Ledger", "LedgerError", "TakenOverError"]

FINAL = ("done", "diverged", "pruned")  # a result: never trained again by the same identity
ENDED = ("done", "diverged", "failed")  # nobody trains it any more, until failed ones are planned again
LOOK_SECONDS = 1.0  # between two looks at a holder on another host


class BusyError(Exception):
    """Another live process drives the experiment."""


class TakenOverError(BusyError):
    """Another process took the experiment over, as this driver gave no sign of life: it must not write any more."""


Row: TypeAlias = Mapping[str, Any] | sa.RowMapping


@dataclass
class _Lease:
    """What this ledger's driver holds."""

    name: str
    holder: str
    lost: bool = False


HOLDER = sa.select(_experiments.c.holder).where(_experiments.c.name == sa.bindparam("experiment"))  # at each writing
_holding: set[str] = set()  # holders of this process: what a drive that could not write its end has left holds nothing


class Ledger:
    """Reads and writes trials. While it drives an experiment, it writes only as long as that is still its own.

    Args:
        url: SQLAlchemy's; a path is taken as SQLite.

    Attributes:
        place: the file, or the database's URL without its password.

    Raises:
        LedgerError: it cannot be opened, read or written; any method may raise it.
        NoSpaceError: its disk is full; any method that writes may raise it.
    """

    def __init__(self, url: str | Path) -> None:
        self._database = Database(url)
        self.place = self._database.name
        self._watch = Watch()
        self._lease: _Lease | None = None

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes.

        Raises:
            TakenOverError: another process has taken the experiment over that this one drives.
        """
        with self._database.writing() as c:
            if self._lease is not None:
                self._check(c, self._lease)
            yield c

    def _check(self, c: sa.Connection, lease: _Lease) -> None:
        if c.scalar(HOLDER, {"experiment": lease.name}) == lease.holder:
            return
        row = c.execute(sa.select(_experiments).where(_experiments.c.name == lease.name)).mappings().first()
        lease.lost = True
        who = f"process {row['pid']} on {row['host']}" if row is not None and row["pid"] else "another process"
        raise TakenOverError(
            f"{who} has taken experiment {lease.name} over, since this process gave no sign of life for too long; "
            "it stops here and leaves the experiment to the other"
        )

    # -- experiments and who drives them ---------------------------------------------------------------------------

    @contextmanager
    def drive(self, name: str, file: str, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Holds an experiment for this process while it is driven, with a sign of life every HEARTBEAT_SECONDS.

        Raises:
            BusyError: a live process holds it already.
        """
        self.wait_free(name, say)
        lease = _Lease(name, uuid.uuid4().hex)
        self._take(lease, file)
        self._lease = lease
        _holding.add(lease.holder)
        ended = threading.Event()
        # a thread: the driver itself may wait for long, for a worker, a boundary or another experiment
        beating = threading.Thread(target=self._beat, args=(lease, ended), daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            try:
                with suppress(TakenOverError, LedgerError, NoSpaceError):  # without a living process it is free as well
                    self._set_experiment(name, pid=None, host=None, started=None, holder=None)
            finally:
                self._lease = None
                _holding.discard(lease.holder)

    def _take(self, lease: _Lease, file: str) -> None:
        """Looks whether an experiment is free and takes it, in one transaction."""
        now = time.time()
        values = {"file": file, "state": "running", "updated": now, "beats": 0, "holder": lease.holder, **identity()}
        with self._writing() as c:
            row = c.execute(sa.select(_experiments).where(_experiments.c.name == lease.name)).mappings().first()
            if row is None:
                c.execute(_experiments.insert().values(name=lease.name, created=now, **values))
            elif self._lives(row):
                raise _busy(row)
            else:
                c.execute(_experiments.update().where(_experiments.c.name == lease.name).values(**values))

    def wait_free(self, name: str, say: Callable[[str], None] = lambda text: None) -> None:
        """Returns when no living process drives an experiment; one on another host is watched for its lease.

        Raises:
            BusyError: one does.
        """
        seen: tuple[Any, ...] | None = None
        while True:
            with self._database.reading() as c:
                row = c.execute(sa.select(_experiments).where(_experiments.c.name == name)).mappings().first()
            if row is None or not self._lives(row):
                return
            sign = (row["holder"], row["pid"], row["beats"])
            if is_here(row) or (seen is not None and sign != seen):
                raise _busy(row)
            if seen is None:
                text = f"process {row['pid']} on {row['host']} was running {name}; looking whether it still lives"
                say(f"{text} (at most {holding.LEASE_SECONDS:.0f} seconds)")
            seen = sign
            time.sleep(LOOK_SECONDS)

    def _lives(self, row: Row) -> bool:
        """Whether the process that holds an experiment lives, and still holds it."""
        mine = row["pid"] == os.getpid() and is_here(row)
        return self._watch.lives(row) and (not mine or row["holder"] in _holding)

    def _beat(self, lease: _Lease, ended: threading.Event) -> None:
        """Says that the driver is alive, for readers on other hosts, until it has ended."""
        while not lease.lost and not ended.wait(holding.HEARTBEAT_SECONDS):
            # a full disk or a locked database is the driver's to report; the next beat may succeed
            with suppress(TakenOverError, LedgerError, NoSpaceError, sa.exc.SQLAlchemyError):
                self._set_experiment(lease.name, beats=_experiments.c.beats + 1)

    def check_held(self) -> None:
        """Looks whether the last sign of life found the experiment taken over; cheap.

        Raises:
            TakenOverError: it was.
        """
        if self._lease is not None and self._lease.lost:
            with self._writing():
                pass

    def set_state(self, name: str, state: str) -> None:
        """The experiment's own state: running, done, failed or stopped."""
        self._set_experiment(name, state=state)

    def _set_experiment(self, name: str, **values: Any) -> None:
        with self._writing() as c:
            update = _experiments.update().where(_experiments.c.name == name)
            c.execute(update.values(updated=time.time(), **values))

    def experiment(self, name: str) -> dict[str, Any] | None:
        """An experiment's row, None where there is none; without a living driver it is not running but stopped.

        "alive" is whether a process drives it now, "lost" whether its driver died before it could write how it ended.
        """
        with self._database.reading() as c:
            row = c.execute(sa.select(_experiments).where(_experiments.c.name == name)).mappings().first()
        if row is None:
            return None
        alive = self._lives(row)
        lost = row["state"] == "running" and not alive
        return {**row, "state": "stopped" if lost else row["state"], "alive": alive, "lost": lost}

    def driven(self) -> list[str]:
        """Experiments that a living process drives."""
        with self._database.reading() as c:
            rows = c.execute(sa.select(_experiments).where(_experiments.c.pid.is_not(None))).mappings().all()
        return [row["name"] for row in rows if self._lives(row)]

    # -- trials ----------------------------------------------------------------------------------------------------

    def register(self, name: str, trials: Sequence[Trial], budgets: Mapping[str, tuple[int, str]]) -> None:
        """Writes the experiment's trials; those that exist keep their state. `budgets`: id -> (budget, unit)."""
        now = time.time()
        ids = [t.id for t in trials]
        with self._writing() as c:
            known = set(c.scalars(sa.select(_trials.c.id).where(_trials.c.id.in_(ids))))
            new = [new_trial(t, budgets[t.id], now) for t in trials if t.id not in known]
            if new:
                c.execute(_trials.insert(), new)
            c.execute(_members.delete().where(_members.c.experiment == name))
            rows = [
                {"experiment": name, "trial": t.id, "entry": t.entry, "position": i, "label": t.label}
                for i, t in enumerate(trials)
            ]
            c.execute(_members.insert(), rows)

    def trials(self, experiment: str) -> list[dict[str, Any]]:
        """An experiment's trials in the order of its file."""
        query = (
            sa.select(_trials, _members.c.label, _members.c.entry)
            .join(_members, _members.c.trial == _trials.c.id)
            .where(_members.c.experiment == experiment)
            .order_by(_members.c.position)
        )
        with self._database.reading() as c:
            rows = self._as_they_stand(c, c.execute(query).mappings().all())
        return [{**r, "reused": r["trained_by"] not in (None, experiment)} for r in rows]

    def find(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Trials by id, of whatever experiment."""
        with self._database.reading() as c:
            rows = c.execute(sa.select(_trials).where(_trials.c.id.in_(list(ids)))).mappings().all()
            return {r["id"]: r for r in self._as_they_stand(c, rows)}

    def claim(
        self, name: str, ids: Sequence[str], fence_out: Callable[[str, int], None] = lambda cohort, fence: None
    ) -> list[str]:
        """Takes trials for this experiment, in one transaction; returns those that it holds now.

        Left out are those that another live experiment holds, in whatever state, and those that have ended meanwhile.

        Args:
            name: the experiment.
            ids: the trials.
            fence_out: told (cohort, fence number) of each cohort in which a lost driver's worker may still train one.
        """
        with self._writing() as c:
            rows = c.execute(sa.select(_trials).where(_trials.c.id.in_(list(ids)))).mappings().all()
            others = self._alive_among(c, {r["trained_by"] for r in rows} - {None, name})
            free = [r for r in rows if r["state"] not in ENDED and r["trained_by"] not in others]
            lost = {r["cohort"] for r in free if r["cohort"] and r["trained_by"] != name}
            for row in c.execute(sa.select(_cohorts).where(_cohorts.c.id.in_(lost))).mappings().all():
                fence_out(row["id"], row["fence"] + 1)
                c.execute(_cohorts.update().where(_cohorts.c.id == row["id"]).values(fence=row["fence"] + 1))
            mine = {r["id"] for r in free}
            c.execute(_trials.update().where(_trials.c.id.in_(mine)).values(trained_by=name, updated=time.time()))
        return [i for i in ids if i in mine]

    def retry(self, ids: Sequence[str], lost: Sequence[str] = ()) -> None:
        """Has trials planned again that failed, or that are done while their results are `lost`."""
        again = (_trials.c.state == "failed") | (_trials.c.state.in_(FINAL) & _trials.c.id.in_(list(lost)))
        with self._writing() as c:
            update = _trials.update().where(_trials.c.id.in_(list(ids)), again)
            c.execute(update.values(state="planned", trained_by=None, updated=time.time()))

    def _alive_among(self, c: sa.Connection, names: Iterable[str]) -> set[str]:
        """Those of some experiments that a living process drives."""
        holders = c.execute(sa.select(_experiments).where(_experiments.c.name.in_(list(names)))).mappings()
        return {holder["name"] for holder in holders if self._lives(holder)}

    def _as_they_stand(self, c: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[dict[str, Any]]:
        """Rows of trials; one that was running when its driver died is stopped."""
        driven = self._alive_among(c, {r["trained_by"] for r in rows if r["state"] == "running"} - {None})
        dead = [r["state"] == "running" and r["trained_by"] not in driven for r in rows]
        return [{**r, "state": "stopped"} if d else dict(r) for r, d in zip(rows, dead, strict=True)]

    def set_trials(self, ids: Sequence[str], **values: Any) -> None:
        """Sets columns of some trials."""
        with self._writing() as c:
            c.execute(_trials.update().where(_trials.c.id.in_(list(ids))).values(updated=time.time(), **values))

    # -- cohorts and decisions ---------------------------------------------------------------------------------------

    def open_cohort(
        self, cohort: str, experiment: str, trials: Sequence[str], sources: Any, running: Sequence[str]
    ) -> int | None:
        """Marks a cohort and its running trials, counts the attempt; returns the new fence number.

        None where one of the running trials has ended or become another experiment's since it was claimed; nothing is
        marked then.
        """
        now = time.time()
        with self._writing() as c:
            held = sa.select(_trials.c.id).where(
                _trials.c.id.in_(list(running)), _trials.c.trained_by == experiment, _trials.c.state.not_in(ENDED)
            )
            if set(c.scalars(held)) != set(running):
                return None
            row = c.execute(sa.select(_cohorts).where(_cohorts.c.id == cohort)).mappings().first()
            fence = (row["fence"] if row else 0) + 1
            values = {"experiment": experiment, "state": "running", "fence": fence, "updated": now}
            if row is None:
                c.execute(_cohorts.insert().values(id=cohort, trials=list(trials), sources=sources, **values))
            else:
                c.execute(_cohorts.update().where(_cohorts.c.id == cohort).values(**values))
            for lane, trial in enumerate(trials):
                if trial in running:
                    update = _trials.update().where(_trials.c.id == trial)
                    attempts = _trials.c.attempts + 1
                    c.execute(update.values(state="running", cohort=cohort, lane=lane, attempts=attempts, updated=now))
        return fence

    def fence_out(self, cohort: str) -> int:
        """Raises a cohort's fence number, so that no worker holds the current one; returns it."""
        with self._writing() as c:
            row = _cohorts.c.id == cohort
            c.execute(_cohorts.update().where(row).values(fence=_cohorts.c.fence + 1))
            return int(c.scalar(sa.select(_cohorts.c.fence).where(row)) or 0)

    def set_cohort(self, cohort: str, **values: Any) -> None:
        """Sets columns of a cohort."""
        with self._writing() as c:
            c.execute(_cohorts.update().where(_cohorts.c.id == cohort).values(updated=time.time(), **values))

    def open_cohorts(self, experiment: str, trials: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Cohorts of an experiment that have not ended, and those in which some trials were trained last."""
        last = sa.select(_trials.c.cohort).where(_trials.c.id.in_(list(trials)))
        unfinished = sa.or_(
            sa.and_(_cohorts.c.experiment == experiment, _cohorts.c.state.in_(("running", "stopped"))),
            sa.and_(_cohorts.c.id.in_(last), _cohorts.c.state.in_(("running", "stopped", "split"))),
        )
        with self._database.reading() as c:
            rows = c.execute(sa.select(_cohorts).where(unfinished).order_by(_cohorts.c.id)).mappings()
            return [dict(r) for r in rows]

    def cohorts_of(self, trial: str) -> list[str]:
        """Cohorts that a trial has been a lane of, the latest last."""
        query = sa.select(_cohorts.c.id, _cohorts.c.trials).order_by(_cohorts.c.updated)
        with self._database.reading() as c:
            return [cohort for cohort, trials in c.execute(query) if trial in trials]

    def rates(self) -> dict[str, float]:
        """Measured rates of ended cohorts, progress x lanes per second by shape key; the newest counts."""
        query = sa.select(_cohorts.c.shape, _cohorts.c.rate).where(_cohorts.c.rate.is_not(None))
        with self._database.reading() as c:
            return {shape: rate for shape, rate in c.execute(query.order_by(_cohorts.c.updated))}

    def decide(self, cohort: str, rows: Sequence[tuple[str | None, str, str]], progress: int) -> None:
        """Writes decisions, (trial, kind, reason) each, before they are sent."""
        values = [
            {"time": time.time(), "cohort": cohort, "trial": t, "progress": progress, "kind": k, "reason": r}
            for t, k, r in rows
        ]
        with self._writing() as c:
            c.execute(_decisions.insert(), values)

    def decisions(self, cohort: str) -> list[dict[str, Any]]:
        """Everything that was decided about a cohort, oldest first."""
        query = sa.select(_decisions).where(_decisions.c.cohort == cohort).order_by(_decisions.c.seq)
        with self._database.reading() as c:
            return [dict(r) for r in c.execute(query).mappings()]


def _busy(row: Row) -> BusyError:
    return BusyError(
        f"experiment {row['name']} is being run by process {row['pid']} on {row['host']}; "
        f"wait for it, or stop it with `seedbed stop {row['name']}`"
    )


def same_host_pid(row: Row) -> int | None:
    """The pid of the living driver on this host, or None."""
    if row.get("pid") and is_here(row) and lives_here(row) and row["pid"] != os.getpid():
        return int(row["pid"])
    return None
