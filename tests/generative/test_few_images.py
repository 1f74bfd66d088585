"""Generators of a handful of one's own images: judged and shown, or refused by the plan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion import Diffusion, DiffusionConfig
from generative.gan import GAN, GANConfig
from generative.judge import Judge
from generative.judge_images import _by_label
from generative.metrics import frechet_distance, frechet_of_rows, moments
from generative.vae import VAE, VAEConfig
from harness import data
from harness.data import own
from harness.learner import Lanes


@pytest.fixture(autouse=True)
def forget():
    """Paths of other tests."""
    own.opened.cache_clear()
    data.sets.card.cache_clear()


def faces(folder, count, classes=("",), size=(8, 8)):
    """Images in one folder, or in one for each class."""
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(place / f"{i}.png")
    return f"{folder}/"


@pytest.mark.parametrize(
    ("learner", "config"), [(GAN, GANConfig), (VAE, VAEConfig), (Diffusion, DiffusionConfig)], ids=["gan", "vae", "edm"]
)
@pytest.mark.parametrize("count", [30, 60])
def test_thirty_images_without_classes_are_enough(tmp_path, learner, config, count):
    made = learner()
    state = made.start(Lanes((config(data=faces(tmp_path / "faces", count), images=100, batch=8, samples=100),), (0,)))
    made.advance(state)
    scores = made.evaluate(state)
    assert all(value.isfinite().all() for value in scores.values())
    media = made.media(state, 0)
    held = count // 5
    assert media["samples"].caption == f"64 generated images beside {held} held-out ones"
    assert media["samples"].reference.shape[1] == media["samples"].data.shape[1]
    assert set(made.frames(state)) == {"samples"}


@pytest.mark.parametrize(("count", "held"), [(27, 5), (6, 1)])
def test_fewer_are_refused_before_anything_is_trained(tmp_path, count, held):
    message = (
        f"has {count} rows, of which {held} are held out; a generator is judged by at least 6, so give it about 30"
    )
    with pytest.raises(ValueError, match=message):
        GANConfig(data=faces(tmp_path / "faces", count))


def test_a_class_without_held_out_images_is_shown_as_a_blank(tmp_path):
    assert _by_label(np.array([0, 0]), np.array([0, 1, 0, 1])).tolist() == [0, -1, 1, -1]
    name = faces(tmp_path / "faces", 60, ("a", "b"))
    test = data.load(name)["test"]
    only = test.y.copy()
    only[:] = 0
    data.load(name)["test"] = type(test)(test.x, only)
    media = Judge(data.card(name)).media(torch.zeros(8, 8, 8), torch.arange(8) % 2)
    assert media["samples"].caption.startswith("8 generated images beside 4 held-out ones")
    reference = media["samples"].reference
    assert reference[:, reference.shape[1] // 2 + 1 :].max() == 0  # the right column is class b's


def test_the_distance_of_few_rows_of_many_features_is_the_same_number():
    rng = np.random.default_rng(0)
    for n, r in ((7, 30), (40, 9)):
        a, b = torch.as_tensor(rng.normal(size=(n, 12))), torch.as_tensor(rng.normal(2, 3, size=(r, 12)))
        expected = frechet_distance(moments(a), moments(b))
        assert float(frechet_of_rows(a, b)) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_of_rows(a * torch.nan, b).isnan()


def test_large_images_are_judged_without_a_covariance(tmp_path, monkeypatch):
    from generative import judge_images

    monkeypatch.setattr(judge_images, "moments", lambda rows: pytest.fail("12,288 features squared"))
    name = faces(tmp_path / "faces", 30, size=(64, 192))
    scores = Judge(data.card(name)).scores(torch.rand(100, 64, 192))
    assert scores["frechet_pixels"].isfinite()
