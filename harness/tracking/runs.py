"""The only module that starts wandb runs: their settings, their content, and what the server has of them.

Imported by the feeder's process alone: wandb starts a Go process of its own, prints, and can hang, and none
of that may touch training.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.apis.public.service_api import ServiceApi
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb.sdk.wandb_run import Run

from harness.files import write_bytes
from harness.tracking.media import media_values, whole_table
from harness.tracking.state import RunState, metrics_path, offline_folders, read_lines

__all__ = [
    "ServerDownError",
    "ServerView",
    "ask_server",
    "finish_content",
    "log_in",
    "remove_offline",
    "start_run",
]

INIT_TIMEOUT = 20.0
FINISH_TIMEOUT = 20.0

# wandb-core itself sends this query before it resumes a run: every server that wandb works with answers it.
RESUME_STATUS = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    id
    name
    bucket(name: $name, missingOk: true) {
      id
      name
      summaryMetrics
      historyLineCount
      historyTail
    }
  }
}
"""


class ServerDownError(Exception):
    """The server did not answer in time, or refused."""


@dataclass
class ServerView:
    """What the server has of one run.

    Attributes:
        lines: number of history lines.
        progress: `progress` of the last one; minus infinity where there is none.
        summary: the run's summary.
    """

    lines: int = 0
    progress: float = float("-inf")
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, bucket: dict[str, Any] | None) -> ServerView:
        """Read the `bucket` of an answer to RESUME_STATUS; None is a run that the server does not know."""
        if bucket is None:
            return cls()
        tail = json.loads(bucket.get("historyTail") or "[]")
        last = json.loads(tail[-1]) if tail else {}
        return cls(
            int(bucket.get("historyLineCount") or 0),
            float(last.get("progress", "-inf")),
            json.loads(bucket.get("summaryMetrics") or "{}"),
        )


def log_in() -> bool:
    """Whether there is a login for the server in use; asks neither the person nor the server."""
    host = wandb_setup.singleton().settings.base_url
    return wbauth.authenticate_session(host=host, source="seedbed", prompt=False) is not None


def ask_server(state: RunState, timeout: float) -> ServerView:
    """Ask the server what it has of a run.

    Raises:
        ServerDownError: it did not answer in `timeout` seconds, or refused.
    """
    log_in()
    settings = wandb_setup.singleton().settings.model_copy()
    settings.x_graphql_retry_max = 1
    settings.x_graphql_timeout_seconds = timeout
    variables = {"project": state.project, "entity": state.entity or None, "name": state.id}
    try:
        data: dict[str, Any] | None = ServiceApi(settings).execute_graphql(RESUME_STATUS, variables, timeout)
    except WandbApiFailedError as error:
        raise ServerDownError(f"the server does not answer: {error}") from error
    return ServerView.of(((data or {}).get("model") or {}).get("bucket"))


def start_run(root: Path, state: RunState, mode: str) -> Any:
    """Start a run, or, online, resume it.

    Nothing about the machine, the code, the environment or the command is recorded, and wandb does not count what of
    Python and of its own features is used here: no setting of its own switches that off.

    Raises:
        ServerDownError: the server did not let the run start within INIT_TIMEOUT.
    """
    settings = wandb.Settings(
        mode="online" if mode == "online" else "offline",
        root_dir=str(root),
        use_dot_wandb=False,
        entity=state.entity or None,
        project=state.project,
        run_id=state.id,
        run_name=state.meta["name"],
        run_group=state.meta["group"],
        run_job_type=state.meta["job_type"],
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        program="seedbed",
        host="",
        username="",
        email="",
        console="off",
        silent=True,
        symlink=False,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        stop_on_fatal_error=False,
        stop_fn=_ignore_stop,
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_graphql_retry_max=3,
        x_file_stream_retry_max=5,
        x_file_transfer_retry_max=3,
    )
    Run._telemetry_callback = _ignore_telemetry  # type: ignore[method-assign]
    try:
        run = wandb.init(settings=settings, config=state.meta["config"])
    except (wandb.Error, TimeoutError) as error:
        raise ServerDownError(f"the server does not let the run start: {error}") from error
    run.define_metric("progress")
    run.define_metric("*", step_metric="progress")
    return run


def _ignore_telemetry(self: Run, telem_obj: Any) -> None:
    """Platform, Python version and imported packages: wandb would add them to a run's configuration."""


def _ignore_stop() -> None:
    """The stop button of W&B's page: its default would interrupt the feeder; `seedbed stop` stops trials."""


def end_trial(root: Path, state: RunState, run: Any, lines: list[dict[str, Any]]) -> None:
    """Log the lines that are left and, where the trial ended, its media and summary.

    Media travel with the last line: a line of their own would break "history = the lines of metrics.jsonl".
    """
    media = media_values(root / "trials" / state.id / "media") if state.final else {}
    for line in lines[:-1]:
        run.log(line)
    if lines:
        run.log(lines[-1] | media)
    elif media:
        run.summary.update(media)
    if state.final:
        score = state.final["score"]
        summary = {
            "state": state.final["state"],
            "reason": state.final["reason"],
            "score": score.get("value"),
            "score_name": score.get("name"),
            "digest": state.digest,
        }
        run.summary.update({key: value for key, value in summary.items() if value not in (None, "")})


def remove_offline(root: Path, state: RunState) -> None:
    """Record that the run is about to be written, then remove the folders that earlier attempts left.

    In this order, so that a kill at any moment is seen next time.
    """
    state.state, state.folder = "open", ""
    state.write(root)
    for folder in offline_folders(root, state.id):
        shutil.rmtree(folder, ignore_errors=True)


def fill_report(root: Path, state: RunState, run: Any) -> None:
    """Log an experiment's tables in one history line, its summary, and its page as a file."""
    tables = {}
    for name, rows in state.final["tables"].items():
        if name == "trials":
            rows = [{**row, "run": _link(run, row["id"])} for row in rows]
        columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[row.get(column) for column in columns] for row in rows]
        tables[name] = whole_table(columns, cells)
    run.log(tables)
    run.summary.update({**state.final["summary"], "digest": state.digest})
    page = root / state.final.get("shared_page", "")  # "page", as earlier versions recorded it, says where it was made
    if page.is_file():
        copy = Path(run.dir) / "page.html"  # a copy: run.save would store a link to a path of this machine
        write_bytes(copy, page.read_bytes())
        run.save(str(copy), base_path=run.dir, policy="now", glob=False)


def _link(run: Any, run_id: str) -> str:
    """Where W&B shows another run of the same project; offline, where nobody knows yet, its id."""
    return f"{run.url.rsplit('/', 1)[0]}/{run_id}" if run.url else run_id


def finish_content(root: Path, state: RunState, run: Any, after: float) -> None:
    """Log everything of a run that comes after progress `after`."""
    if state.kind == "report":
        fill_report(root, state, run)
    else:
        end_trial(root, state, run, read_lines(metrics_path(root, state.id), state.fed, after))
