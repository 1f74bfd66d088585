"""Frames at every evaluation become a video, and a resumed run's video is that of an uninterrupted one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN, State
from tests.toy import Toy

TEXT = "name: e\ntrials: [{learner: filmed, steps: 40, report_every: 5, evaluate_every: 5, checkpoint_every: 15}]\n"


class Filmed(Toy):
    """Shows its first weight as a grey, and its progress in a corner: a GIF keeps equal frames as one."""

    def frames(self, state: State) -> dict[str, list[np.ndarray]]:
        greys = (128 * state["w"][:, 0]).clamp(0, 255).tolist()
        pictures = [np.full((6, 9), grey, dtype=np.uint8) for grey in greys]
        for picture, progress in zip(pictures, state["progress"].tolist(), strict=True):
            picture[0, 0] = 6 * progress
        return {"weight": pictures}


@pytest.fixture(autouse=True)
def filmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "filmed", "tests.harness.test_frames:Filmed")


def train(folder: Path, root: str, stop_after: int = 1000) -> Path:
    """Trains, asked to stop after so many reports; returns the trial's folder."""
    file = folder / "e.yaml"
    file.write_text(TEXT)
    seen = []

    def handler(event: dict) -> None:
        seen.append(event["kind"])
        if seen.count("report") == stop_after:
            driver.request_stop()

    driver = Driver(load_experiment(file), folder / root, executor="inline", on_event=handler)
    driver.train()
    return next((folder / root / "trials").iterdir())


def test_a_video_of_all_evaluations_stands_among_the_media(tmp_path: Path):
    trial = train(tmp_path, "runs")
    about = json.loads((trial / "media" / "weight-over-training.json").read_text())
    assert about["kind"] == "video"
    assert about["caption"] == "weight of the same noise at 8 evaluations, from 5 to 40 steps"
    with Image.open(io.BytesIO((trial / "media" / about["file"]).read_bytes())) as film:
        assert (film.n_frames, film.size) == (8, (9, 6))


def test_frames_that_no_checkpoint_has_committed_are_made_anew(tmp_path: Path):
    whole, broken = train(tmp_path, "whole"), train(tmp_path, "broken", stop_after=4)
    frames = sorted(path.name for path in (broken / "frames" / "weight").iterdir())
    assert 0 < len(frames) < 8
    late = broken / "frames" / "weight" / f"{39:015d}.png"  # as of a run that was killed after its last checkpoint
    Image.fromarray(np.zeros((6, 9), dtype=np.uint8)).save(late)
    train(tmp_path, "broken")
    film = "media/weight-over-training.gif"
    assert (broken / film).read_bytes() == (whole / film).read_bytes()
    assert not late.exists()
