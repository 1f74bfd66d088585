"""`seedbed serve`: Prefect runs an experiment file on a schedule, in one process, as long as the command runs.

Times that pass while the command does not run, or while a run takes longer than the schedule allows, are made up for by
one run, not by one run each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.errors import UserError
from flows.prefect_server import PrefectServer, api_url_of_user, client_settings, quiet_environment
from flows.schedule import check_zone, local_zone, next_time
from flows.steps import Options, counted, experiment_folder
from flows.stopping import SERVE_PID
from harness.experiment import load_experiment

__all__ = ["serve_file"]

OVERDUE_SECONDS = 10.0  # between two looks for runs that are overdue
PAGE = 200  # runs that Prefect's server tells at once


def serve_file(
    file: Path,
    overrides: Sequence[str],
    options: Options,
    *,
    cron: str | None = None,
    interval: float | None = None,
    timezone: str | None = None,
) -> int:
    """Serves the flow `run_experiment` on a schedule until it is interrupted.

    Raises:
        SpecError: the file is wrong; nothing was written or started.
        UserError: not exactly one schedule, a wrong cron line or time zone, or a server that does not start.
    """
    if (cron is None) == (interval is None):
        raise UserError('give one of --cron "0 3 * * *" and --interval SECONDS', usage=True)
    if cron is None and timezone is not None:
        raise UserError("--timezone belongs to --cron; an interval has no time of day", usage=True)
    experiment = load_experiment(file, overrides)
    os.environ.update(quiet_environment(ours=not api_url_of_user()))  # before Prefect is imported
    zone, when = "", f"every {interval} s"
    if cron is not None:
        zone = local_zone() if timezone is None else check_zone(timezone)
        when = f"cron {cron}, time zone {zone}, next at {next_time(cron, zone):%Y-%m-%d %H:%M %Z}"
    root = Path(options.root).resolve()
    parameters = {
        "file": str(Path(file).resolve()),
        "overrides": list(overrides),
        "options": {**options.to_json(), "root": str(root)},
    }
    with _prefect(root, experiment.name) as ours:
        print(f"{experiment.name}: served ({when}); Ctrl-C ends it", flush=True)
        _serve(experiment.name, parameters, cron, zone, interval, ours)
    return 0


@contextlib.contextmanager
def _prefect(root: Path, name: str) -> Iterator[bool]:
    """Points this process and its children to a Prefect server; true where it is one of our own, which ends here."""
    server = None
    if not api_url_of_user():
        server = PrefectServer(root / "prefect", experiment_folder(root, name) / "prefect-server.log", schedules=True)
        server.start()
        os.environ.update(client_settings(server))
        os.environ.pop("PREFECT_API_KEY", None)  # a forgotten key would win over our password
    os.environ[SERVE_PID] = str(os.getpid())  # the runs end with this process, however it ends
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *_paths()])
    try:
        if server is not None and not server.wait():
            raise UserError(f"Prefect's server did not start; see {server.log}")
        yield server is not None
    finally:
        if server is not None:
            server.stop()


def _paths() -> list[str]:
    given = os.environ.get("PYTHONPATH", "")
    return given.split(os.pathsep) if given else []


def _serve(
    name: str, parameters: dict[str, Any], cron: str | None, zone: str, interval: float | None, ours: bool
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.context import refresh_global_settings_context
    from prefect.deployments.runner import EntrypointType
    from prefect.exceptions import TerminationSignal
    from prefect.runner import Runner
    from prefect.schedules import Cron, Interval

    from flows.experiment import run_experiment

    refresh_global_settings_context()  # Prefect was imported to read the cron line, before its server was known
    schedule = Cron(cron, timezone=zone) if cron is not None else Interval(float(interval or 0))
    # Two runs of one experiment at a time would only wait for each other. Pausing would forget what comes due later:
    # on a server of the user's that is wanted, for there the schedule would otherwise outlive this command.
    runner = Runner(name=name, limit=1, pause_on_shutdown=not ours)
    deployment: Any = runner.add_flow(  # outside an event loop it is the id itself
        run_experiment,
        name=name,
        schedule=schedule,
        parameters=parameters,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    with get_client(sync_client=True) as client:
        if missed := cancel_overdue(client, deployment, keep=0):
            client.create_flow_run_from_deployment(deployment)  # the old ones may have other parameters
            print(f"{name}: {counted(missed, 'run')} missed; one makes up for them now", flush=True)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(deployment, ended), daemon=True).start()
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, TerminationSignal):
        return
    finally:
        ended.set()


def _watch(deployment: Any, ended: threading.Event) -> None:
    """While a long run keeps others waiting, lets only the newest of them wait."""
    from prefect.client.orchestration import get_client

    while not ended.wait(OVERDUE_SECONDS):
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # the next look may succeed
            cancel_overdue(client, deployment, keep=1)


def cancel_overdue(client: Any, deployment: Any, keep: int) -> int:
    """Cancels a deployment's overdue runs but for the newest `keep`; returns how many were cancelled."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Cancelled
    from prefect.types._datetime import now

    overdue = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=["SCHEDULED"])),
        next_scheduled_start_time=filters.FlowRunFilterNextScheduledStartTime(before_=now("UTC")),
    )
    cancelled = 0
    while True:
        runs = client.read_flow_runs(
            flow_run_filter=overdue, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE, offset=keep
        )
        for run in runs:
            client.set_flow_run_state(run.id, Cancelled(message="missed; one run makes up for all"), force=True)
        cancelled += len(runs)
        if len(runs) < PAGE:
            return cancelled
