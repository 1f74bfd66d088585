"""`seedbed serve`: Prefect runs an experiment file on a schedule, in one process, as long as the command runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.errors import UserError
from flows.prefect_server import PrefectServer, api_url_of_user, client_settings, quiet_environment
from flows.steps import Options, experiment_folder
from harness.experiment import load_experiment

__all__ = ["serve_file"]

_CRON = re.compile(r"(@\w+|[\w*/,#?-]+(\s+[\w*/,#?-]+){4,5})")  # Prefect checks the rest, once it is imported


def serve_file(
    file: Path, overrides: Sequence[str], options: Options, *, cron: str | None, interval: float | None
) -> int:
    """Serves the flow `run_experiment` on a schedule until it is interrupted.

    Raises:
        SpecError: the file is wrong; nothing was written or started.
        UserError: not exactly one schedule, a wrong cron line, or a server that does not start.
    """
    if (cron is None) == (interval is None):
        raise UserError('give one of --cron "0 3 * * *" and --interval SECONDS', usage=True)
    if cron is not None and not _CRON.fullmatch(cron.strip()):
        raise _no_cron(cron)
    experiment = load_experiment(file, overrides)
    root = Path(options.root).resolve()
    server = None
    if not api_url_of_user():
        log = experiment_folder(root, experiment.name) / "prefect-server.log"
        server = PrefectServer(root / "prefect", log, schedules=True)
        server.start()
        os.environ.update(client_settings(server))
        os.environ.pop("PREFECT_API_KEY", None)  # a forgotten key would win over our password
    os.environ.update(quiet_environment())
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *_paths()])
    try:
        if server is not None and not server.wait():
            raise UserError(f"Prefect's server did not start; see {server.log}")
        parameters = {
            "file": str(Path(file).resolve()),
            "overrides": list(overrides),
            "options": {**options.to_json(), "root": str(root)},
        }
        when = f"cron {cron}" if cron else f"every {interval:g} s"
        print(f"{experiment.name}: served ({when}); Ctrl-C ends it", flush=True)
        _serve(experiment.name, parameters, cron, interval)
        return 0
    finally:
        if server is not None:
            server.stop()


def _paths() -> list[str]:
    given = os.environ.get("PYTHONPATH", "")
    return given.split(os.pathsep) if given else []


def _no_cron(cron: str) -> UserError:
    text = f'--cron "{cron}" is no cron line; it has five fields: minute hour day month weekday'
    return UserError(text, usage=True)


def _serve(name: str, parameters: dict[str, Any], cron: str | None, interval: float | None) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import EntrypointType

    from flows.experiment import run_experiment

    if cron is not None:
        try:
            CronSchedule(cron=cron)
        except ValueError:
            raise _no_cron(cron) from None
    schedule: dict[str, Any] = {"cron": cron} if cron else {"interval": interval}
    sys.stdout.flush()
    run_experiment.serve(
        name=name,
        parameters=parameters,
        limit=1,  # two runs of one experiment at a time would only wait for each other
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **schedule,
    )
