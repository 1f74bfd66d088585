"""One cohort in training: from boundary to boundary, with everything that is read and written on the way.

Where several workers train a cohort together, the one of rank 0 does this and the others follow it
(`harness.following`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import checkpoint
from harness.attempt import attempt
from harness.durations import remember
from harness.gang import join
from harness.learner import Lanes, Learner, import_learner, progress_of, select
from harness.messages import Decision, Job, Report
from harness.metric_names import check_metric_names
from harness.modes import choose
from harness.pace import Pace
from harness.parents import encoders_of, samplers_of
from harness.rings import Rings, broken_lanes
from harness.runfolder import RunFolder, facts
from nets.lanes import Execution, resolve_device

__all__ = ["CohortRun", "Interrupted"]


class Interrupted(BaseException):
    """The grace time is over: the worker lets go between two boundaries and falls back to the last checkpoint."""


class CohortRun:
    """One cohort in training: learner, state, best networks, run folders, rhythm."""

    def __init__(self, job: Job, interrupt: Callable[[], bool]) -> None:
        self.began = time.perf_counter()
        self.job = job
        self.interrupt = interrupt
        self.folder = Path(job.root) / "cohorts" / job.cohort
        self.notes: list[str] = []
        cls = import_learner(job.learner)
        configs = tuple(cls.Config.model_validate(t.config) for t in job.trials)
        self.score = cls.score_of(configs[0])
        resources = job.trials[0].resources
        device = resolve_device(resources.device)
        execution = Execution(device=device, dtype=getattr(torch, job.dtype))
        encoders, samplers = encoders_of(Path(job.root), job.trials), samplers_of(Path(job.root), job.trials)
        seeds, gang = tuple(t.seed for t in job.trials), join(job.seat, device)
        lanes = Lanes(configs, seeds, execution, encoders, samplers, gang, heed=self._heed)
        # each worker would measure alone, and they could choose differently
        wanted = "eager" if job.seat and resources.mode == "auto" else resources.mode
        self.choice = choose(cls, lanes, wanted, Path(job.root) / "cache" / "modes", job.mode)
        if job.mode is None and not cls.foreign:
            self.notes.append(f"lanes run {self.choice.mode}: {self.choice.reason}")
        self.lanes = replace(lanes, execution=replace(execution, mode=self.choice.mode))
        self.learner: Learner = cls()
        self.state = self.learner.start(self.lanes)
        self.rings = Rings(cls.rings)
        self.pace = Pace.of(configs[0], self.learner.chunk, self.learner.budget or configs[0].budget)
        self.best: dict[int, dict[str, Any]] = {}
        self.evaluations: dict[int, list[dict[str, Any]]] = {k: [] for k in range(len(configs))}
        self.lines: dict[int, dict[str, Any]] = {}
        self.ended: dict[int, dict[str, Any]] = {}
        self.fresh: dict[int, dict[str, Any]] = {}
        self.left_out: list[str] = []  # what could not be written beside the evaluations
        self.said: set[str] = set()
        self.progress = 0
        self.seconds = 0.0
        self.saved = -1
        self.committed: dict[str, int] = {}
        self.restored = False
        self._open_folders(self._restore())

    def _open_folders(self, kept: dict[str, int]) -> None:
        """Run folders, with metrics cut back to the bytes that a checkpoint has committed."""
        self.run_folders = [RunFolder(Path(self.job.root), t) for t in self.job.trials]
        checkpoint.check_fence(self.folder, self.job.fence)
        score = {"name": self.score.name, "direction": self.score.direction}
        for k, folder in enumerate(self.run_folders):
            if k not in self.ended:
                folder.open(self.learner.unit, score, kept.get(folder.trial.id, 0), self.progress)

    # -- restoring ---------------------------------------------------------------------------------------------------

    def _restore(self) -> dict[str, int]:
        """Takes the last good checkpoint, of this cohort or of the one it was cut from; returns the committed bytes."""
        own = ((self.job.cohort, tuple(range(len(self.lanes)))),)
        for cohort, index in own + self.job.sources:
            found = self._last_good(self.folder.parent / cohort)
            if found is not None:
                return self._take(found, index)
        return {}

    def _last_good(self, folder: Path) -> checkpoint.Checkpoint | None:
        for found in checkpoint.good_checkpoints(folder):
            if isinstance(found, checkpoint.Checkpoint):
                return found
            self.notes.append(f"a damaged checkpoint is passed over: {found}")
        return None

    def _take(self, found: checkpoint.Checkpoint, index: tuple[int, ...]) -> dict[str, int]:
        tree, meta = found.tree, found.meta
        if self.learner.foreign:
            self.state = self.learner.load(tree["state"])
        else:
            state = select(tree["state"], index)
            checkpoint.check_like(self.rings.without(self.state), state)
            self.state = self.rings.restored(self.lanes.execution.move(state), self.state, found, index)
        old = {str(j): k for k, j in enumerate(index)}
        self.best = {old[j]: row for j, row in tree["best"].items() if j in old}
        self.evaluations = {old[j]: rows for j, rows in meta["evaluations"].items() if j in old}
        self.lines = {old[j]: line for j, line in meta["lines"].items() if j in old}
        self.ended = {old[j]: result for j, result in meta["ended"].items() if j in old}
        self.restored = True
        self.progress = found.progress
        self.seconds = meta["seconds"]
        self.began -= meta.get("worker_seconds", self.seconds)  # of the attempts before
        self.committed = {t.id: meta["committed"][t.id] for t in self.job.trials}
        if found.path.parent == self.folder:
            self.saved, self.rings.known = found.progress, found.segments
        self.notes.append(f"goes on from progress {found.progress:,}")
        self.learner.checkpointed(self.state)
        return self.committed

    # -- training ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[int]:
        return [k for k in range(len(self.lanes)) if k not in self.ended]

    def advance(self, decision: Decision) -> Report:
        """Carries the decision out, trains to the next boundary, reports."""
        self.fresh = {}
        for lane, (state, reason) in decision.end.items():
            self._end(lane, state, reason)
        if decision.stop and self.alive and self._may_stop():
            if not self.learner.paced:  # a user's function is saved where it asks for it
                self._save()
            return self.report("stopped")
        if not self.alive:
            return self.report("done")
        if decision.stop:
            self._heed()
        began = time.perf_counter()
        metrics = self._train()
        self.seconds += time.perf_counter() - began
        evaluated = self._evaluate() if self._due("evaluate") else {}
        self._log(metrics, evaluated)
        broken = self._broken()
        if self._finished():
            for lane in self.alive:
                self._end(lane, *self._outcome(lane, broken))
            self._remember()
            return self.report("done")
        if self._due("checkpoint"):
            self._save()
        return self.report("boundary", broken)

    def _may_stop(self) -> bool:
        """Whether it can end here: a checkpoint out of turn must not change the numbers that come after it."""
        return not self.learner.restarts or self.saved == self.progress

    def _outcome(self, lane: int, broken: list[int]) -> tuple[str, str]:
        """How a lane that trained to its end ends, and why."""
        if lane in broken:
            return "diverged", "NaN or infinity in its state"
        if self.learner.paced and self.evaluations[lane][-1]["metrics"][self.score.name] is None:
            return "diverged", f"its last {self.score.name} is NaN or infinity"  # no number to compare it by
        return "done", ""

    def _remember(self) -> None:
        """Keeps what this shape takes, for plans."""
        root, taken = Path(self.job.root), time.perf_counter() - self.began
        attempt("its duration", partial(remember, root, self.job.trials, taken, self.progress), self.notes, False)

    def _train(self) -> dict[str, torch.Tensor]:
        """Chunks up to the next boundary; returns the means of their metrics, [K], NaN left out."""
        sums: dict[str, torch.Tensor] = {}
        counts: dict[str, torch.Tensor] = {}
        target = self.pace.next(self.progress)
        while True:
            for name, value in self.learner.advance(self.state).items():
                value = value.detach().double()
                there = ~value.isnan()
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.nan_to_num(0.0, math.inf, -math.inf)
                counts[name] = counts.get(name, torch.zeros_like(value)) + there
            self.progress = progress_of(self.state)
            if self.learner.paced or self.progress >= target:
                return {n: sums[n] / counts[n] for n in sums}
            self._heed()

    def _heed(self) -> None:
        if self.interrupt():
            raise Interrupted

    def _due(self, what: str) -> bool:
        if self.learner.paced:
            return self.learner.due(what)
        return self.pace.due(what, self.progress)

    def _finished(self) -> bool:
        return self.learner.finished if self.learner.paced else self.progress >= self.pace.budget

    def _evaluate(self) -> dict[int, dict[str, Any]]:
        """Evaluates, keeps each lane's best network; returns lane -> {"metrics": means, "episodes": lists}."""
        scores = {n: v.detach().double().cpu() for n, v in self.learner.evaluate(self.state).items()}
        found, pictures = {}, attempt("frames", lambda: self.learner.frames(self.state), self.left_out) or {}
        for lane in self.alive:
            row = {n: v[lane] for n, v in scores.items()}
            metrics = {n: float(v.mean()) for n, v in row.items()}
            found[lane] = {"metrics": metrics, "episodes": {n: _numbers(v) for n, v in row.items() if v.dim()}}
            self.evaluations[lane].append({"progress": self.progress, "metrics": _finite(metrics)})
            attempt("the best network", partial(self._keep_best, lane, metrics), self.left_out)
            own = {n: p[lane] for n, p in pictures.items()}
            attempt("frames", partial(self.run_folders[lane].frames, self.progress, own), self.left_out)
        self.notes += [text for text in dict.fromkeys(self.left_out) if text not in self.said]
        self.said.update(self.left_out)
        return found

    def _keep_best(self, lane: int, metrics: dict[str, float]) -> None:
        name = self.score.select or self.score.name
        direction = self.score.select_direction if self.score.select else self.score.direction
        value, best = metrics[name], self.best.get(lane)
        if not math.isfinite(value):
            return
        sign = 1 if direction == "max" else -1
        if best is None or sign * value > sign * best["metrics"][name]:
            network = self.learner.network(self.state, lane)
            weights = {n: t.clone() for n, t in network.state_dict().items()}
            self.best[lane] = {"progress": self.progress, "metrics": _finite(metrics), "weights": weights}

    def _log(self, metrics: dict[str, torch.Tensor], evaluated: dict[int, dict[str, Any]]) -> None:
        self.episodes = {lane: row["episodes"] for lane, row in evaluated.items()}
        if self.learner.paced:
            checkpoint.check_fence(self.folder, self.job.fence)
            rows = self.learner.drain()
            for progress, logged in rows:
                self.lines[0] = _finite({"progress": progress, "seconds": round(self.seconds, 3), **logged})
                self.run_folders[0].log(self.lines[0])
            return
        check_metric_names(metrics, self.score.name)
        checkpoint.check_fence(self.folder, self.job.fence)  # the lines are another worker's, once it took over
        host = {n: v.cpu() for n, v in metrics.items()}
        for lane in self.alive:
            line: dict[str, Any] = {"progress": self.progress, "seconds": round(self.seconds, 3)}
            line.update({n: float(v[lane]) for n, v in host.items()})
            line.update({f"eval/{n}": v for n, v in evaluated.get(lane, {"metrics": {}})["metrics"].items()})
            self.lines[lane] = _finite(line)
            self.run_folders[lane].log(line)

    def _broken(self) -> list[int]:
        """Alive lanes with a NaN or an infinity anywhere in their state."""
        if self.learner.foreign:
            return []
        bad = broken_lanes(self.rings.unseen(self.state), len(self.lanes))
        return [k for k in self.alive if bad[k]]

    # -- writing -----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Writes a checkpoint unless this boundary has one already."""
        if self.saved == self.progress and not self.learner.paced:
            return
        for lane in self.alive:
            self.committed[self.job.trials[lane].id] = self.run_folders[lane].commit()
        tree = {
            "state": self.learner.save(self.state) if self.learner.foreign else self.rings.without(self.state),
            "best": {str(k): row for k, row in self.best.items()},
        }
        meta = {
            "trials": [t.id for t in self.job.trials],
            "alive": self.alive,
            "mode": self.lanes.execution.mode,
            "threads": torch.get_num_threads(),
            "seconds": self.seconds,
            "worker_seconds": time.perf_counter() - self.began,
            "committed": self.committed,
            "evaluations": {str(k): rows for k, rows in self.evaluations.items()},
            "lines": {str(k): line for k, line in self.lines.items()},
            "ended": {str(k): result for k, result in self.ended.items()},
        }
        segments = self.rings.segments(self.state)
        path = checkpoint.save(self.folder, self.progress, self.job.fence, tree, meta, segments)
        self.saved, self.rings.known = self.progress, checkpoint.segments_of(path)
        self.learner.checkpointed(self.state)

    def _end(self, lane: int, state: str, reason: str) -> None:
        """Ends a lane: writes its networks, media and result; its weights change no more."""
        checkpoint.check_fence(self.folder, self.job.fence)
        folder = self.run_folders[lane]
        left_out = list(dict.fromkeys(self.left_out))
        sha256 = self._write_networks(lane, left_out)
        if state != "diverged":
            attempt("media", lambda: folder.media(self.learner.media(self.state, lane)), left_out)
        attempt("films", lambda: folder.media(folder.films(self.learner.unit)), left_out)
        self.committed[folder.trial.id] = folder.commit()
        result = {**self._result(lane, state, reason, sha256), "left_out": left_out}
        self.notes += [f"trial {folder.trial.id}: {text}" for text in left_out if text not in self.said]
        checkpoint.check_fence(self.folder, self.job.fence)
        folder.result(result)
        self.ended[lane] = self.fresh[lane] = result
        if "alive" in self.state:
            self.state["alive"][lane] = False

    def _write_networks(self, lane: int, left_out: list[str]) -> str:
        """Writes a lane's networks; returns the sha256 of the final one, "" where it could not be written."""
        folder, best = self.run_folders[lane], self.best.get(lane)
        final = attempt("the network", lambda: self.learner.network(self.state, lane), left_out)
        if final is None:
            return ""
        sha256 = attempt("the final network", lambda: folder.network("final", final), left_out)
        kept = best["weights"] if best else None
        attempt("the best network", lambda: folder.network("best", final, kept), left_out)
        companions = attempt("companions", lambda: self.learner.companions(self.state, lane), left_out) or {}
        for name, network in companions.items():
            attempt(f"the network {name}", partial(folder.network, name, network), left_out)
        return sha256 or ""

    def _result(self, lane: int, state: str, reason: str, sha256: str) -> dict[str, Any]:
        evaluations, best = self.evaluations[lane], self.best.get(lane)
        last = evaluations[-1]["metrics"] if evaluations else {}
        source = best["metrics"] if self.score.select and best else last
        value = self.score.worst if state == "diverged" else source.get(self.score.name)
        execution = self.lanes.execution
        return {
            "trial": self.job.trials[lane].id,
            "state": state,
            "reason": reason,
            "progress": self.progress,
            "score": {"name": self.score.name, "value": value},
            "metrics": last,
            "episodes": getattr(self, "episodes", {}).get(lane, {}),
            "best": {"progress": best["progress"], "metrics": best["metrics"]} if best else None,
            "seconds": round(self.seconds, 3),
            "cohort": {
                "id": self.job.cohort,
                "lanes": len(self.lanes),
                "lane": lane,
                "mode": execution.mode,
                "mode_reason": self.choice.reason,
                "mode_seconds": dict(self.choice.seconds),
                "device": execution.device,
                "threads": torch.get_num_threads(),
                "dtype": self.job.dtype,
            },
            **facts(),
            "weights_sha256": sha256,
        }

    def report(self, kind: Any, broken: list[int] | None = None) -> Report:
        """What the driver hears."""
        notes, self.notes = [*self.notes, *self.lanes.notes], []
        self.lanes.notes.clear()
        warnings = dict(self.lanes.warnings)
        self.lanes.warnings.clear()
        return Report(
            kind,
            self.job.cohort,
            progress=self.progress,
            budget=self.pace.budget,
            unit=self.learner.unit,
            seconds=self.seconds,
            lines=dict(self.lines),
            evaluations={k: self.evaluations[k] for k in self.alive},
            broken=broken or [],
            committed=dict(self.committed),
            results=dict(self.fresh) if kind != "boundary" or self.fresh else {},
            mode=self.lanes.execution.mode,
            notes=notes,
            warnings=warnings,
        )


def _numbers(row: torch.Tensor) -> list[Any]:
    """A row as JSON takes it: NaN and infinity are null."""
    return [v if not isinstance(v, float) or math.isfinite(v) else None for v in row.flatten().tolist()]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in values.items()}
