"""The command `seedbed`. Everything heavy is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    help="Trains agents, generators and baselines: Prefect says when, Ray says where, Weights & Biases shows it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Executor(StrEnum):
    """Where workers live."""

    ray = "ray"
    inline = "inline"


class TrackerKind(StrEnum):
    """Where trials are shown beside their files."""

    auto = "auto"
    online = "online"
    offline = "offline"
    files = "files"


class Form(StrEnum):
    """What `export` writes."""

    safetensors = "safetensors"
    onnx = "onnx"


class Which(StrEnum):
    """Which of a trial's networks."""

    best = "best"
    final = "final"


File = Annotated[Path, typer.Argument(help="the experiment file", show_default=False)]
Name = Annotated[str, typer.Argument(help="the experiment's name", show_default=False)]
Root = Annotated[Path, typer.Option(envvar="SEEDBED_ROOT", help="folder that takes everything a run writes")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=c", help="override a field; repeatable")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]
Workers = Annotated[int, typer.Option(min=0, help="at most so many workers; 0: as many as there are CPUs")]
Where = Annotated[Executor, typer.Option(help="where workers live")]
RayAddress = Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster's head; none: Ray starts here")]
Tracked = Annotated[TrackerKind, typer.Option(help="auto: W&B online with a login, offline without")]
InputShape = Annotated[str | None, typer.Option("--input", help="shape of one row: 1,28,28")]
RetryFailed = Annotated[bool, typer.Option(help="run failed trials again, and done ones without results on disk")]


@app.command()
def run(
    file: File,
    set_: Sets = None,
    root: Root = Path("runs"),
    executor: Where = Executor.ray,
    ray_address: RayAddress = None,
    prefect: Annotated[bool, typer.Option(help="run as a Prefect flow, or without Prefect")] = True,
    tracker: Tracked = TrackerKind.auto,
    workers: Workers = 0,
    retry_failed: RetryFailed = False,
    as_json: AsJson = False,
) -> None:
    """Plan, train, summarise, report. The same command goes on where an earlier one ended."""
    from flows.running import run_file
    from flows.steps import Options

    options = Options(str(root), executor.value, ray_address, tracker.value, workers, retry_failed)
    _leave(lambda: run_file(file, set_ or [], options, prefect=prefect, as_json=as_json))


@app.command()
def plan(
    file: File,
    set_: Sets = None,
    root: Root = Path("runs"),
    workers: Workers = 0,
    retry_failed: RetryFailed = False,
    as_json: AsJson = False,
) -> None:
    """What would run, in which cohorts, what is done already, and what it should cost."""
    from flows.showing import show_plan
    from flows.steps import Options

    options = Options(str(root), "plan", workers=workers, retry_failed=retry_failed)
    _leave(lambda: show_plan(file, set_ or [], options, as_json=as_json))


@app.command()
def status(name: Name, root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """How an experiment stands."""
    from flows.showing import show_status

    _leave(lambda: show_status(root, name, as_json=as_json))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="an experiment, or a trial's id or its beginning", show_default=False)],
    root: Root = Path("runs"),
) -> None:
    """The log of an experiment's driver, or of a trial's worker."""
    from flows.showing import show_logs

    _leave(lambda: show_logs(root, name))


@app.command()
def repair(root: Root = Path("runs")) -> None:
    """Rebuild a lost or damaged ledger from run folders and checkpoints."""
    from flows.showing import repair_ledger

    _leave(lambda: repair_ledger(root))


@app.command()
def report(name: Name, root: Root = Path("runs")) -> None:
    """Build an experiment's page again and print its path."""
    from flows.showing import show_report

    _leave(lambda: show_report(root, name))


@app.command()
def stop(
    name: Name,
    root: Root = Path("runs"),
    ray_address: Annotated[str | None, typer.Option(help="the cluster's dashboard, if it was submitted there")] = None,
) -> None:
    """Stop a running experiment at its next boundary; the same command goes on later."""
    if ray_address is not None:
        from flows.submit import stop_job

        _leave(lambda: stop_job(name, ray_address))
    from flows.showing import stop_experiment

    _leave(lambda: stop_experiment(root, name))


@app.command()
def serve(
    file: File,
    cron: Annotated[str | None, typer.Option(help='minute hour day month weekday: "0 3 * * *"')] = None,
    timezone: Annotated[str | None, typer.Option(help="of --cron, such as Europe/Paris; none: this machine's")] = None,
    interval: Annotated[float | None, typer.Option(min=1, help="seconds between two runs")] = None,
    set_: Sets = None,
    root: Root = Path("runs"),
    executor: Where = Executor.ray,
    ray_address: RayAddress = None,
    tracker: Tracked = TrackerKind.auto,
    workers: Workers = 0,
    retry_failed: RetryFailed = False,
) -> None:
    """Run an experiment file on a schedule, as long as this command runs."""
    from flows.serve import serve_file
    from flows.steps import Options

    options = Options(str(root), executor.value, ray_address, tracker.value, workers, retry_failed)
    _leave(lambda: serve_file(file, set_ or [], options, cron=cron, interval=interval, timezone=timezone))


@app.command()
def submit(
    file: File,
    ray_address: Annotated[str, typer.Option(help="the cluster's dashboard")] = "http://127.0.0.1:8265",
    set_: Sets = None,
    root: Root = Path("runs"),
    tracker: Tracked = TrackerKind.auto,
    workers: Workers = 0,
    retry_failed: RetryFailed = False,
) -> None:
    """Run an experiment file on a Ray cluster as a job; a second submission attaches to the first."""
    from flows.submit import submit_file

    flags = ["--tracker", tracker.value, "--workers", str(workers), *(["--retry-failed"] if retry_failed else [])]
    _leave(lambda: submit_file(file, set_ or [], root, ray_address, flags))


@app.command()
def blocks(
    kind: Annotated[str | None, typer.Argument(help="one block; none: all of them", show_default=False)] = None,
    input_: InputShape = None,
    output: Annotated[str | None, typer.Option(help="how many outputs; a generator's sample shape")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="field=value", help="a field; repeatable")] = None,
    as_json: AsJson = False,
) -> None:
    """What networks are made of, with all fields; with --input also a block's layers, parameters and FLOPs."""
    from flows.blocks import show_blocks

    _leave(lambda: show_blocks(kind, input_, output, set_ or [], as_json=as_json))


@app.command()
def data(as_json: AsJson = False) -> None:
    """The data sets, and which of them are here."""
    from flows.data import show_data

    _leave(lambda: show_data(as_json=as_json))


@app.command()
def export(
    trial: Annotated[str, typer.Argument(help="a trial's id, or the beginning of it", show_default=False)],
    root: Root = Path("runs"),
    form: Annotated[Form, typer.Option("--format", help="what to write")] = Form.safetensors,
    which: Annotated[Which, typer.Option(help="which network of the trial")] = Which.best,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="the file; none: TRIAL.FORMAT in this folder")
    ] = None,
    input_: InputShape = None,
) -> None:
    """Write a trial's network to a file of its own."""
    from flows.exporting import export_trial

    _leave(lambda: export_trial(root, trial, form.value, which.value, output, input_))


@app.command()
def zoo(
    file: Annotated[Path, typer.Argument(help="hyper-parameters as rl-baselines3-zoo writes them", show_default=False)],
    algo: Annotated[str, typer.Option(help="the algorithm that they are for: ppo, sac, ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the experiment file to write")],
    env: Annotated[str | None, typer.Option(help="one environment; default: all that the file names")] = None,
    own: Annotated[bool, typer.Option("--own", help="for our own learner instead of stable-baselines3's")] = False,
) -> None:
    """Turn a hyper-parameter file of rl-baselines3-zoo into an experiment file."""
    from flows.zoo import import_zoo

    _leave(lambda: import_zoo(file, algo, env, own, output))


@app.command()
def overfit(
    file: File,
    set_: Sets = None,
    updates: Annotated[int, typer.Option(min=16, help="updates on the one batch")] = 200,
    as_json: AsJson = False,
) -> None:
    """Check that each supervised trial of a file can learn one batch by heart."""
    from flows.checking import one_batch

    _leave(lambda: one_batch(file, set_ or [], updates, as_json=as_json))


@app.command("lr-range")
def lr_range(
    file: File,
    set_: Sets = None,
    low: Annotated[float, typer.Option(help="lowest learning rate")] = 1e-5,
    high: Annotated[float, typer.Option(help="highest learning rate")] = 1.0,
    count: Annotated[int, typer.Option(min=2, help="how many rates, evenly spaced in their logarithm")] = 11,
    chunks: Annotated[int, typer.Option(min=2, help="how long each trains")] = 10,
    as_json: AsJson = False,
) -> None:
    """Try the first supervised trial of a file at several learning rates, side by side."""
    from flows.checking import learning_rate_range

    _leave(lambda: learning_rate_range(file, set_ or [], low, high, count, chunks, as_json=as_json))


@app.command()
def sync(root: Root = Path("runs")) -> None:
    """Deliver offline W&B runs, and prove that they arrived."""
    from flows.showing import sync_runs

    _leave(lambda: sync_runs(root))


@app.command()
def doctor(root: Root = Path("runs"), ray_address: RayAddress = None, as_json: AsJson = False) -> None:
    """What is installed, reachable and authorised."""
    from flows.doctor import examine

    _leave(lambda: examine(root, ray_address, as_json=as_json))


def _leave(command: Any) -> None:
    """Runs a command; an error that the user can mend is one sentence on standard error."""
    try:
        code = command()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `seedbed status NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        text = _explained(error)
        if text is None:
            raise
        print(text, file=sys.stderr)
        kind = type(error).__name__
        code = 2 if kind == "SpecError" or getattr(error, "usage", False) else 130 if kind in STOPPED else 1
    raise typer.Exit(code)


# by name: importing them would load torch and the ledger for `seedbed --help`
TROUBLES = ("SpecError", "BusyError", "TakenOverError", "ClusterError", "LedgerError", "NoSpaceError")
STOPPED = ("TakenOverError", "NoSpaceError")  # the run is stopped and can be resumed


def _explained(error: Exception) -> str | None:
    """The sentence of an error that is no fault of the program's; None for the rest."""
    from flows.errors import UserError

    if isinstance(error, UserError) or type(error).__name__ in TROUBLES:
        return str(error)
    from harness.files import disk_trouble

    return disk_trouble(error) or None


def print_json(value: Any) -> None:
    """One JSON object as one line of standard output."""
    print(json.dumps(value, allow_nan=False), flush=True)


def main() -> None:
    """The entry point of `seedbed`."""
    app(prog_name="seedbed")


if __name__ == "__main__":
    main()
