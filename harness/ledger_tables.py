"""The ledger's tables, and how a ledger of an earlier version gets the columns that it lacks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from harness.spec import Trial

__all__ = ["cohorts", "complete", "decisions", "experiments", "is_complete", "members", "new_trial", "trials"]

_meta = sa.MetaData()
experiments = sa.Table(
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
    sa.Column("holder", sa.String),  # of the one driving; who no longer finds its own here was taken over
    sa.Column("beats", sa.Integer),  # signs of life: rises while it lives
)
trials = sa.Table(
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
members = sa.Table(
    "members",
    _meta,
    sa.Column("experiment", sa.String, primary_key=True),
    sa.Column("trial", sa.String, primary_key=True),
    sa.Column("entry", sa.Integer),
    sa.Column("position", sa.Integer),
    sa.Column("label", sa.String),
)
cohorts = sa.Table(
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
decisions = sa.Table(
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


def new_trial(trial: Trial, budget: tuple[int, str], now: float) -> dict[str, Any]:
    """The row of a trial that nobody has trained yet; `budget` is how much progress it makes in all, and its unit."""
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


def is_complete(connection: sa.Connection) -> bool:
    """Whether a database has every table and column."""
    return not _missing(connection)


def complete(connection: sa.Connection) -> None:
    """Makes the tables, and adds columns that an earlier version did not have."""
    _meta.create_all(connection)
    quote = connection.dialect.identifier_preparer
    for column in _missing(connection):
        kind = column.type.compile(connection.dialect)
        table = quote.format_table(column.table)
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {quote.format_column(column)} {kind}")


def _missing(connection: sa.Connection) -> list[sa.Column[object]]:
    """Columns that the database lacks."""
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    missing: list[sa.Column[object]] = []
    for table in _meta.sorted_tables:
        known = {c["name"] for c in inspector.get_columns(table.name)} if table.name in there else set()
        missing += [column for column in table.columns if column.name not in known]
    return missing
