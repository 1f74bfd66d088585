"""Every entry of rl-baselines3-zoo's own files is imported, and planned where its environment's package is installed.

SEEDBED_ZOO names the folder of those files (`hyperparams` of a clone); without it the tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.zoo import experiment_text, read_zoo
from flows.zoo_translation import ALGORITHMS, OWN, Translation, Untranslatable, translate
from harness.experiment import load_experiment
from harness.spec_errors import SpecError

FOLDER = Path(os.environ.get("SEEDBED_ZOO", "/"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SEEDBED_ZOO" not in os.environ, reason="SEEDBED_ZOO does not name rl-baselines3-zoo's files"),
]
BOXES = ("sac", "td3", "ddpg", "tqc", "crossq")
UNPUBLISHED = ("A1Walking-v0", "A1Jumping-v0", "NeckEnvRelative-v2")  # environments that no package brings
# entries that ours cannot say: gSDE, goals, a minibatch that is not whole sequences, one critic without an LSTM, rounds
REFUSED = ("use_sde", "replay_buffer_class", "batch_size", "policy", "train_freq")


def translated(own: bool) -> tuple[dict[tuple[str, str], Translation], dict[tuple[str, str], Untranslatable]]:
    """(entries, refusals) by algorithm and name."""
    found, refused = {}, {}
    for algo in OWN if own else ALGORITHMS:
        file = FOLDER / f"{algo}.yml"
        for name, entry in read_zoo(file)[0].items() if file.is_file() else ():
            env = {"atari": "PongNoFrameskip-v4", "default": "Pendulum-v1" if algo in BOXES else "CartPole-v1"}
            try:
                found[algo, name] = translate(env.get(name, name), entry, algo, own)
            except Untranslatable as error:
                refused[algo, name] = error
    return found, refused


def test_every_entry_is_imported_for_stable_baselines3() -> None:
    found, refused = translated(own=False)
    assert {key: str(error) for key, error in refused.items()} == {}
    assert len(found) >= 270


def test_every_entry_that_ours_can_say_is_imported_for_ours() -> None:
    found, refused = translated(own=True)
    assert len(found) >= 105
    assert {error.key for error in refused.values()} <= set(REFUSED)
    for algo, name in refused:
        if refused[algo, name].key == "use_sde":
            assert read_zoo(FOLDER / f"{algo}.yml")[0][name]["use_sde"] is True


@pytest.mark.parametrize("own", [False, True])
def test_what_is_imported_is_planned_or_lacks_a_package(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves its log where it is
    file, wrong = tmp_path / "e.yaml", {}
    for (algo, name), translation in translated(own)[0].items():
        file.write_text(experiment_text("e", [translation.trial], []))
        try:
            load_experiment(file)
        except SpecError as error:
            lacks = "needs the package" in str(error) or "No module named" in str(error)
            if not lacks and translation.trial["env"] not in UNPUBLISHED:
                wrong[algo, name] = str(error)
    assert wrong == {}
