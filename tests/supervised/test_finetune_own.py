"""Fine-tuning on texts of one's own, and what is missing or damaged: an error of the plan, not of the training."""

import json
import shutil

import pytest
import torch

from harness.experiment import load_experiment
from harness.gang import Gang
from harness.learner import Lanes
from harness.spec_errors import SpecError
from nets.lanes import Execution

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`: make models")

from supervised import finetune_models  # noqa: E402
from supervised.controls import text_controls  # noqa: E402
from supervised.finetune import Finetune  # noqa: E402
from supervised.finetune_config import FinetuneConfig  # noqa: E402
from supervised.reader import Reader, ReaderConfig  # noqa: E402
from tests.supervised.test_finetune import SEED, models, one_thread  # noqa: E402

__all__ = ["models", "one_thread"]  # fixtures


def labelled(path):
    """A file of texts with labels in words, two classes."""
    rows = [{"text": f"a b {i}" if i % 2 else f"x y {i}", "label": "so so" if i % 2 else "bad"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("learner", ["finetune", "retriever"])
def test_what_is_missing_is_one_error_of_the_plan(tmp_path, learner):
    file = tmp_path / "e.yaml"
    file.write_text(f"name: e\ntrials: [{{learner: {learner}, model: no-such-model, data: no-such.jsonl}}]\n")
    with pytest.raises(SpecError) as error:
        load_experiment(file)
    model, rows = str(error.value).splitlines()
    assert "trials.0.model: 'no-such-model' is no folder" in model
    assert "trials.0.data: there is no file or folder 'no-such.jsonl'" in rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[", r"config.json is not JSON"),
        ("config.json", b"{}", r"config.json does not say its `model_type`"),
        ("model.safetensors", b"x", r"model.safetensors is not a safetensors file, or a damaged one"),
        ("tokenizer.json", None, r"model: .*bert has no tokenizer"),
    ],
)
def test_a_damaged_model_is_an_error_of_the_plan(models, tmp_path, name, content, message):
    shutil.copytree(models / "bert", tmp_path / "bert")
    file = tmp_path / "bert" / name
    file.write_bytes(content) if content else file.unlink()
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(model=str(tmp_path / "bert"), data=labelled(tmp_path / "a.jsonl"))


def test_a_model_cut_off_is_named_and_one_of_texts_reads_no_images(models, tmp_path):
    shutil.copytree(models / "vit", tmp_path / "vit")
    file = tmp_path / "vit" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file, or a damaged one"):
        finetune_models.find(str(tmp_path / "vit"))
    with pytest.raises(ValueError, match="reads texts, not images"):
        FinetuneConfig(model=str(models / "bert"), data="digits")


def test_own_labelled_texts_are_learnt_and_their_classes_keep_their_names(models, tmp_path):
    name = labelled(tmp_path / "reviews.jsonl")
    config = FinetuneConfig(model=str(models / "bert"), data=name, updates=30, batch=5, length=8, lr=1e-2)
    learner = Finetune()
    state = learner.start(Lanes((config,), (SEED,)))
    for _ in range(30):
        learner.advance(state)
    assert learner.classes == ("bad", "so so")
    assert learner.media(state, 0)["confusion"].labels == ("bad", "so so")
    assert float(learner.evaluate(state)["test_accuracy"]) == 1
    assert learner.rows["train"].x.shape[0] == 18


def test_few_rows_of_one_class_are_no_obstacle_for_the_controls():
    found = text_controls([("a b", "good"), ("a c", "good")], [("a", "good"), ("x", "bad")])
    assert found["majority_accuracy"] == found["tfidf_accuracy"] == 0.5


class Half(Gang):
    """One of two workers; its mean is its own half of theirs."""

    def mean(self, tree):
        return torch.utils._pytree.tree_map(lambda t: t / 2 if t.is_floating_point() else t, tree)


@pytest.mark.parametrize("task", ["texts", "language"])
def test_two_workers_find_the_gradient_of_the_batch_together(models, tmp_path, monkeypatch, task):
    monkeypatch.setattr("supervised.finetune._train", lambda net: net.eval())  # no dropout: rows alone decide
    (tmp_path / "a.txt").write_text("abcdefg xyz " * 200)
    name, model = (labelled(tmp_path / "a.jsonl"), "bert") if task == "texts" else (str(tmp_path / "a.txt"), "llama")
    config = FinetuneConfig(model=str(models / model), data=name, batch=6, length=8, clip=1e9)
    found = []
    for gang in (Gang(), Half(0, 2), Half(1, 2)):
        learner = Finetune()
        learner.advance(learner.start(Lanes((config,), (SEED,), Execution(dtype=torch.float64), gang=gang)))
        found.append({n: p.grad for n, p in learner.net.named_parameters() if p.grad is not None})
    whole, first, second = found
    assert whole
    for name, grad in whole.items():
        assert (first[name] + second[name] - grad).norm() <= 1e-9 * grad.norm() + 1e-12


def test_a_reader_learns_the_same_file(tmp_path):
    net = {"kind": "transformer", "hidden_features": 16, "depth": 1}
    config = ReaderConfig(data=labelled(tmp_path / "a.jsonl"), net=net, epochs=12, batch=4, lr=1e-2)
    reader = Reader()
    state = reader.start(Lanes((config,), (SEED,)))
    while int(state["progress"][0]) < config.budget:
        reader.advance(state)
    assert config.stories.answers == ("bad", "so so")
    assert float(reader.evaluate(state)["test_exact"]) == 1
