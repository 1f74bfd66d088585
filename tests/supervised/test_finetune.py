"""Fine-tuning: what each way trains, at which rate, exact resume; on tiny random models in Hugging Face's layout."""

import json
import math
import re

import pytest
import torch
from torch import nn

from harness.checkpoint import pack, unpack
from harness.gang import Gang
from harness.learner import Lanes
from nets import lora
from nets.transfer import layers

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`: make models")

from supervised import finetune_config, finetune_models, finetune_nets  # noqa: E402
from supervised.finetune import Finetune, rated  # noqa: E402
from supervised.finetune_config import FinetuneConfig  # noqa: E402

SEED = 3
WORDS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FEATURES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
WAYS = ("full", "head", "layerwise", "gradual", "lora", "scratch", "random")


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as the worker of one CPU has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a BERT, a Llama and a ViT with random weights, the first two with a tokenizer of single letters."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    size = len(SPECIAL + WORDS)
    bert = transformers.BertConfig(vocab_size=size, max_position_embeddings=32, **FEATURES)
    transformers.BertModel(bert).save_pretrained(root / "bert")
    llama = transformers.LlamaConfig(
        vocab_size=size, num_key_value_heads=1, initializer_range=0.5, tie_word_embeddings=True, **FEATURES
    )
    transformers.LlamaForCausalLM(llama).save_pretrained(root / "llama")
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **FEATURES)).save_pretrained(root / "vit")
    vocabulary = {token: i for i, token in enumerate(SPECIAL + WORDS)}
    letters = transformers.BertTokenizer(vocab=vocabulary)
    for name in ("bert", "llama"):
        letters.save_pretrained(root / name)
    return root


@pytest.fixture
def reviews(tmp_path):
    """A set of texts with two classes that a bag of letters tells apart."""
    from harness import data

    pairs = [("a b a" if i % 2 else "x y x z", "good" if i % 2 else "bad") for i in range(24)]
    return data, {"train": pairs, "validation": pairs[:6], "test": pairs[:8]}


@pytest.fixture
def started(models, reviews, monkeypatch):
    """A function that starts a learner on the tiny texts."""
    data, pairs = reviews
    monkeypatch.setattr(data, "pairs", lambda name: pairs)

    def start(way, updates=6, **fields):
        config = FinetuneConfig(
            model=str(models / "bert"), way=way, updates=updates, batch=5, length=8, unfreeze_every=2, **fields
        )
        learner = Finetune()
        return learner, learner.start(Lanes((config,), (SEED,)))

    return start


def weights(learner):
    """All parameters and buffers, copied."""
    return {name: t.detach().clone() for name, t in learner.net.state_dict().items()}


def moved(before, after):
    """Names of the tensors that are others."""
    return {name for name, t in before.items() if not torch.equal(t, after[name])}


def same(found, expected):
    """Whether two trees pack into the same bits."""
    (a, x), (b, y) = pack(found), pack(expected)
    return x == y and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_moves_what_it_trains_and_nothing_else(started, way):
    learner, state = started(way)
    before = weights(learner)
    for _ in range(6):
        learner.advance(state)
    found, trained = moved(before, weights(learner)), set(learner._trained())
    assert found == trained  # bit for bit: no decay, no moments
    everything = set(before)
    head = {"head.weight", "head.bias"}
    adapters = {name for name in everything if "lora_" in name}
    top = {n for names in layers(learner.net)[-3:] for n in names}
    expected = {"head": head, "random": head, "lora": adapters | head, "gradual": top}
    assert found == expected.get(way, everything)
    assert len(adapters) == (24 if way == "lora" else 0)


@pytest.mark.parametrize("way", WAYS)
def test_the_optimiser_holds_what_is_trained_and_nothing_else(started, way):
    learner, state = started(way)
    for _ in range(6):
        learner.advance(state)
        held = [id(p) for group in learner.optimiser.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in learner._trained().values())


def test_rates_of_every_layer_are_exact(started):
    learner, state = started("layerwise", lr=0.1, head_lr=0.3, rate_decay=0.5, warm_up=0.0)
    rates = {}
    for group, names in zip(learner.optimiser.param_groups, reversed(layers(learner.net)), strict=True):
        rates |= dict.fromkeys(names, group["rate"])
    assert rates["head.bias"] == 0.3
    assert rates["trunk.encoder.layer.1.output.dense.weight"] == 0.1
    assert rates["trunk.encoder.layer.0.output.dense.weight"] == 0.05
    assert rates["trunk.embeddings.LayerNorm.weight"] == 0.025
    assert rates["trunk.embeddings.word_embeddings.weight"] == 0.1 * 0.5**5
    learner.advance(state)  # in the middle of the first of six updates, linear from 1 to 0
    for group in learner.optimiser.param_groups:
        assert group["lr"] == pytest.approx(group["rate"] * (1 - 0.5 / 6), rel=1e-12)


def test_gradual_opens_one_layer_more_every_few_updates(started):
    learner, state = started("gradual")
    counts = []
    for _ in range(6):
        learner.advance(state)
        counts.append(len(learner.optimiser.param_groups))
    assert counts == [1, 1, 2, 2, 3, 3]


def test_lora_starts_as_the_base_and_merges_into_it(started, models):
    learner, state = started("lora")
    x = learner.rows["test"].x
    source = finetune_models.find(str(models / "bert"))
    plain, _ = started("full")
    torch.testing.assert_close(learner._run(learner.net, x), plain._run(plain.net, x), rtol=0, atol=0)
    for _ in range(6):
        learner.advance(state)
    merged = learner.network(state, 0)
    assert not lora.adapted(merged)
    assert set(merged.state_dict()) == set(plain.net.state_dict())
    torch.testing.assert_close(learner._run(merged.eval(), x), learner._run(learner.net, x), rtol=1e-5, atol=1e-6)
    adapters = learner.companions(state, 0)["adapters"].state_dict()
    assert {name.replace("/", ".") for name in adapters} == set(learner._trained())
    assert source.kind == "folder"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [3, 4])  # within a stage of gradual unfreezing, and where one begins
def test_a_resumed_run_equals_an_uninterrupted_one(started, way, at):
    learner, state = started(way)
    for _ in range(at):
        learner.advance(state)
    tensors, skeleton = pack(learner.save(state))
    saved = unpack(json.loads(json.dumps(skeleton)), {name: t.clone() for name, t in tensors.items()})
    other, _ = started(way)
    torch.rand(7)  # nobody else's random numbers matter
    again = other.load(saved)
    for _ in range(2):
        a, b = learner.advance(state), other.advance(again)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert same(other.save(again), learner.save(state))
    assert same(dict(other.evaluate(again)), dict(learner.evaluate(state)))


def test_what_is_random_follows_the_seed(started):
    full, head, scratch, again = (weights(started(way)[0]) for way in ("full", "head", "scratch", "scratch"))
    assert moved(full, head) == set()
    assert moved(scratch, again) == set()
    assert "trunk.encoder.layer.0.output.dense.weight" in moved(full, scratch)
    assert "head.weight" not in moved(full, scratch)  # the ways begin with one head


def test_it_learns_and_reports(started):
    learner, state = started("full", updates=60, lr=1e-2)
    before = learner.evaluate(state)
    worst = learner.media(state, 0)["mistakes"].data[0]
    assert re.fullmatch("(good for bad: x y x z)|(bad for good: a b a)", worst)
    for _ in range(60):
        learner.advance(state)
    after = learner.evaluate(state)
    assert before["test_loss"] > 0.4
    assert after["test_loss"] < 0.1
    assert after["test_accuracy"] == after["test_f1"] == 1
    media = learner.media(state, 0)["confusion"]
    assert len(learner.media(state, 0)["mistakes"].data) == 0
    assert media.labels == ("bad", "good")
    assert media.data.tolist() == [[4, 0], [0, 4]]


def test_padding_changes_no_text(started):
    learner, _ = started("full")
    x = torch.tensor([[2, 5, 6, 3, -1, -1]])
    longer = torch.cat([x, torch.tensor([[2, 5, 6, 7, 8, 3]])])
    alone, beside = learner._run(learner.net, x[:, :4]), learner._run(learner.net, longer)[:1]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-6)


@pytest.fixture
def text(models, monkeypatch):
    """A function that starts a language model on a tiny text."""
    from harness import data

    stream = torch.arange(400).numpy() % 7
    monkeypatch.setattr(data, "tokens", lambda name: {s: stream for s in ("train", "validation", "test")})
    monkeypatch.setattr(data, "spelled", lambda name, ids: " ".join("abcdefg"[i] for i in ids))

    def start(way, **fields):
        config = FinetuneConfig(model=str(models / "llama"), data="kjv", way=way, batch=4, length=6, **fields)
        learner = Finetune()
        return learner, learner.start(Lanes((config,), (SEED,)))

    return start


@pytest.mark.parametrize("way", ["full", "lora"])
def test_a_language_model_learns_a_text(text, way):
    learner, state = text(way, updates=24, lr=5e-2, held_rows=5)
    untouched = learner.evaluate(state)
    assert float(untouched["test_loss"]) == float(untouched["untouched_test_loss"])
    for _ in range(24):
        learner.advance(state)
    scores = {name: float(value) for name, value in learner.evaluate(state).items()}
    assert scores["test_loss"] < 0.8 * scores["untouched_test_loss"]
    assert scores["test_perplexity"] == pytest.approx(math.exp(scores["test_loss"]))
    characters = len(learner.tokenizer.decode(learner.rows["test"].y.flatten()))
    expected = scores["test_loss"] / math.log(2) * 30 / characters
    assert scores["test_bits_per_character"] == pytest.approx(expected)
    assert "[...]" in learner.media(state, 0)["continued"].data[0]


def test_a_language_model_s_rows_are_the_text_and_its_successors(text):
    learner, _ = text("full")
    rows = learner.rows["train"]
    assert torch.equal(rows.x.flatten()[1:], rows.y.flatten()[:-1])
    assert rows.x.shape == (66, 6)  # 400 letters give 66 rows of 6 and a successor
    letters = learner.tokenizer.decode(rows.x[0])
    assert letters == "a b c d e f"


def test_images_are_enlarged_and_a_trunk_of_any_kind_is_read(models):
    source = finetune_models.find(str(models / "vit"))
    net = finetune_nets.build(source, "images", 10, 32, True, SEED).eval()
    grey = torch.rand(3, 28, 28)
    assert net(grey).shape == (3, 10)
    torch.testing.assert_close(net(grey), net(grey.unsqueeze(1).repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)


def test_frozen_batch_norms_keep_their_moments():
    from supervised.finetune import _train

    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    net[0].requires_grad_(False)
    _train(net)
    net(torch.rand(8, 3) + 5)
    assert net[0].running_mean.tolist() == [0, 0, 0]
    assert (net[1].running_mean != 0).all()


def test_a_random_trunk_is_judged_by_moments_of_its_own_rows():
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=0.01), nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.01))
    batches = [torch.randn(64, 3) * 4 + 7 for _ in range(5)]
    weights = [p.clone() for p in net.parameters()]
    finetune_nets.calibrate(net, net, batches)
    rows = torch.cat(batches)
    torch.testing.assert_close(net[0].running_mean, rows.mean(0))
    torch.testing.assert_close(net[0].running_var, rows.var(0), rtol=0.05, atol=0)
    out = net(rows)
    torch.testing.assert_close(out.mean(0), torch.zeros(2), rtol=0, atol=0.05)
    torch.testing.assert_close(out.std(0), torch.ones(2), rtol=0.05, atol=0)
    assert not net.training
    assert net[0].momentum == 0.01
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    finetune_nets.calibrate(nn.Linear(3, 2), lambda batch: pytest.fail("nothing to calibrate"), batches)


def test_nothing_is_printed_and_nothing_is_fetched(started, capfd, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was tried"))
    for way in ("full", "scratch"):
        started(way)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "no-such-model"}, "make models"),
        ({"model": "x" * 5000}, "cannot be read: File name too long"),
        ({"data": "cmudict"}, "'cmudict' is neither"),
        ({"data": "no-such.jsonl"}, "there is no file or folder 'no-such.jsonl'"),
        ({"data": "kjv", "way": "head"}, "would train nothing"),
        ({"weights": "0" * 64}, "has sha256"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(models, fields, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**{"model": str(models / "bert"), **fields})


def test_what_reads_a_model_is_asked_for_by_name(models, monkeypatch):
    monkeypatch.setitem(finetune_config.READERS, "folder", ("transformers", "no_such_reader"))
    with pytest.raises(ValueError, match="no_such_reader must be installed; make models"):
        FinetuneConfig(model=str(models / "bert"))


def test_a_folder_without_weights_or_with_a_strange_pickle_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds no config"):
        finetune_models.find(str(tmp_path))


def test_the_weights_are_part_of_the_configuration_and_lr_follows_the_way(models):
    lora_, full = (FinetuneConfig(model=str(models / "bert"), way=way) for way in ("lora", "full"))
    assert lora_.weights == finetune_models.find(str(models / "bert")).sha256
    assert (lora_.lr, full.lr) == (5e-4, 2e-4)
    assert FinetuneConfig(**full.model_dump()) == full


def test_rated_leaves_frozen_layers_out(started):
    learner, _ = started("head")
    groups = rated(learner.net, learner.lanes.config)
    assert [len(group["params"]) for group in groups] == [2]


class Half(Gang):
    """One of two workers, where the other has found 0 everywhere."""

    def mean(self, tree):
        return torch.utils._pytree.tree_map(lambda t: t / 2 if t.is_floating_point() else t, tree)


def test_a_worker_of_several_learns_from_its_rows_and_from_the_mean_of_gradients(models, reviews, monkeypatch):
    data, pairs = reviews
    monkeypatch.setattr(data, "pairs", lambda name: pairs)
    config = FinetuneConfig(model=str(models / "bert"), way="full", updates=6, batch=4, length=8, clip=1e9)
    steps = {}
    for gang in (Gang(), Half(0, 2), Half(1, 2)):
        learner = Finetune()
        state = learner.start(Lanes((config,), (SEED,), gang=gang))
        learner.net.eval()
        monkeypatch.setattr("supervised.finetune._train", lambda net: net.eval())  # no dropout: rows alone decide
        steps[gang.rank, gang.size] = {
            "metrics": learner.advance(state),
            "grads": {n: p.grad.clone() for n, p in learner.net.named_parameters() if p.grad is not None},
        }
    whole, first, second = steps.values()
    assert whole["grads"]
    for name, grad in whole["grads"].items():
        torch.testing.assert_close(first["grads"][name] + second["grads"][name], grad, rtol=1e-4, atol=1e-6)
    for name in ("loss", "accuracy"):
        torch.testing.assert_close(first["metrics"][name] + second["metrics"][name], whole["metrics"][name])
