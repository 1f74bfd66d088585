"""Seeds for others' code, and torch's."""

import numpy as np
import pytest

from harness.randomness import FOREIGN_SEEDS, derive_seed, foreign_seed, torch_seed


def test_seeds_for_others_stay_within_31_bits():
    found = [derive_seed(seed, f"env/{n}", 7) for seed in (0, 1, 2**63 - 1) for n in range(200)]
    assert min(found) >= 0
    assert max(found) + 2**16 <= 2**31  # stable-baselines3 adds the environment's number
    assert max(found) > 2**30  # and they use what there is
    assert len(set(found)) == len(found)
    np.random.RandomState(max(found))


def test_seeds_for_torch_keep_their_63_bits():
    assert torch_seed(3, "ppo/init") == 7888183663262993134
    assert derive_seed(3, "ppo/init") == 7888183663262993134 % FOREIGN_SEEDS


@pytest.mark.parametrize(("seed", "handed"), [(0, 0), (2**31 - 2**16 - 1, 2**31 - 2**16 - 1), (2**31, 2**16)])
def test_a_trials_own_seed_is_handed_on_as_it_is_where_it_fits(seed, handed):
    assert foreign_seed(seed) == handed
