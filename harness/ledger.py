"""The ledger: the database of trials, cohorts, decisions and of who holds what. Only the driver writes it.

SQLite (WAL, local disk) by default, PostgreSQL by URL for a team.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from harness.spec import Trial

__all__ = ["FINAL", "BusyError", "Ledger", "ledger_url"]

FINAL = ("done", "diverged", "pruned")  # a result: never trained again by the same identity
LEASE_SECONDS = 120.0  # a holder on another host is believed dead when it was not heard of for so long
HEARTBEAT_SECONDS = 20.0  # between two signs of life of a driver

_meta = sa.MetaData()
_experiments = sa.Table(
    "experiments",
    _meta,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("file", sa.String),
    sa.Column("state", sa.String, default="planned"),
    sa.Column("created", sa.Float),
    sa.Column("updated", sa.Float),
    sa.Column("host", sa.String),
    sa.Column("pid", sa.Integer),
    sa.Column("started", sa.Float),
    sa.Column("heard", sa.Float),
)
_trials = sa.Table(
    "trials",
    _meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("learner", sa.String),
    sa.Column("version", sa.Integer),
    sa.Column("seed", sa.BigInteger),
    sa.Column("config", sa.JSON),
    sa.Column("resources", sa.JSON),
    sa.Column("state", sa.String, default="planned"),
    sa.Column("attempts", sa.Integer, default=0),
    sa.Column("score_name", sa.String),
    sa.Column("score", sa.Float),
    sa.Column("reason", sa.String),
    sa.Column("cohort", sa.String),
    sa.Column("lane", sa.Integer),
    sa.Column("progress", sa.BigInteger, default=0),
    sa.Column("budget", sa.BigInteger, default=0),
    sa.Column("unit", sa.String),
    sa.Column("seconds", sa.Float, default=0.0),
    sa.Column("trained_by", sa.String),
    sa.Column("updated", sa.Float),
)
_members = sa.Table(
    "members",
    _meta,
    sa.Column("experiment", sa.String, primary_key=True),
    sa.Column("trial", sa.String, primary_key=True),
    sa.Column("entry", sa.Integer),
    sa.Column("position", sa.Integer),
    sa.Column("label", sa.String),
)
_cohorts = sa.Table(
    "cohorts",
    _meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("experiment", sa.String, index=True),
    sa.Column("trials", sa.JSON),
    sa.Column("state", sa.String, default="planned"),
    sa.Column("fence", sa.Integer, default=0),
    sa.Column("mode", sa.String),
    sa.Column("sources", sa.JSON),
    sa.Column("progress", sa.BigInteger, default=0),
    sa.Column("shape", sa.String),
    sa.Column("rate", sa.Float),
    sa.Column("updated", sa.Float),
)
_decisions = sa.Table(
    "decisions",
    _meta,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float),
    sa.Column("cohort", sa.String, index=True),
    sa.Column("trial", sa.String),
    sa.Column("progress", sa.BigInteger),
    sa.Column("kind", sa.String),
    sa.Column("reason", sa.String),
)


class BusyError(Exception):
    """Another live process drives the experiment."""


def ledger_url(root: Path) -> str:
    """The default ledger of a run root."""
    return f"sqlite:///{(root / 'ledger.sqlite').resolve()}"


class Ledger:
    """Reads and writes trials.

    Args:
        url: SQLAlchemy's; a path is taken as SQLite.
    """

    def __init__(self, url: str | Path) -> None:
        if isinstance(url, Path) or "://" not in url:
            url = f"sqlite:///{Path(url).resolve()}"
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            Path(self._engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self._engine, "connect", _sqlite_pragmas)
        _meta.create_all(self._engine)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    # -- experiments and who drives them ---------------------------------------------------------------------------

    @contextmanager
    def drive(self, name: str, file: str) -> Any:
        """Holds an experiment for this process while it is driven, with a sign of life every HEARTBEAT_SECONDS.

        Raises:
            BusyError: a live process holds it already.
        """
        me = psutil.Process()
        with self._engine.begin() as c:
            row = c.execute(sa.select(_experiments).where(_experiments.c.name == name)).mappings().first()
            if row is not None and _alive(row) and row["pid"] != me.pid:
                raise BusyError(
                    f"experiment {name} is being run by process {row['pid']} on {row['host']}; "
                    f"wait for it, or stop it with `seedbed stop {name}`"
                )
            now = time.time()
            values = {
                "file": file,
                "state": "running",
                "updated": now,
                "heard": now,
                "host": socket.gethostname(),
                "pid": me.pid,
                "started": me.create_time(),
            }
            if row is None:
                c.execute(_experiments.insert().values(name=name, created=now, **values))
            else:
                c.execute(_experiments.update().where(_experiments.c.name == name).values(**values))
        ended = threading.Event()
        # a thread: the driver itself may wait for long, for a worker, a boundary or another experiment
        beating = threading.Thread(target=self._beat, args=(name, ended), daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            self._set_experiment(name, pid=None, host=None, started=None)

    def _beat(self, name: str, ended: threading.Event) -> None:
        """Says that the driver is alive, for readers on other hosts, until it has ended."""
        while not ended.wait(HEARTBEAT_SECONDS):
            # a full disk or a locked database is the driver's to report; the next beat may succeed
            with suppress(sa.exc.SQLAlchemyError):
                self._set_experiment(name, heard=time.time())

    def set_state(self, name: str, state: str) -> None:
        """The experiment's own state: running, done, failed or stopped."""
        self._set_experiment(name, state=state)

    def _set_experiment(self, name: str, **values: Any) -> None:
        with self._engine.begin() as c:
            update = _experiments.update().where(_experiments.c.name == name)
            c.execute(update.values(updated=time.time(), **values))

    def experiment(self, name: str) -> dict[str, Any] | None:
        """An experiment's row, None where there is none; without a living driver it is not running but stopped.

        "alive" is whether a process drives it now, "lost" whether its driver died before it could write how it ended.
        """
        with self._engine.connect() as c:
            row = c.execute(sa.select(_experiments).where(_experiments.c.name == name)).mappings().first()
        if row is None:
            return None
        alive = _alive(row)
        lost = row["state"] == "running" and not alive
        return {**row, "state": "stopped" if lost else row["state"], "alive": alive, "lost": lost}

    # -- trials ----------------------------------------------------------------------------------------------------

    def register(self, name: str, trials: Sequence[Trial], budgets: Mapping[str, tuple[int, str]]) -> None:
        """Writes the experiment's trials; those that exist keep their state. `budgets`: id -> (budget, unit)."""
        now = time.time()
        ids = [t.id for t in trials]
        with self._engine.begin() as c:
            known = set(c.scalars(sa.select(_trials.c.id).where(_trials.c.id.in_(ids))))
            new = [_new_row(t, budgets[t.id], now) for t in trials if t.id not in known]
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
        with self._engine.connect() as c:
            rows = _as_they_stand(c, c.execute(query).mappings().all())
        return [{**r, "reused": r["trained_by"] not in (None, experiment)} for r in rows]

    def find(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Trials by id, of whatever experiment."""
        with self._engine.connect() as c:
            rows = c.execute(sa.select(_trials).where(_trials.c.id.in_(list(ids)))).mappings().all()
            return {r["id"]: r for r in _as_they_stand(c, rows)}

    def claim(self, name: str, ids: Sequence[str]) -> list[str]:
        """Takes trials for this experiment; those that another live experiment is training are left out."""
        with self._engine.begin() as c:
            rows = c.execute(sa.select(_trials).where(_trials.c.id.in_(list(ids)))).mappings().all()
            busy = _driven(c, rows) - {name}
            mine = [r["id"] for r in rows if not (r["state"] == "running" and r["trained_by"] in busy)]
            update = _trials.update().where(_trials.c.id.in_(mine))
            c.execute(update.values(trained_by=name, updated=time.time()))
        return mine

    def set_trials(self, ids: Sequence[str], **values: Any) -> None:
        """Sets columns of some trials."""
        with self._engine.begin() as c:
            c.execute(_trials.update().where(_trials.c.id.in_(list(ids))).values(updated=time.time(), **values))

    # -- cohorts and decisions ---------------------------------------------------------------------------------------

    def open_cohort(
        self, cohort: str, experiment: str, trials: Sequence[str], sources: Any, running: Sequence[str]
    ) -> int:
        """Marks a cohort and its running trials, counts the attempt; returns the new fence number."""
        now = time.time()
        with self._engine.begin() as c:
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

    def set_cohort(self, cohort: str, **values: Any) -> None:
        """Sets columns of a cohort."""
        with self._engine.begin() as c:
            c.execute(_cohorts.update().where(_cohorts.c.id == cohort).values(updated=time.time(), **values))

    def open_cohorts(self, experiment: str) -> list[dict[str, Any]]:
        """Cohorts of an experiment that have not ended."""
        unfinished = _cohorts.c.state.in_(("running", "stopped"))
        query = sa.select(_cohorts).where(_cohorts.c.experiment == experiment, unfinished)
        with self._engine.connect() as c:
            return [dict(r) for r in c.execute(query.order_by(_cohorts.c.id)).mappings()]

    def cohorts_of(self, trial: str) -> list[str]:
        """Cohorts that a trial has been a lane of, the latest last."""
        query = sa.select(_cohorts.c.id, _cohorts.c.trials).order_by(_cohorts.c.updated)
        with self._engine.connect() as c:
            return [cohort for cohort, trials in c.execute(query) if trial in trials]

    def rates(self) -> dict[str, float]:
        """Measured rates of ended cohorts, progress x lanes per second by shape key; the newest counts."""
        query = sa.select(_cohorts.c.shape, _cohorts.c.rate).where(_cohorts.c.rate.is_not(None))
        with self._engine.connect() as c:
            return {shape: rate for shape, rate in c.execute(query.order_by(_cohorts.c.updated))}

    def decide(self, cohort: str, rows: Sequence[tuple[str | None, str, str]], progress: int) -> None:
        """Writes decisions, (trial, kind, reason) each, before they are sent."""
        now = time.time()
        values = [
            {"time": now, "cohort": cohort, "trial": t, "progress": progress, "kind": k, "reason": r}
            for t, k, r in rows
        ]
        with self._engine.begin() as c:
            c.execute(_decisions.insert(), values)

    def decisions(self, cohort: str) -> list[dict[str, Any]]:
        """Everything that was decided about a cohort, oldest first."""
        query = sa.select(_decisions).where(_decisions.c.cohort == cohort).order_by(_decisions.c.seq)
        with self._engine.connect() as c:
            return [dict(r) for r in c.execute(query).mappings()]


def _new_row(trial: Trial, budget: tuple[int, str], now: float) -> dict[str, Any]:
    return {
        "id": trial.id,
        "learner": trial.learner,
        "version": trial.version,
        "seed": trial.seed,
        "config": trial.config,
        "resources": trial.resources.model_dump(),
        "state": "planned",
        "attempts": 0,
        "progress": 0,
        "budget": budget[0],
        "unit": budget[1],
        "seconds": 0.0,
        "updated": now,
    }


def _driven(c: sa.Connection, rows: Iterable[sa.RowMapping]) -> set[str]:
    """Experiments with a living driver that are marked as training some of these trials."""
    names = {r["trained_by"] for r in rows if r["state"] == "running"} - {None}
    holders = c.execute(sa.select(_experiments).where(_experiments.c.name.in_(names))).mappings()
    return {holder["name"] for holder in holders if _alive(holder)}


def _as_they_stand(c: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[dict[str, Any]]:
    """Rows of trials; one that was running when its driver died is stopped."""
    driven = _driven(c, rows)
    dead = [r["state"] == "running" and r["trained_by"] not in driven for r in rows]
    return [{**r, "state": "stopped"} if d else dict(r) for r, d in zip(rows, dead, strict=True)]


def _alive(row: Any) -> bool:
    """Whether the process that holds an experiment lives; on another host its last sign of life decides."""
    if row["pid"] is None:
        return False
    if row["host"] != socket.gethostname():
        return time.time() - (row["heard"] or 0.0) < LEASE_SECONDS
    try:
        process = psutil.Process(row["pid"])
        same = abs(process.create_time() - row["started"]) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _sqlite_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def same_host_pid(row: Mapping[str, Any]) -> int | None:
    """The pid of the living driver on this host, or None."""
    if row.get("pid") and row["host"] == socket.gethostname() and _alive(row) and row["pid"] != os.getpid():
        return int(row["pid"])
    return None
