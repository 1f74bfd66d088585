"""Rows of a finished trial's network are those that its learner makes in training."""

from __future__ import annotations

import pytest
import torch

from harness.learner import Lanes, learner_class
from nets.lanes import Execution

SMALL = {"images": 100, "batch": 10, "samples": 100}
CASES = {
    "gan": {"data": "digits", "generator": {"kind": "dcgan-generator", "hidden_features": 4}},
    "gan points": {},
    "vae": {"data": "digits", "decoder": {"hidden_features": 8}},
    "diffusion": {"data": "digits", "net": {"kind": "mlp-denoiser", "hidden_features": 8}, "steps": 3},
    "diffusion points": {"steps": 3, "net": {"hidden_features": 8}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_draws_what_its_learner_samples(case, monkeypatch):
    kind = learner_class(case.split()[0])
    config = kind.Config(**SMALL, **CASES[case], conditional="points" not in case)
    learner, lanes = kind(), Lanes((config,), (3,), Execution("eager", dtype=torch.float64))
    state = learner.start(lanes)
    learner.advance(state)
    labels = learner.labels(7)
    network = learner.network(state, 0).double().eval()
    drawn = learner.draw(network, labels)
    assert torch.equal(drawn, learner.draw(network, labels))
    sampled = learner.sample(state, 7)[0]
    assert drawn.shape == sampled.shape
    assert not torch.allclose(drawn, sampled)  # noise of its own

    noise = lanes.noise
    monkeypatch.setattr(
        lanes.__class__, "noise", lambda self, purpose, *rest: noise(f"{case.split()[0]}/evaluate", *rest)
    )
    torch.testing.assert_close(learner.draw(network, labels), sampled, rtol=1e-5, atol=1e-6)  # weights were float32
