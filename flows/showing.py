"""The commands that look or tidy up: plan, status, logs, repair, report, stop, sync."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.errors import UserError
from flows.leaderboard import leaderboard
from flows.progress import clock, leaderboard_table
from flows.steps import Options, Steps, build_report, counted, read_ledger, summary_of
from harness.planning import check_room
from harness.spec_errors import SpecError

__all__ = ["repair_ledger", "show_logs", "show_plan", "show_report", "show_status", "stop_experiment", "sync_runs"]

STOP_SECONDS = 60.0
SYNC_SECONDS = 600.0


def show_plan(file: Path, overrides: Sequence[str], options: Options, *, as_json: bool) -> int:
    """Prints what a run would do.

    Raises:
        SpecError: the file is wrong.
    """
    steps = Steps.load(file, overrides, options)
    plan = steps.plan()
    if as_json:
        from flows.cli import print_json

        print_json(_plan_json(steps, plan))
        return 0
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cohort")
    table.add_column("lanes", justify="right")
    table.add_column("seeds")
    table.add_column("expected", justify="right")
    for (cohort, _), seconds in zip(plan.cohorts, plan.expected, strict=True):
        label = " | ".join(dict.fromkeys(t.label for t in cohort))
        seeds = ", ".join(dict.fromkeys(str(t.seed) for t in cohort))
        table.add_row(Text(label), str(len(cohort)), seeds, "unknown" if seconds is None else clock(seconds))
    if plan.cohorts:
        console.print(table)
    console.print(f"{len(plan.due)} to train in {counted(len(plan.cohorts), 'cohort')}, {_expected(plan)}")
    console.print(f"{len(plan.done)} done already, {len(plan.failed)} failed before")
    if plan.lost:
        console.print(Text(plan.lost_text))
    try:
        check_room(steps.experiment.trials, inline=False, here=True)
    except SpecError as error:  # no fault of the file: it may be meant for a cluster
        console.print(Text(f"`seedbed run` on this machine will refuse: {error}"))
    return 0


def _expected(plan: Any) -> str:
    """The worker time that all cohorts should take, as far as cohorts of their shapes were measured."""
    known = [seconds for seconds in plan.expected if seconds is not None]
    if plan.cohorts and not known:
        return "worker time unknown until one of each shape was trained on this machine"
    unknown = len(plan.cohorts) - len(known)
    more = f", and {counted(unknown, 'cohort')} of unknown cost" if unknown else ""
    return f"{clock(sum(known))} of worker time expected{more}"


def _plan_json(steps: Steps, plan: Any) -> dict[str, Any]:
    trials = steps.experiment.trials
    return {
        "experiment": steps.experiment.name,
        "run_root": str(steps.root),
        "trials": [{"id": t.id, "learner": t.learner, "label": t.label, "seed": t.seed} for t in trials],
        "due": [t.id for t in plan.due],
        "done": [t.id for t in plan.done],
        "failed": [t.id for t in plan.failed],
        "cohorts": [
            {"trials": [t.id for t in cohort], "seconds": seconds and round(seconds, 1)}
            for (cohort, _), seconds in zip(plan.cohorts, plan.expected, strict=True)
        ],
        "seconds": None if None in plan.expected else round(sum(s for s in plan.expected if s), 1),
    }


def _unknown(root: Path, name: str) -> UserError:
    from harness.ledger_access import missing_ledger

    return UserError(missing_ledger(root) or f"the run root {root} has no experiment {name}", usage=True)


def show_status(root: Path, name: str, *, as_json: bool) -> int:
    """Prints how an experiment stands.

    Raises:
        UserError: there is none of that name.
    """
    root = root.resolve()
    try:
        summary = summary_of(root, name)
        row, trials = read_ledger(root, name)
    except KeyError:
        raise _unknown(root, name) from None
    if as_json:
        from flows.cli import print_json

        print_json(summary)
        return 0
    console = Console(highlight=False)
    console.print(f"{name}: {row['state']}{_driver_text(row)}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("trial", "label", "seed", "state", "progress", "score", "reason"):
        table.add_column(column, no_wrap=column == "trial", min_width=16 if column == "trial" else None)  # to be copied
    for t in trials:
        share = f"{t['progress']:,} of {t['budget']:,} {t['unit']}"
        score = "-" if t["score"] is None else f"{t['score_name']} {t['score']:.4g}"
        table.add_row(t["id"], Text(t["label"]), str(t["seed"]), t["state"], share, score, Text(t["reason"] or ""))
    console.print(table)
    console.print(leaderboard_table(leaderboard(summary)))
    return 0


def _driver_text(row: dict[str, Any]) -> str:
    """Who drives an experiment, or what became of a driver that never said how it ended."""
    who = f"process {row['pid']} on {row['host']}"
    if row["alive"]:
        return f", run by {who}"
    if not row["lost"]:
        return ""
    gone = f"its driver ({who}) is gone" if row["pid"] else "its driver failed"
    return f"; {gone}, `seedbed run` resumes from the last checkpoint"


def show_logs(root: Path, name: str) -> int:
    """Prints the driver's log of an experiment, or the logs of a trial's workers (and its traceback).

    Raises:
        UserError: neither is there.
    """
    root = root.resolve()
    file = root / "experiments" / name / "driver.log"
    files = [file] if file.parent.is_dir() else _files_of_trial(root, name)
    told = ""
    for file in files:
        text = file.read_text(errors="replace") if file.is_file() else ""
        if text not in told:  # a worker that could still speak has told the traceback itself
            told += text
    print(told or "nothing was logged\n", end="", flush=True)
    return 0


def _files_of_trial(root: Path, trial: str) -> list[Path]:
    from flows.exporting import begins_with
    from harness.ledger import Ledger
    from harness.worker_log import worker_logs

    if not (root / "ledger.sqlite").exists():
        raise _unknown(root, trial)
    ledger = Ledger(root / "ledger.sqlite")
    try:
        found = next(iter(begins_with(root, ledger, trial)), None)
        if found is None:
            raise UserError(f"the run root {root} has no experiment and no trial {trial}", usage=True)
        cohorts = ledger.cohorts_of(found)
    finally:
        ledger.close()
    logs = [file for cohort in cohorts for file in worker_logs(root / "cohorts" / cohort)]
    return [*logs, root / "trials" / found / "traceback.txt"]


def show_report(root: Path, name: str) -> int:
    """Builds the page again and prints its path.

    Raises:
        UserError: there is no such experiment.
    """
    try:
        print(build_report(root.resolve(), name))
    except KeyError:
        raise _unknown(root, name) from None
    return 0


def repair_ledger(root: Path) -> int:
    """Rebuilds the ledger of a run root and says what it holds now.

    Raises:
        UserError: there is nothing to rebuild it from.
        BusyError: a process uses the ledger.
    """
    from harness.repairing import repair

    try:
        done = repair(root.resolve())
    except FileNotFoundError as error:
        raise UserError(str(error), usage=True) from None
    if done.sound:
        print("the ledger is sound: nothing was changed")
        return 0
    for text in done.unreadable:
        print(f"passed over: {text}")
    for path in done.kept:
        print(f"kept: {path}")
    states = ", ".join(f"{count} {state}" for state, count in sorted(done.states.items())) or "none"
    print(f"trials: {states}")
    print(f"experiments: {', '.join(done.experiments) or 'none'}")
    print("`seedbed run` resumes them; what only the ledger knew (decisions, attempts, rates) is lost")
    return 0


def stop_experiment(root: Path, name: str) -> int:
    """Asks the driver of an experiment to stop and waits until it did.

    Raises:
        UserError: there is no such experiment, or its driver runs on another machine.
    """
    from harness.ledger import same_host_pid

    try:
        row, _ = read_ledger(root.resolve(), name)
    except KeyError:
        raise _unknown(root, name) from None
    if not row["alive"]:
        print(f"{name} is not running")
        return 0
    pid = same_host_pid(row)
    if pid is None:
        raise UserError(f"{name} is run by process {row['pid']} on {row['host']}: stop it there")
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while time.monotonic() < end:
        row, _ = read_ledger(root.resolve(), name)
        if not row["alive"]:
            print(f"{name} is stopped; `seedbed run` goes on")
            return 0
        time.sleep(0.2)
    raise UserError(f"{name} was asked to stop, but process {pid} still runs; it stops at its next boundary")


def sync_runs(root: Path) -> int:
    """Delivers offline W&B runs and says what arrived."""
    from harness.tracking import sync

    done = sync(root.resolve(), SYNC_SECONDS)
    print("\n".join(done.lines))
    return done.exit_code
