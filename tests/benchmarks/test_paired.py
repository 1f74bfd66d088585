"""Paired differences."""

from __future__ import annotations

import pytest

from benchmarks.common import trained
from benchmarks.paired import differences


def _row(label, seed, n, value):
    return {"label": label, "seed": seed, "n": n, "loss": value}


def test_each_label_is_compared_with_its_own_control_seed_by_seed():
    rows = [
        *(_row(f"c n={n} from=", seed, n, 10 * n + seed) for n in (1, 2) for seed in (0, 1, 2)),
        *(_row("c n=1 from=a", seed, 1, 10 + seed - 0.5 - 0.1 * seed) for seed in (0, 1, 2)),
        *(_row("c n=2 from=b", seed, 2, 20 + seed + (seed - 1)) for seed in (0, 1, 2)),
        _row("c n=1 from=z", 0, 1, 3.0),
        _row("c n=1 from=z", 1, 1, None),
    ]
    one, two, open_ = differences(rows, "from=", "n", ["loss"])
    assert one["seeds"] == 3
    assert one["loss"]["mean"] == pytest.approx(-0.6)
    assert one["loss"]["control"] == pytest.approx(11)
    assert one["loss"]["high"] == pytest.approx(-0.6 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert one["loss"]["apart"]
    assert two["loss"]["mean"] == 0
    assert not two["loss"]["apart"]
    assert open_ == {"label": "c n=1 from=z", "seeds": 1}


def test_what_was_not_run_is_said_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="no experiment regularisation was run there"):
        trained("regularisation", str(tmp_path))
