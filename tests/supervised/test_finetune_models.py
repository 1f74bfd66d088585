"""The models that packages ship, read as they are; skipped where `make models` has not installed them."""

import pytest
import torch

from harness.learner import Lanes
from supervised.finetune import Finetune
from supervised.finetune_config import FinetuneConfig
from supervised.finetune_models import find
from supervised.finetune_nets import build, tokenizer


def source(model):
    """A model, or the test is skipped with the reason."""
    package = "efficientnet_lite_pytorch" if model.startswith("efficientnet") else "transformers"
    pytest.importorskip(package, reason=f"{package} is not installed: make models")
    try:
        return find(model)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_minilm_finds_the_nearest_sentence():
    found = source("minilm")
    net = build(found, "texts", 2, 0, True, 0).eval()
    words = tokenizer(found)
    texts = ["It made me sick.", "I felt ill after taking it.", "The weather is lovely today.", "What a sunny day!"]
    rows = [torch.tensor([words(text)["input_ids"]]) for text in texts]
    with torch.no_grad():
        features = torch.nn.functional.normalize(torch.cat([net.features(row) for row in rows]))
    near = (features @ features.T).fill_diagonal_(-1).argmax(-1)
    assert near.tolist() == [1, 0, 3, 2]


@pytest.mark.slow
def test_efficientnet_knows_imagenet_s_weights_only_where_it_is_asked_to():
    found = source("efficientnet-lite0")
    read, drawn = (build(found, "images", 10, 64, pretrained, 0) for pretrained in (True, False))
    assert torch.equal(read.head.weight, drawn.head.weight)
    assert not torch.equal(read.trunk._conv_stem.weight, drawn.trunk._conv_stem.weight)
    assert read.trunk._bn0.running_var.min() > 0
    assert (read.trunk._bn0.running_mean != 0).any()
    assert (drawn.trunk._bn0.running_mean == 0).all()


@pytest.mark.slow
def test_smollm2_answers_and_learns_a_text():
    found = source("smollm2")
    words = tokenizer(found)
    net = build(found, "language", 0, 0, True, 0).eval()
    with torch.no_grad():
        guess = net(torch.tensor([words("The capital of France is")["input_ids"]]))[0, -1].argmax()
    assert words.decode(guess) == " Paris"
    config = FinetuneConfig(
        model="smollm2", data="kjv", way="lora", updates=8, batch=1, length=48, held_rows=3, lr=1e-3
    )
    learner = Finetune()
    state = learner.start(Lanes((config,), (0,)))
    for _ in range(8):
        learner.advance(state)
    scores = learner.evaluate(state)
    assert scores["test_loss"] < scores["untouched_test_loss"]
