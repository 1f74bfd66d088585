"""Heads and distributions: equal to torch.distributions, finite at the extremes, sampled as they say."""

import math

import pytest
import torch
from torch import distributions as reference
from torch.func import grad

from nets.distributions import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
)
from nets.registry import build

pytestmark = pytest.mark.filterwarnings("error")
ROWS = 6
COUNTS = (2, 3)


def raws(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(ROWS, width, generator=generator, dtype=torch.float64)


def normal(raw):
    mean, log_std = raw.chunk(2, -1)
    return reference.Independent(reference.Normal(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()), 1)


def squashed(raw):
    return reference.TransformedDistribution(normal(raw), [reference.TanhTransform(cache_size=1)])


def several(raw):
    return [reference.Categorical(logits=part) for part in raw.split(COUNTS, -1)]


def coins(raw):
    return reference.Independent(reference.Bernoulli(logits=raw), 1)


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=atol)


def test_categorical_equals_torch():
    raw, other, action = raws(4), raws(4, 1), torch.arange(ROWS) % 4
    mine, theirs = Categorical(raw), reference.Categorical(logits=raw)
    close(mine.log_prob(action), theirs.log_prob(action))
    close(mine.entropy(), theirs.entropy())
    close(mine.probs, theirs.probs)
    close(mine.kl(Categorical(other)), reference.kl_divergence(theirs, reference.Categorical(logits=other)))
    assert torch.equal(mine.mode(), raw.argmax(-1))


def test_several_choices_are_the_sum_of_each():
    raw, other = raws(5), raws(5, 1)
    action = torch.stack([torch.arange(ROWS) % n for n in COUNTS], -1)
    mine = MultiCategorical(raw, COUNTS)
    close(mine.log_prob(action), sum(d.log_prob(action[:, i]) for i, d in enumerate(several(raw))))
    close(mine.entropy(), sum(d.entropy() for d in several(raw)))
    pairs = zip(several(raw), several(other), strict=True)
    close(mine.kl(MultiCategorical(other, COUNTS)), sum(reference.kl_divergence(a, b) for a, b in pairs))
    assert torch.equal(mine.mode()[:, 1], raw[:, 2:].argmax(-1))


def test_bernoulli_equals_torch():
    raw, other = raws(3), raws(3, 1)
    value = (raws(3, 2) > 0).double()
    close(Bernoulli(raw).log_prob(value), coins(raw).log_prob(value))
    close(Bernoulli(raw).log_prob(value.bool()), coins(raw).log_prob(value))
    close(Bernoulli(raw).entropy(), coins(raw).entropy())
    close(Bernoulli(raw).kl(Bernoulli(other)), reference.kl_divergence(coins(raw), coins(other)))
    assert torch.equal(Bernoulli(raw).mode(), (raw > 0).double())


def test_gaussian_equals_torch():
    raw, other, value = raws(6), raws(6, 1), raws(3, 2)
    mine = Gaussian(raw)
    close(mine.log_prob(value), normal(raw).log_prob(value))
    close(mine.entropy(), normal(raw).entropy())
    close(mine.kl(Gaussian(other)), reference.kl_divergence(normal(raw), normal(other)))
    close(mine.sample(value), normal(raw).base_dist.loc + normal(raw).base_dist.scale * value)
    assert torch.equal(mine.mode(), raw[:, :3])


def test_squashed_gaussian_equals_torch():
    raw, noise = raws(6) / 4, raws(3, 2) / 4
    mine = SquashedGaussian(raw)
    action, log_prob = mine.sample_with_log_prob(noise)
    close(log_prob, squashed(raw).log_prob(action))
    close(log_prob, mine.log_prob(action))
    assert torch.equal(action, mine.sample(noise))
    assert torch.equal(mine.mode(), torch.tanh(raw[:, :3]))
    close(mine.kl(SquashedGaussian(-raw)), reference.kl_divergence(normal(raw), normal(-raw)))


def test_squashed_log_prob_of_a_sample_stays_exact_near_one():
    raw = torch.tensor([[12.0, 0.0]])  # tanh(12) is 1 in float32
    noise = torch.tensor([[0.5]])
    wide = SquashedGaussian(raw.double()).sample_with_log_prob(noise.double())[1]
    narrow = SquashedGaussian(raw).sample_with_log_prob(noise)[1]
    assert SquashedGaussian(raw).sample(noise) == 1.0
    close(narrow.double(), wide, atol=1e-5)


def test_categorical_samples_follow_the_probabilities():
    raw, u = torch.tensor([0.0, 1.0, -1.0]), (torch.arange(10_000) + 0.5) / 10_000
    drawn = Categorical(raw.expand(10_000, 3)).sample(u)
    counted = torch.bincount(drawn, minlength=3) / 10_000
    close(counted, torch.softmax(raw, -1), atol=2e-4)
    assert torch.equal(drawn, drawn.sort().values)  # the inverse of a distribution function rises


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-24])
def test_forbidden_actions_are_never_drawn_and_get_no_gradient(u):
    raw = torch.tensor([9.0, 0.3, 9.0, -0.4, 9.0])
    allowed = torch.tensor([False, True, False, True, False])
    masked = Categorical(raw, allowed)
    assert int(masked.sample(torch.tensor(u))) == (1 if u < 0.6 else 3)
    assert int(masked.mode()) == 1
    close(masked.entropy(), reference.Categorical(logits=raw[allowed]).entropy())
    close(masked.kl(Categorical(raw - raw * allowed, allowed)), math.log(2) - masked.entropy(), atol=1e-6)
    gradient = grad(lambda r: Categorical(r, allowed).entropy() + Categorical(r, allowed).log_prob(torch.tensor(1)))(
        raw
    )
    assert torch.equal(gradient == 0, ~allowed)


def test_no_action_allowed_gives_equal_chances():
    nothing = Categorical(torch.tensor([3.0, -1e4, 1e4, 0.0]), torch.zeros(4, dtype=torch.bool))
    close(nothing.probs, torch.full((4,), 0.25))
    assert Categorical(torch.zeros(4, requires_grad=True), torch.zeros(4, dtype=torch.bool)).entropy().isfinite()


def test_masks_of_several_choices_apply_to_each():
    allowed = torch.tensor([True, False, False, False, True])
    drawn = MultiCategorical(torch.zeros(ROWS, 5), COUNTS, allowed).sample(torch.rand(ROWS, 2))
    assert torch.equal(drawn, torch.tensor([0, 2]).expand(ROWS, 2))


def test_coins_and_normal_numbers_follow_their_parameters():
    u = (torch.arange(1000) + 0.5).reshape(-1, 1) / 1000
    close(Bernoulli(torch.tensor([0.7])).sample(u).mean(), torch.sigmoid(torch.tensor(0.7)), atol=1e-3)
    drawn = Gaussian(torch.tensor([2.0, math.log(3.0)])).sample(torch.randn(20_000, 1, generator=torch.manual_seed(0)))
    close(drawn.mean(), torch.tensor(2.0), atol=0.1)
    close(drawn.std(), torch.tensor(3.0), atol=0.1)


EXTREME = torch.tensor([[1e4, -1e4, 1e4, -1e4], [-1e4, 1e4, -1e4, 1e4], [1e4, 1e4, 1e4, 1e4], [0.0, 0.0, 0.0, 0.0]])
ACTION = torch.tensor([0, 1, 0, 1])
MASK = torch.tensor([True, True, False, True])
REAL = torch.tensor([[-1.0, 1.0], [0.3, -0.3], [1.0, 1.0], [0.0, -1.0]])
EVERYTHING = {
    "categorical": lambda r: (Categorical(r), ACTION, Categorical(-r)),
    "masked": lambda r: (Categorical(r, MASK), ACTION, Categorical(-r, MASK)),
    "multi": lambda r: (MultiCategorical(r, (2, 2)), ACTION.unsqueeze(-1).expand(4, 2), MultiCategorical(-r, (2, 2))),
    "bernoulli": lambda r: (Bernoulli(r), (EXTREME < 0).float(), Bernoulli(-r)),
    "gaussian": lambda r: (Gaussian(r), REAL * 1e4, Gaussian(-r)),
    "squashed": lambda r: (SquashedGaussian(r), REAL, SquashedGaussian(-r)),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_extremes_give_finite_values_and_gradients(name):
    def total(raw):
        mine, value, other = EVERYTHING[name](raw)
        parts = [mine.log_prob(value), mine.kl(other), mine.mode().to(raw.dtype).sum(-1)]
        if name == "squashed":
            parts += [part.sum() for part in mine.sample_with_log_prob(REAL)]
        else:
            parts.append(mine.entropy())
        if name == "gaussian":
            parts.append(mine.sample(REAL))
        return sum(part.sum() for part in parts), torch.cat([part.reshape(-1) for part in parts])

    gradient, values = torch.vmap(grad(total, has_aux=True))(EXTREME.expand(3, 4, 4))
    assert values.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", EVERYTHING)
def test_samples_of_lanes_equal_those_of_each(name):
    raw, noise = torch.randn(3, 4, 4, generator=torch.manual_seed(1)), torch.rand(3, 4, 4)
    shape = {"categorical": (4,), "masked": (4,), "bernoulli": (4, 4)}.get(name, (4, 2))

    def drawn(raw, noise):
        return EVERYTHING[name](raw)[0].sample(noise.flatten()[: math.prod(shape)].reshape(shape))

    together = torch.vmap(drawn)(raw, noise)
    assert together.shape == (3, *shape)
    for lane in range(3):
        close(together[lane].double(), drawn(raw[lane], noise[lane]).double(), atol=1e-6)


def test_16_bits_are_widened():
    raw = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.bfloat16)
    assert Categorical(raw).log_probs.dtype == torch.float32
    close(Categorical(raw).probs.sum(-1), torch.ones(1), atol=1e-6)


def head(kind, **fields):
    torch.manual_seed(0)
    return build({"kind": kind, "in_features": 4, **fields})


@pytest.mark.parametrize(
    ("kind", "out_features", "width"),
    [
        ("categorical", 3, 3),
        ("multi-categorical", (2, 3), 5),
        ("bernoulli", 3, 3),
        ("gaussian", 2, 4),
        ("squashed-gaussian", 2, 4),
    ],
)
def test_policies_start_near_indifference(kind, out_features, width):
    policy = head(kind, out_features=out_features)
    raw = policy(torch.randn(2, 5, 4))  # any number of leading axes
    assert raw.shape == (2, 5, width)
    assert raw.abs().max() < 0.05
    mode = policy.distribution(raw).mode()
    assert policy.distribution(raw).log_prob(mode).shape == (2, 5)


@pytest.mark.parametrize("state_dependent", [False, True])
def test_a_gaussian_head_starts_with_the_spread_asked_for(state_dependent):
    policy = head("gaussian", out_features=2, state_dependent=state_dependent, log_std=-0.5)
    log_std = policy.distribution(policy(torch.randn(3, 4))).log_std
    close(log_std, torch.full((3, 2), -0.5), atol=0.05)
    assert (log_std.std(0).max() > 0) == state_dependent


def test_dueling_values_have_the_state_value_as_mean():
    duel = head("dueling", out_features=3, hidden_features=5)
    x = torch.randn(2, 4)
    close(duel(x).mean(-1, keepdim=True), duel.value(x), atol=1e-6)
    close(duel(x)[:, 0] - duel(x)[:, 1], duel.advantage(x)[:, 0] - duel.advantage(x)[:, 1], atol=1e-6)


def test_classification_loss_equals_torch_for_labels_and_probabilities():
    net, raw = head("classification", out_features=4), raws(4)
    labels = torch.arange(ROWS) % 4
    close(net.loss(raw, labels), torch.nn.functional.cross_entropy(raw, labels))
    smooth = torch.softmax(raws(4, 1), -1)
    close(net.loss(raw, smooth), torch.nn.functional.cross_entropy(raw, smooth))


def test_regression_loss_is_squared_error_or_likelihood():
    plain, spread = head("regression", out_features=2), head("regression", out_features=2, variance=True)
    x, target = torch.randn(ROWS, 4), torch.randn(ROWS, 2)
    close(plain.loss(plain(x), target), torch.nn.functional.mse_loss(plain(x), target))
    assert torch.equal(spread.distribution(spread(x)).log_std, torch.zeros(ROWS, 2))  # at the start
    raw = raws(4).float()
    nll = torch.nn.functional.gaussian_nll_loss(
        raw[:, :2], target, (2 * raw[:, 2:].clamp(max=LOG_STD_MAX)).exp(), full=True, reduction="none"
    )
    close(spread.loss(raw, target), nll.sum(-1).mean(), atol=1e-5)
    close(plain.distribution(plain(x)).mode(), plain(x))


def test_token_loss_leaves_out_padding():
    net, raw = head("token", out_features=5), raws(5)
    target, counts = torch.arange(ROWS) % 5, torch.tensor([True, True, False, True, False, True])
    expected = torch.nn.functional.cross_entropy(raw, torch.where(counts, target, -100))
    close(net.loss(raw, target, counts), expected)
    close(net.loss(raw, target), torch.nn.functional.cross_entropy(raw, target))
    assert net.loss(raw, target, counts & False) == 0
    capped = head("token", out_features=5, soft_cap=3.0, std=10.0)
    assert capped(torch.randn(3, 4)).abs().max() <= 3
