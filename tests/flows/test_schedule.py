"""`seedbed serve`: cron lines, time zones, and runs that were missed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.errors import UserError
from flows.schedule import check_zone, local_zone, next_time
from flows.serve import PAGE, cancel_overdue, serve_file
from flows.steps import Options
from tests.flows.conftest import ROOT, environment

NEVER = "names a date that never comes"
FIELDS = "is not a cron line; it has five fields"


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* * * * * *", "has six fields, of which the last would be seconds; give five"),
        ("0 3 * * * 2027", "has six fields"),
        ("0 0 30 2 *", NEVER),
        ("0 0 31 4,6,9,11 *", NEVER),
        ("* * * *", FIELDS),
        ("60 * * * *", FIELDS),
        ("0 3 * * H", FIELDS),
        ("every day", FIELDS),
        ("", FIELDS),
    ],
)
def test_a_wrong_cron_line_is_refused(cron: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        next_time(cron, "UTC")
    assert error.value.usage


@pytest.mark.parametrize("cron", ["0 3 * * *", "0 3 * * mon-sun", "00 03 */1 1-12 0-7"])
def test_a_time_of_day_is_that_of_its_zone(cron: str) -> None:
    for zone in ("America/New_York", "Asia/Kolkata", "UTC"):
        due = next_time(cron, zone)
        assert (due.hour, due.minute, str(due.tzinfo)) == (3, 0, zone)
        assert timedelta(0) <= due - datetime.now(UTC) <= timedelta(days=1, hours=1)
    assert next_time("0 0 29 2 *", "UTC").day == 29  # years away, but it comes
    assert next_time("@hourly", "UTC").minute == 0


def test_the_zone_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    assert local_zone(tmp_path) == "UTC"
    (tmp_path / "timezone").write_text("Europe/Paris\n")
    assert local_zone(tmp_path) == "Europe/Paris"
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/America/New_York")
    assert local_zone(tmp_path) == "America/New_York"
    for given, name in (
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/Asia/Kolkata", "Asia/Kolkata"),
        ("", "UTC"),
    ):
        monkeypatch.setenv("TZ", given)
        assert local_zone(tmp_path) == name
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    with pytest.raises(UserError, match="give a name like --timezone"):
        local_zone(tmp_path)


def test_a_zone_that_the_machine_does_not_name_has_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    (tmp_path / "localtime").write_bytes(b"TZif")  # a copy instead of a link
    with pytest.raises(UserError, match="does not name this machine's time zone; give --timezone"):
        local_zone(tmp_path)
    assert check_zone("Europe/Paris") == "Europe/Paris"
    for wrong in ("Mars/Olympus", "../etc/passwd", "", "3"):
        with pytest.raises(UserError, match="there is no IANA time zone of that name"):
            check_zone(wrong)


def test_a_wrong_schedule_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: function, call: 'trains_nothing:train'}]\n")
    (tmp_path / "trains_nothing.py").write_text("def train(run):\n    raise AssertionError\n")
    wrong: list[dict[str, Any]] = [
        {},
        {"cron": "* * * * *", "interval": 5.0},
        {"interval": 5.0, "timezone": "UTC"},
        {"cron": "0 0 30 2 *"},
        {"cron": "* * * * * *"},
        {"cron": "* * * * *", "timezone": "Mars/Olympus"},
    ]
    for schedule in wrong:
        with pytest.raises(UserError) as error:
            serve_file(file, [], Options(str(tmp_path / "runs")), **schedule)
        assert error.value.usage
    assert not (tmp_path / "runs").exists()


class Server:
    """Answers as Prefect's API does: overdue runs, the newest first, a page at a time; cancelled ones are gone."""

    def __init__(self, count: int) -> None:
        self.runs = list(range(count))

    def read_flow_runs(self, limit: int, offset: int, **_: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=i) for i in self.runs[offset : offset + limit]]

    def set_flow_run_state(self, run: int, state: Any, force: bool) -> None:
        assert state.is_cancelled()
        self.runs.remove(run)


@pytest.mark.parametrize(("count", "keep"), [(0, 0), (1, 0), (1, 1), (3, 1), (PAGE, 0), (2 * PAGE + 3, 1)])
def test_missed_runs_are_cancelled_but_for_the_newest(count: int, keep: int) -> None:
    server = Server(count)
    assert cancel_overdue(server, "11111111-1111-1111-1111-111111111111", keep) == max(0, count - keep)
    assert server.runs == list(range(min(count, keep)))


REAL = """
import os, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from flows.prefect_server import PrefectServer, client_settings, quiet_environment
folder = Path(sys.argv[1])
server = PrefectServer(folder / "prefect", folder / "log")
server.start()
os.environ.update({**quiet_environment(), **client_settings(server)})
try:
    assert server.wait()
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import EntrypointType
    from prefect.runner import Runner
    from prefect.schedules import Cron
    from prefect.states import Scheduled
    from flows.experiment import run_experiment
    from flows.serve import cancel_overdue
    schedule = Cron("0 3 * * *", timezone="America/New_York")
    values = {"schedule": schedule, "parameters": {"file": "x"}, "entrypoint_type": EntrypointType.MODULE_PATH}
    deployment = Runner(name="e").add_flow(run_experiment, name="e", **values)
    with get_client(sync_client=True) as client:
        now = datetime.now(timezone.utc)
        for hours in (-3, -2, -1, 1):
            state = Scheduled(scheduled_time=now + timedelta(hours=hours))
            client.create_flow_run_from_deployment(deployment, state=state)
        zone = client.read_deployment(deployment).schedules[0].schedule.timezone
        print(zone, cancel_overdue(client, deployment, keep=1), cancel_overdue(client, deployment, keep=1))
        left = [run for run in client.read_flow_runs() if run.state.is_scheduled() and not run.auto_scheduled]
        print(sorted(round((run.expected_start_time.timestamp() - now.timestamp()) / 3600) for run in left))
        print(cancel_overdue(client, deployment, keep=0))
finally:
    server.stop()
"""


@pytest.mark.slow
def test_prefects_server_knows_the_zone_and_forgets_what_was_missed(tmp_path: Path) -> None:
    env = environment(PREFECT_HOME=str(tmp_path / "prefect"))
    arguments = [sys.executable, "-c", REAL, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=env, timeout=200)
    assert done.stdout.splitlines() == ["America/New_York 2 0", "[-1, 1]", "1"], done.stdout + done.stderr
