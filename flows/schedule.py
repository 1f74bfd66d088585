"""When `seedbed serve` runs: a cron line with its time zone, or an interval; checked before anything starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows.errors import UserError

__all__ = ["check_zone", "local_zone", "next_time"]

_CRON = re.compile(r"@\w+|[\w*/,#?-]+(\s+[\w*/,#?-]+){4}")  # Prefect checks the rest, once it is imported
_SIX = 6


def local_zone(etc: Path = Path("/etc")) -> str:
    """The IANA name of this machine's time zone, from TZ, /etc/localtime or /etc/timezone; UTC where none is set.

    Args:
        etc: where the system keeps its settings.

    Raises:
        UserError: a zone is set, but not by such a name.
    """
    given = os.environ.get("TZ")
    if given is not None:
        name = given.removeprefix(":").rpartition("zoneinfo/")[2] or "UTC"
        return _known(name, f"the time zone of this machine, TZ={given}")
    link = (etc / "localtime").resolve() if (etc / "localtime").is_symlink() else None
    if link is not None and "zoneinfo/" in str(link):
        name = str(link).rpartition("zoneinfo/")[2]
        return _known(name.removeprefix("posix/"), f"the time zone of this machine, {link}")
    try:
        name = (etc / "timezone").read_text().strip()
    except OSError:
        name = ""
    if not name and (etc / "localtime").exists():
        raise UserError(f"{etc / 'localtime'} does not name this machine's time zone; give --timezone", usage=True)
    return _known(name or "UTC", f"the time zone of this machine, {name}")


def check_zone(name: str) -> str:
    """The name of a time zone, if there is one.

    Raises:
        UserError: there is none.
    """
    return _known(name, f"--timezone {name}")


def _known(name: str, what: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        mend = "give a name like --timezone America/New_York"
        raise UserError(f"{what}: there is no IANA time zone of that name; {mend}", usage=True) from None
    return name


def next_time(cron: str, zone: str) -> datetime:
    """When a cron line comes due next, as Prefect's server reckons it.

    Args:
        cron: five fields, or an alias such as @daily.
        zone: IANA name of its time zone.

    Raises:
        UserError: it is not a cron line, has six fields, or names a date that never comes.
    """
    fields = len(cron.split())
    if fields == _SIX:
        mend = "give five: minute hour day month weekday"
        raise UserError(f'--cron "{cron}" has six fields, of which the last would be seconds; {mend}', usage=True)
    if not _CRON.fullmatch(cron.strip()):
        raise _no_cron(cron)
    with _no_home():
        from prefect.server.schemas.schedules import CronSchedule
    try:
        schedule = CronSchedule(cron=cron, timezone=zone)
    except ValueError:
        raise _no_cron(cron) from None
    try:
        dates = asyncio.run(schedule.get_dates(n=1))
    except ValueError:
        dates = []
    if not dates:
        raise UserError(f'--cron "{cron}" names a date that never comes; change its day or its month', usage=True)
    return datetime.fromtimestamp(dates[0].timestamp(), ZoneInfo(zone))


@contextlib.contextmanager
def _no_home() -> Iterator[None]:
    """Lets Prefect make its home, as it does when it is imported, where it leaves nothing behind."""
    if "PREFECT_HOME" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="seedbed-") as name:
        os.environ["PREFECT_HOME"] = name
        try:
            yield
        finally:
            del os.environ["PREFECT_HOME"]


def _no_cron(cron: str) -> UserError:
    text = f'--cron "{cron}" is not a cron line; it has five fields: minute hour day month weekday'
    return UserError(text, usage=True)
