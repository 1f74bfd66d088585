"""Extractors: their cards say the truth, damaged weights are refused; the classifier that makes them learns."""

from __future__ import annotations

import json

import pytest
import torch

from generative import extractors
from generative.accuracy_score import _moved, accuracy, accuracy_score, tensors
from generative.extractors import FOLDER, ExtractorError, card, extractor, extractor_of, features, names
from generative.extractors.train import RECIPES, train
from harness import data
from harness.randomness import generator

SMALL = {"kind": "mlp", "hidden_features": 64}
IMAGES = [name for name in names() if card(name)["kind"] == "images"]


def here(name: str) -> bool:
    try:
        return bool(data.card(name))
    except data.DataError:
        return False


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "fashion_cnn" else []) for n in IMAGES]
)
def test_the_card_says_the_truth(name):
    about = card(name)
    if not here(about["data"]):
        pytest.skip(f"{about['data']} is not here")
    assert (FOLDER / f"{name}.safetensors").stat().st_size == about["bytes"] <= 400_000
    assert about["data_sha256"] == data.card(about["data"]).sha256
    assert extractor_of(about["data"]) == name
    x, y = tensors(data.load(about["data"])["test"])
    x, y = x[:1000], y[:1000]
    module = extractor(name)
    assert features(module, x[:3]).shape == (3, about["features"])
    right = (module.logits(features(module, x).float()).argmax(-1) == y).double().mean()
    assert right.item() == pytest.approx(about["test_accuracy"], abs=0.02)


def test_every_recipe_has_its_extractor():
    assert set(RECIPES) == set(IMAGES)


def test_unknown_and_damaged_extractors_are_named(tmp_path, monkeypatch):
    with pytest.raises(ExtractorError, match="no extractor is called 'inception'; there are digits_cnn"):
        extractor("inception")
    for suffix in ("json", "safetensors"):
        (tmp_path / f"digits_cnn.{suffix}").write_bytes((FOLDER / f"digits_cnn.{suffix}").read_bytes())
    weights = tmp_path / "digits_cnn.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(extractors, "FOLDER", tmp_path)
    with pytest.raises(ExtractorError, match="are not those of its card"):
        extractor.__wrapped__("digits_cnn")
    assert extractor_of("ring-8") is None


def test_training_writes_what_it_measured(tmp_path):
    made = train("digits_cnn", tmp_path, updates=60, net=SMALL)
    assert json.loads((tmp_path / "digits_cnn.json").read_text()) == made
    assert 0.5 < made["test_accuracy"] <= 1
    assert made["command"] == "python -m generative.extractors.train digits_cnn"


def test_a_classifier_learns_from_samples_what_they_hold():
    about = data.card("digits")
    x, y = tensors(data.load("digits")["validation"])
    kept = y < 5
    scores = accuracy_score(x[kept], y[kept], about, updates=60, net=SMALL)
    assert scores["real_accuracy"] > 0.8
    assert 0.3 < scores["accuracy_score"] < 0.55  # half of the classes were never seen
    assert scores["accuracy_gap"] == pytest.approx(scores["real_accuracy"] - scores["accuracy_score"])
    with pytest.raises(ValueError, match=r"pass images \[N, \*card.shape\]"):
        accuracy_score(x[:, None], y, about)


def test_accuracy_counts_over_all_batches():
    def model(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((images[:, 0, 0] > 0).long(), 2)

    x = torch.cat([torch.zeros(600, 1, 1), torch.ones(600, 1, 1)])
    assert accuracy(model, x, torch.cat([torch.zeros(600), torch.ones(300), torch.zeros(300)])) == 0.75


def test_moves_shift_and_mirror():
    image = torch.zeros(40, 2, 5, 4)
    image[:, :, 2, 1] = 1
    moved = _moved(image, generator(0, "test"), shift=1, flip=False)
    places = {tuple(row.tolist()) for row in moved[:, 0].nonzero()[:, 1:]}
    assert places == {(i, j) for i in (1, 2, 3) for j in (0, 1, 2)}
    assert torch.equal(moved[:, 0], moved[:, 1])
    mirrored = _moved(image, generator(0, "test"), shift=0, flip=True)
    assert {tuple(row.tolist()) for row in mirrored[:, 1].nonzero()[:, 1:]} == {(2, 1), (2, 2)}
    assert torch.equal(_moved(image[:, 0], generator(0, "test"), shift=0, flip=False), image[:, 0])
