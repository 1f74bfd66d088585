"""A cohort of three PPO trials, of which the middle one's environment hangs, dies or lies, under the real driver.

What is promised of the other trials: from the last checkpoint on they train in a cohort without the one that failed,
their environments are reset there from (seed, progress) as in every run, and so they see what they would have seen.
Their weights equal an undisturbed run's but for the rounding of sums that depends on how many lanes are batched.
"""

import json
import time

import pytest
import torch
from safetensors.torch import load_file

from harness.driver import Driver
from harness.experiment import load_experiment
from harness.randomness import derive_seed

SETTINGS = "steps: 320, n_envs: 2, n_steps: 16, epochs: 1, batch: 32, eval_episodes: 2, evaluate_every: 160"
LIMIT = 1.0
AT = 70  # step of the environment: between two checkpoints, the first of which was long ago


def run(folder, fault="", workers=1, restarts=0, once=""):
    """(outcome, notes, final weights of every trial that is done, seconds)."""
    seeds = [derive_seed(1, "env/0", 0)]  # the first environment of the trial with seed 1
    options = json.dumps({"fault": fault, "seeds": seeds, "at": AT, "once": once})
    rest = f"env_workers: {workers}, env_timeout: {LIMIT}, env_restarts: {restarts}, checkpoint_every: 96, seeds: 3"
    env = "env: 'tests.agents.broken_env:Broken-v0'"
    folder.mkdir(exist_ok=True)
    file = folder / "e.yaml"
    file.write_text(f"name: e\ntrials: [{{learner: ppo, {env}, env_options: {options}, {SETTINGS}, {rest}}}]")
    events = []
    began = time.monotonic()
    outcome = Driver(load_experiment(file), folder / "runs", executor="inline", on_event=events.append).train()
    done = [t for t in outcome.trials if t["state"] == "done"]
    weights = {t["seed"]: load_file(folder / "runs" / "trials" / t["id"] / "final.safetensors") for t in done}
    return outcome, [e["text"] for e in events if e["kind"] == "note"], weights, time.monotonic() - began


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed"), workers=0)


@pytest.mark.parametrize(
    ("fault", "workers", "sentence"),
    [
        ("hang", 1, "hangs: its step "),
        ("die", 1, "is lost: its process was killed by signal 9 (SIGKILL) during its step "),
        ("nan", 0, "gave the observation nan at step "),
        ("shape", 0, "gave an observation of shape [1]; its space says [2] at step "),
        pytest.param("hang-reset", 2, "hangs: its reset has not come back", marks=pytest.mark.slow),
        pytest.param("exit", 1, "is lost: its process exited with code 3", marks=pytest.mark.slow),
    ],
)
def test_the_other_trials_are_unharmed(tmp_path, undisturbed, fault, workers, sentence):
    outcome, notes, weights, seconds = run(tmp_path, fault, workers)
    assert outcome.exit_code == 1
    assert [t["state"] for t in outcome.trials] == ["done", "failed", "done"]
    reason = outcome.trials[1]["reason"]
    assert sentence in reason
    assert "environment 'tests.agents.broken_env:Broken-v0' (training 0 of the trial with seed 1)" in reason
    assert any("goes on from progress 96" in note for note in notes)
    assert seconds < undisturbed[3] + 3 * (LIMIT + 10)
    expected = undisturbed[2]
    for seed in (0, 2):
        for name, tensor in weights[seed].items():
            torch.testing.assert_close(tensor, expected[seed][name], rtol=0, atol=1e-5)
    assert [t["score"] for t in outcome.trials[::2]] == [t["score"] for t in undisturbed[0].trials[::2]]


def test_one_replacement_is_noted_and_spares_the_trial(tmp_path, undisturbed):
    outcome, notes, weights, _ = run(tmp_path, "die", restarts=1, once=str(tmp_path / "died"))
    assert outcome.exit_code == 0
    assert (tmp_path / "died").exists()
    assert sum("it is replaced, and the episodes that ran in its process are cut off" in n for n in notes) == 1
    for seed in (0, 2):
        for name, tensor in weights[seed].items():
            assert torch.equal(tensor, undisturbed[2][seed][name])
    assert any(not torch.equal(t, undisturbed[2][1][n]) for n, t in weights[1].items())
