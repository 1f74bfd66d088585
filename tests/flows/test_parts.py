"""The parts of the command that need no other process."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import doctor, submit
from flows.leaderboard import leaderboard
from flows.progress import Bars, Lines, clock, make_display, metrics_text, rate_text
from flows.stopping import Stopper
from harness.executors import access

COHORT = {
    "kind": "cohort",
    "cohort": "c1",
    "label": "ppo [x]",
    "lanes": 4,
    "state": "running",
    "budget": 1000,
    "unit": "env_steps",
    "progress": 0,
}
REPORT = {
    "kind": "report",
    "cohort": "c1",
    "label": "ppo [x]",
    "progress": 250,
    "budget": 1000,
    "unit": "env_steps",
    "rate": 2000.0,
    "seconds_left": 65.0,
    "metrics": {"loss": 0.5, "eval/return": 12.25},
}
TRIAL = {
    "kind": "trial",
    "trial": "t1",
    "label": "ppo [x]",
    "seed": 3,
    "state": "diverged",
    "score_name": "return",
    "score": 0.0,
    "reason": "NaN in weights",
}


def test_clock_and_rates() -> None:
    assert [clock(s) for s in (-1, 8.2, 65, 7384)] == ["0s", "8s", "1:05", "2:03:04"]
    assert rate_text(12345.6, "images") == "12,346 images/s"
    assert rate_text(1.25, "steps") == "1.2 steps/s"
    assert metrics_text({"b": 2.0, "a": 1.0, "eval/x": 3.0}, most=2) == "eval/x 3  a 1"


def shown(display_class: type[Any], **console: Any) -> str:
    out = io.StringIO()
    display = display_class(Console(file=out, width=150, **console))
    with display:
        for event in (COHORT, REPORT, REPORT, TRIAL, {**COHORT, "state": "done"}, {"kind": "note", "text": "a [b] c"}):
            display.hear(event)
            if isinstance(display, Bars):
                display._bars.refresh()  # a terminal is drawn ten times a second
    return out.getvalue()


def test_lines_are_few_and_plain() -> None:
    lines = shown(Lines).splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == [
        "ppo [x] (4 lanes): training at 0 of 1,000 env_steps",
        "ppo [x]: eval/return 12.25  loss 0.5  (2,000 env_steps/s, 1:05 left)",
        "ppo [x] seed 3: diverged, return 0 (NaN in weights)",
        "ppo [x] (4 lanes): done at 0 of 1,000 env_steps",
        "a [b] c",
    ]


def test_a_cohorts_lines_go_on_and_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    out, time = io.StringIO(), [0.0]
    monkeypatch.setattr("flows.progress.time.monotonic", lambda: time[0])
    display = Lines(Console(file=out, width=150))
    for time[0] in range(0, 3600, 10):
        display.hear(REPORT)
        display.hear({**REPORT, "cohort": "c2", "metrics": {}})
    times = [line.split("]")[0].strip("[") for line in out.getvalue().splitlines()]
    assert times == ["0s", "30s", "1:00", "2:00", "4:00", "8:00", *(f"{m}:00" for m in range(13, 60, 5))]


def test_bars_show_rate_and_time_left() -> None:
    text = shown(Bars, force_terminal=True)
    for part in ("ppo [x] x4", "2,000 env_steps/s", "1:05 left", "eval/return 12.25", "a [b] c", "seed 3: diverged"):
        assert part in text
    assert isinstance(make_display(Console(file=io.StringIO())), Lines)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), Bars)


def trial(label: str, value: float | None, state: str = "done") -> dict[str, Any]:
    return {"label": label, "state": state, "score": {"name": "acc" if value is not None else None, "value": value}}


def test_leaderboard() -> None:
    summary = {"trials": [trial("a", 1.0), trial("b", None, "failed"), trial("a", 2.0, "diverged")]}
    assert leaderboard(summary) == [
        {"label": "a", "score": "acc", "trials": 2, "ended": 2, "mean": 1.5, "least": 1.0, "most": 2.0},
        {"label": "b", "score": None, "trials": 1, "ended": 0, "mean": None, "least": None, "most": None},
    ]


def test_stopper_asks_while_training_and_interrupts_otherwise() -> None:
    asked: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    stopper = Stopper(lambda: asked.append("stop"), asked.append)
    with stopper:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray and Prefect do when they start
        stopper.install()
        stopper.graceful = True
        with stopper:
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked[0] == "stop"
        assert signal.getsignal(signal.SIGTERM) == stopper._handle
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyboardInterrupt), Stopper(lambda: None, asked.append):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()


# -- submit ------------------------------------------------------------------------------------------------------


def test_job_name_attaches_while_it_lives_and_counts_epochs_after() -> None:
    first, live = submit.job_name("quick", "text", {})
    assert (first.startswith("seedbed-quick-"), live) == (True, False)
    assert submit.job_name("quick", "text", {first: "RUNNING"}) == (first, True)
    assert submit.job_name("quick", "text", {first: "FAILED"}) == (f"{first}-e2", False)
    ended = {first: "SUCCEEDED", f"{first}-e2": "PENDING"}
    assert submit.job_name("quick", "text", ended) == (f"{first}-e2", True)
    assert submit.job_name("quick", "other", {first: "RUNNING"})[0] != first


def test_token_is_found_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert access.find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert access.find_token() == "home"
    (tmp_path / "other").write_text("path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert access.find_token() == "path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "variable")
    assert access.find_token() == "variable"


# -- doctor ------------------------------------------------------------------------------------------------------


def test_shadowed_package_is_a_fault(tmp_path: Path) -> None:
    ours = Path(doctor.__file__).parents[1]
    found = {"agents": tmp_path / "agents", "nets": None}
    checks = {c.name: c for c in doctor.shadowed(lambda p: found.get(p, ours / p))}
    assert {name: c.state for name, c in checks.items()} == {
        "flows": "ok",
        "agents": "fault",
        "generative": "ok",
        "supervised": "ok",
        "harness": "ok",
        "nets": "fault",
    }
    assert str(tmp_path / "agents") in checks["agents"].text


def test_doctor_names_what_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("WANDB_API_KEY", "a-very-secret-key")
    assert doctor.examine(tmp_path / "runs", "http://127.0.0.1:9", as_json=False) == 1
    text = capsys.readouterr().out
    assert "http://127.0.0.1:9/api does not answer" in text
    assert "fault" in text
    assert "a-very-secret-key" not in text
    for name in ("torch", "ray", "prefect", "wandb", "disk", "threads", "GPU", "C++ compiler"):
        assert name in text
