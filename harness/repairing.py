"""A lost or damaged ledger, rebuilt from what lies beside it: run folders, checkpoints, experiments' own files.

What only the ledger knew is lost: decisions, attempts before the last, measured rates. Everything else comes back: a
finished trial has its result, an unfinished one resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from harness import checkpoint
from harness import ledger_tables as tables
from harness.files import sync
from harness.learner import learner_class
from harness.ledger import FINAL, BusyError, Ledger
from harness.ledger_access import Database, LedgerError

__all__ = ["Repaired", "repair"]

WRITTEN = ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")


@dataclass
class Repaired:
    """What a rebuilt ledger holds.

    Attributes:
        states: how many trials are in each state.
        experiments: their names.
        kept: where the files of the old ledger are now.
        unreadable: run folders and cohorts that nothing could be read from, with the reason.
        sound: nothing was wrong with the ledger, and nothing was done.
    """

    states: dict[str, int] = field(default_factory=dict)
    experiments: list[str] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    sound: bool = False


def repair(root: Path) -> Repaired:
    """Rebuilds the ledger of a run root; the old one is kept under a name with the date.

    Raises:
        BusyError: a process uses the ledger now.
        FileNotFoundError: there is nothing to rebuild it from.
        LedgerError: the new one cannot be written.
    """
    file = root / "ledger.sqlite"
    if not (root / "trials").is_dir() and not (root / "experiments").is_dir():
        raise FileNotFoundError(f"{root} has no trials and no experiments to rebuild a ledger from: is it a run root?")
    _check_unused(file)
    done = Repaired()
    trials = dict(_trials(root, done))
    if _is_sound(file, trials):
        return Repaired(sound=True)
    cohorts = list(_cohorts(root, trials, done))
    members = list(_members(root, trials))
    done.experiments = sorted({row["experiment"] for row in members})
    fresh = root / f"ledger-new-{os.getpid()}.sqlite"
    database = Database(fresh, rebuilt=True)
    with database.writing() as c:
        now = time.time()
        for name in done.experiments:
            own = [trials[row["trial"]] for row in members if row["experiment"] == name]
            c.execute(tables.experiments.insert().values(created=now, updated=now, **_experiment(root, name, own)))
        dated = [{**row, "updated": now} for row in trials.values()]
        for table, rows in ((tables.trials, dated), (tables.cohorts, [{**row, "updated": now} for row in cohorts])):
            if rows:
                c.execute(table.insert(), rows)
        if members:
            c.execute(tables.members.insert(), members)
        c.execute(tables.decisions.insert().values(time=now, cohort="", kind="repair", reason="the ledger was rebuilt"))
    with database.reading() as c:
        c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    _exchange(root, fresh, done)
    for row in trials.values():
        done.states[row["state"]] = done.states.get(row["state"], 0) + 1
    return done


def _check_unused(file: Path) -> None:
    """Raises BusyError where a process of this machine has the ledger open, or one of another still drives."""
    names = {str(file.with_name(name)) for name in WRITTEN}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and names & {f.path for f in process.open_files()}:
                raise BusyError(f"process {process.pid} uses {file}: stop it first, then repair")
    if not file.is_file():
        return
    with suppress(LedgerError, sa.exc.SQLAlchemyError):  # damaged, then: nobody can be asked
        ledger = Ledger(file)
        try:
            for name in ledger.driven():
                raise BusyError(f"experiment {name} is being run: stop it with `seedbed stop {name}`, then repair")
        finally:
            ledger.close()


def _is_sound(file: Path, trials: Mapping[str, Any]) -> bool:
    """Whether a ledger can be read to its last page and knows every trial that has a run folder."""
    if not file.is_file():
        return False
    try:
        database = Database(file)
        try:
            with database.reading() as c:
                known = set(c.scalars(sa.select(tables.trials.c.id)))
                return c.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok" and known >= trials.keys()
        finally:
            database.close()
    except (LedgerError, sa.exc.SQLAlchemyError):
        return False


def _exchange(root: Path, fresh: Path, done: Repaired) -> None:
    """Puts the new ledger in the place of the old one, whose files are kept."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for name in WRITTEN:
        old = root / name
        if old.exists():
            kept = root / name.replace("ledger", f"ledger-before-{stamp}")
            old.rename(kept)
            done.kept.append(kept)
    for end in ("-wal", "-shm"):
        fresh.with_name(fresh.name + end).unlink(missing_ok=True)
    fresh.rename(root / "ledger.sqlite")
    sync(root)


# -- reading -----------------------------------------------------------------------------------------------------------


def _json(file: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        ValueError: it is damaged.
    """
    value = json.loads(file.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds no JSON object")
    return value


def _trials(root: Path, done: Repaired) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of trials by id, each from its run folder."""
    for folder in sorted((root / "trials").glob("*")):
        try:
            yield folder.name, _trial(folder)
        except Exception as error:  # whatever is damaged there: the next run of its experiment registers it anew
            done.unreadable.append(f"{folder}: {' '.join(str(error).split())}")


def _trial(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json")
    if config["trial"] != folder.name:
        raise ValueError(f"its config.json is that of trial {config['trial']}")
    row = {
        "id": folder.name,
        "learner": str(config["learner"]),
        "version": int(config["version"]),
        "seed": int(config["seed"]),
        "config": config["config"],
        "resources": config["resources"],
        "unit": config["unit"],
        "budget": _budget(config),
        "attempts": 1,
        "state": "stopped",
        "progress": 0,
        "seconds": 0.0,
        "score_name": None,
        "score": None,
        "reason": None,
        "cohort": None,
        "lane": None,
        "trained_by": config.get("experiment"),
    }
    with suppress(OSError, ValueError, KeyError, TypeError):  # without a readable result it is trained to its end again
        result = _json(folder / "result.json")
        if result["trial"] == folder.name and result["state"] in FINAL:
            names = ("state", "reason", "progress", "seconds")
            score, cohort = result["score"], result["cohort"]
            row = {**row, "score_name": score["name"], "score": score["value"]}
            return {**row, **{n: result[n] for n in names}, "cohort": cohort["id"], "lane": cohort["lane"]}
    if (folder / "traceback.txt").is_file():
        return {**row, "state": "failed", "reason": "failed before the ledger was rebuilt: see its traceback.txt"}
    return row


def _budget(config: Mapping[str, Any]) -> int:
    """How much progress a trial makes in all; 0 where its learner is not to be had here."""
    with suppress(Exception):
        return int(learner_class(config["learner"]).Config.model_validate(config["config"]).budget)
    return 0


def _cohorts(root: Path, trials: dict[str, dict[str, Any]], done: Repaired) -> Iterator[dict[str, Any]]:
    """Rows of cohorts from their newest checkpoints; sets in which cohort, and how far, each unfinished trial is."""
    manifests: dict[str, dict[str, Any]] = {}
    for folder in sorted((root / "cohorts").glob("*")):
        for path in checkpoint.generations(folder):
            try:
                manifests[folder.name] = checkpoint.manifest_of(path)
                break
            except Exception as error:
                done.unreadable.append(f"{path}: {' '.join(str(error).split())}")
    for name, manifest in sorted(manifests.items(), key=lambda item: item[1]["progress"]):  # the furthest one counts
        for lane, trial in enumerate(manifest["meta"]["trials"]):
            row = trials.get(trial)
            if row is not None and row["state"] == "stopped" and lane in manifest["meta"]["alive"]:
                row.update(cohort=name, lane=lane, progress=manifest["progress"], seconds=manifest["meta"]["seconds"])
    for name, manifest in manifests.items():
        yield {
            "id": name,
            "experiment": _experiment_of(manifest, trials),
            "trials": manifest["meta"]["trials"],
            "state": _state_of(name, manifest, trials),
            "fence": _fence(root / "cohorts" / name, manifest),
            "mode": manifest["meta"]["mode"],
            "sources": [],
            "progress": manifest["progress"],
        }


def _experiment_of(manifest: Mapping[str, Any], trials: Mapping[str, Mapping[str, Any]]) -> str | None:
    names = [trials[t]["trained_by"] for t in manifest["meta"]["trials"] if t in trials]
    return names[0] if names else None


def _state_of(name: str, manifest: Mapping[str, Any], trials: Mapping[str, Mapping[str, Any]]) -> str:
    """Stopped while all of its unfinished trials go on in it; split when some went on elsewhere."""
    unfinished = [t for t in manifest["meta"]["trials"] if t in trials and trials[t]["state"] == "stopped"]
    if not unfinished:
        return "done"
    return "stopped" if all(trials[t]["cohort"] == name for t in unfinished) else "split"


def _fence(folder: Path, manifest: Mapping[str, Any]) -> int:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return max(int(_json(folder / "fence.json")["fence"]), int(manifest["fence"]))
    return int(manifest["fence"])


def _members(root: Path, trials: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Which trials belong to which experiment; those that have no run folder yet are registered by its next run."""
    for folder in sorted((root / "experiments").glob("*")):
        listed: list[dict[str, Any]] = []
        for name in ("trials.json", "summary.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                rows = _json(folder / name)["trials"]
                listed = [{"trial": t["id"], "entry": t.get("entry", 0), "label": t["label"]} for t in rows]
                break
        known = [row for row in listed if row["trial"] in trials]
        yield from ({"experiment": folder.name, "position": k, **row} for k, row in enumerate(known))


def _experiment(root: Path, name: str, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    states = {row["state"] for row in trials}
    state = "stopped" if states - {*FINAL, "failed"} else "failed" if "failed" in states else "done"
    file = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        file = _json(root / "experiments" / name / "trials.json")["file"]
    file = file or str(root / "experiments" / name / "experiment.yaml")
    return {"name": name, "file": file, "state": state, "beats": 0}
