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
from harness.learner import Lanes, import_learner, progress_of
from harness.messages import Decision, Job, Report
from harness.metric_names import check_metric_names
from harness.modes import choose
from harness.pace import Pace
from harness.parents import encoders_of, samplers_of
from harness.restoring import Standing, take_up
from harness.rings import broken_lanes
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
        self.fresh: dict[int, dict[str, Any]] = {}
        self._adopt(take_up(job, cls, self.lanes, self.notes))
        self.pace = Pace.of(configs[0], self.learner.chunk, self.learner.budget or configs[0].budget)
        self._open_folders()
        if self.restored:
            self.notes.append(f"goes on from progress {self.progress:,}")

    def _adopt(self, found: Standing) -> None:
        """Takes over how far the cohort has come."""
        self.learner, self.state, self.rings = found.learner, found.state, found.rings
        self.best, self.evaluations, self.episodes = found.best, found.evaluations, found.episodes
        self.lines, self.ended = found.lines, found.ended
        self.fresh = dict(found.ended)  # the driver may not have heard of them
        self.left_out = found.left_out  # what could not be written beside the evaluations
        self.said = set(found.left_out)
        self.progress, self.seconds, self.saved = found.progress, found.seconds, found.saved
        self.began -= found.worker_seconds  # of the attempts before
        self.committed = found.committed
        self.restored, self.damaged = found.restored, found.damaged
        self.broken = self._broken() if found.broken is None else found.broken

    def _open_folders(self) -> None:
        """Run folders, with metrics cut back to the bytes that a checkpoint has committed."""
        self.run_folders = [RunFolder(Path(self.job.root), t, self.job.experiment) for t in self.job.trials]
        checkpoint.check_fence(self.folder, self.job.fence)
        score = {"name": self.score.name, "direction": self.score.direction}
        for k, folder in enumerate(self.run_folders):
            if k in self.ended:
                self._mend(k, score)
            else:
                folder.open(self.learner.unit, score, self.committed.get(folder.trial.id, 0), self.progress)

    def _mend(self, lane: int, score: dict[str, str]) -> None:
        """Writes again what was lost or damaged of a lane that has ended."""
        folder, result = self.run_folders[lane], self.ended[lane]
        if folder.holds(result):
            return
        folder.describe(self.learner.unit, score)
        left_out: list[str] = []
        sums = self._write_networks(lane, left_out)
        folder.result(result)
        lost = "" if sums.get("final", "") == result["weights_sha256"] else ", but for its final network"
        self.notes.append(f"trial {folder.trial.id} has ended: its damaged files are written again{lost}")

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
        self.broken = self._broken()
        if self._finished():
            for lane in self.alive:
                self._end(lane, *self._outcome(lane))
            self._remember()
            return self.report("done")
        if self._due("checkpoint"):
            self._save()
        return self.report("boundary")

    def _may_stop(self) -> bool:
        """Whether it can end here: a checkpoint out of turn must not change the numbers that come after it."""
        return not self.learner.restarts or self.saved == self.progress

    def _outcome(self, lane: int) -> tuple[str, str]:
        """How a lane that trained to its end ends, and why."""
        if lane in self.broken:
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
            "episodes": {str(k): rows for k, rows in self.episodes.items()},
            "metrics_sha256": {f.trial.id: f.sha256 for k, f in enumerate(self.run_folders) if k in self.alive},
            "broken": [k for k in self.broken if k in self.alive],  # the driver ends them after this checkpoint
            "left_out": self.left_out,
            "ended": {str(k): result for k, result in self.ended.items()},
        }
        segments = self.rings.segments(self.state)
        path = checkpoint.save(self.folder, self.progress, self.job.fence, tree, meta, segments, self.damaged)
        self.damaged = []
        self.saved, self.rings.known = self.progress, checkpoint.segments_of(path)
        self.learner.checkpointed(self.state)

    def _end(self, lane: int, state: str, reason: str) -> None:
        """Ends a lane: writes its networks, media and result; its weights change no more."""
        checkpoint.check_fence(self.folder, self.job.fence)
        folder = self.run_folders[lane]
        left_out = list(dict.fromkeys(self.left_out))
        sums = self._write_networks(lane, left_out)
        if state != "diverged":
            attempt("media", lambda: folder.media(self.learner.media(self.state, lane)), left_out)
        attempt("films", lambda: folder.media(folder.films(self.learner.unit)), left_out)
        self.committed[folder.trial.id] = folder.commit()
        result = {**self._result(lane, state, reason, sums), "left_out": left_out}
        self.notes += [f"trial {folder.trial.id}: {text}" for text in left_out if text not in self.said]
        checkpoint.check_fence(self.folder, self.job.fence)
        folder.result(result)
        self.ended[lane] = self.fresh[lane] = result
        if "alive" in self.state:
            self.state["alive"][lane] = False

    def _write_networks(self, lane: int, left_out: list[str]) -> dict[str, str]:
        """Writes a lane's networks; returns name -> sha256 of those that could be written."""
        folder, best = self.run_folders[lane], self.best.get(lane)
        final = attempt("the network", lambda: self.learner.network(self.state, lane), left_out)
        if final is None:
            return {}
        kept = best["weights"] if best else None
        sums = {
            "final": attempt("the final network", lambda: folder.network("final", final), left_out),
            "best": attempt("the best network", lambda: folder.network("best", final, kept), left_out),
        }
        companions = attempt("companions", lambda: self.learner.companions(self.state, lane), left_out) or {}
        for name, network in companions.items():
            sums[name] = attempt(f"the network {name}", partial(folder.network, name, network), left_out)
        return {name: sha256 for name, sha256 in sums.items() if sha256}

    def _result(self, lane: int, state: str, reason: str, sums: dict[str, str]) -> dict[str, Any]:
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
            "episodes": self.episodes.get(lane, {}),
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
            "weights_sha256": sums.get("final", ""),
            "networks_sha256": sums,
        }

    def report(self, kind: Any) -> Report:
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
            broken=[k for k in self.broken if k in self.alive] if kind == "boundary" else [],
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
