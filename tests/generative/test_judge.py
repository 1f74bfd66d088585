"""Judges: what they score, on real rows, damaged ones and too few; what they show."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generative.judge import Judge, judge_score
from generative.metrics import reverse_kl
from harness import data


class Halves(nn.Module):
    """An extractor of somebody's own: the means of the left and the right half."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([half.flatten(1).mean(1) for half in images.chunk(2, dim=-1)], dim=1)


def plain(scores: dict[str, Tensor]) -> dict[str, float]:
    assert all(value.dtype == torch.float64 and value.dim() == 0 for value in scores.values())
    return {name: float(value) for name, value in scores.items()}


def digits(split: str = "validation") -> tuple[Tensor, Tensor]:
    rows = data.load("digits")[split]
    return torch.tensor(rows.x), torch.tensor(rows.y)


@pytest.mark.parametrize("name", ["ring-8", "grid-25"])
def test_points_with_modes(name):
    scores = plain(Judge(data.card(name)).ceiling(2000))
    assert judge_score(data.card(name)).name == "overlap"
    assert scores["modes"] == data.card(name).classes
    assert scores["overlap"] > 0.94
    assert scores["frechet"] < 0.05


@pytest.mark.parametrize("name", ["spirals", "checkerboard"])
def test_points_without_modes(name):
    judge = Judge(data.card(name))
    headline = judge_score(data.card(name))
    assert (headline.name, headline.direction) == ("two_sample", "min")
    best, (rows, _) = plain(judge.ceiling(1000)), judge._of.real(1000)
    worse = plain(judge.scores(rows + torch.as_tensor(np.random.default_rng(0).normal(size=rows.shape)).float()))
    assert best["two_sample"] == pytest.approx(0.5, abs=0.05)
    assert worse["two_sample"] > 0.6
    assert worse["precision"] < 0.9 < min(best["precision"], best["coverage"])


def test_real_images_are_nearly_perfect_and_damage_is_seen():
    judge, (x, y) = Judge(data.card("digits")), digits()
    best = plain(judge.scores(x, y))
    assert judge_score(judge.card).name == "frechet_digits_cnn"
    assert best["label_accuracy"] > 0.98
    assert best["modes"] == 10
    assert best["memorised"] == 0
    assert best["nearest_ratio"] == pytest.approx(1, abs=0.05)
    assert abs(best["kernel_digits_cnn"]) < 0.1
    noise = torch.as_tensor(np.random.default_rng(0).normal(size=x.shape)).float()
    noisy = plain(judge.scores((x + 0.3 * noise).clamp(0, 1)))
    assert noisy["frechet_digits_cnn"] > 5 * best["frechet_digits_cnn"]
    assert noisy["precision"] < best["precision"] - 0.3
    collapsed = plain(judge.scores(x[y < 2]))
    assert (collapsed["modes"], collapsed["recall"] < 0.4) == (2, True)
    copies = plain(judge.scores((digits("train")[0][:300] + 0.01 * noise[:300]).clamp(0, 1)))
    assert copies["memorised"] > 0.95
    assert copies["nearest_ratio"] < 0.1


def test_stacked_images_have_a_thousand_modes():
    judge = Judge(data.card("stacked-digits"))
    drawn = data.draw_rows("stacked-digits", np.random.default_rng(0), (3000,))
    rows, modes = torch.tensor(drawn.x), np.bincount(drawn.y, minlength=1000)
    best, alike = plain(judge.scores(rows)), plain(judge.scores(rows[:, :1].expand(-1, 3, -1, -1)))
    assert judge_score(judge.card).worst == pytest.approx(math.log(1000))
    expected = float(reverse_kl(torch.tensor(modes), judge._of.probabilities))
    assert best["modes"] == pytest.approx((modes > 0).sum(), abs=2)
    assert best["reverse_kl"] == pytest.approx(expected, abs=0.005)
    assert alike["modes"] <= 12
    assert alike["reverse_kl"] == pytest.approx(math.log(100), abs=0.1)
    with pytest.raises(ValueError, match="take the extractor 'auto'"):
        Judge(judge.card, Halves())


def test_any_module_extracts():
    scores = plain(Judge(data.card("digits"), Halves()).scores(digits()[0]))
    assert scores["frechet_halves"] < 0.01
    assert "modes" not in scores


def test_pixels_where_no_extractor_was_trained(monkeypatch):
    monkeypatch.setattr("generative.extractors.extractor_of", lambda name: None)
    assert judge_score(data.card("digits")).name == "frechet_pixels"
    assert "frechet_pixels" in Judge(data.card("digits")).scores(digits()[0][:50])


@pytest.mark.parametrize("name", ["ring-8", "spirals", "digits", "stacked-digits"])
def test_rows_that_cannot_be_judged(name):
    judge = Judge(data.card(name))
    with pytest.raises(ValueError, match=r"at least [26] of them, there are 1: raise the field `samples`"):
        judge.ceiling(1)
    with pytest.raises(ValueError, match="has rows of shape"):
        judge.scores(torch.zeros(10, 5))
    headline = judge_score(judge.card)
    broken = plain(judge.scores(torch.full((40, *judge.card.shape), torch.nan)))[headline.name]
    assert math.isnan(broken) or broken == pytest.approx(headline.worst, rel=0.05)


def test_data_that_no_judge_knows():
    with pytest.raises(ValueError, match="field data: plays is of kind 'tokens', which no judge can look at"):
        Judge(SimpleNamespace(name="plays", kind="tokens"))


@pytest.mark.parametrize("name", ["ring-8", "digits", "stacked-digits"])
def test_media_are_pictures_with_captions(name):
    judge = Judge(data.card(name))
    rows, _ = judge._of.real(80)
    media = judge.media(rows, torch.arange(80) % 10 if name == "digits" else None)
    assert set(media) == {"ring-8": {"samples", "density"}, "digits": {"samples", "neighbours"}}.get(name, {"samples"})
    for item in media.values():
        assert item.caption
        assert item.kind == "points" or item.data.dtype == np.uint8
    assert judge.frame(rows).dtype == np.uint8


def test_real_images_beside_conditional_samples_have_their_labels():
    from generative.judge_images import _by_label

    y = np.array([0, 1, 0, 1, 2])
    assert _by_label(y, np.array([0, 1, 2, 0, 1, 2])).tolist() == [0, 1, 4, 2, 3, 4]
