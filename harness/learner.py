"""The learner contract: the code that trains a cohort. Authors write `start`, `advance`, `evaluate` and `network`.

The state is ONE tree (nested dicts) of tensors with the lane axis first, plus the common progress; from it the harness
derives saving, restoring, moving, ending and copying lanes. A new learner is one file and one line in `BUILTIN`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness import randomness
from harness.gang import ALONE, Gang
from harness.spec import LearnerConfig, Score
from nets.lanes import Execution, Work

__all__ = [
    "BUILTIN",
    "LaneError",
    "Lanes",
    "Learner",
    "Media",
    "Metrics",
    "State",
    "import_learner",
    "learner_class",
    "learner_names",
    "learner_target",
    "progress_of",
    "select",
    "tree_map",
]

State = dict[str, Any]  # nested dicts of tensors, lane axis first; "progress": int64 [K]
Metrics = Mapping[str, Tensor]  # name -> [K]

BUILTIN: dict[str, str] = {
    "a2c": "agents.a2c:A2C",
    "ppo": "agents.ppo:PPO",
    "recurrent-ppo": "agents.recurrent_ppo:RecurrentPPO",
    "dqn": "agents.dqn:DQN",
    "sac": "agents.sac:SAC",
    "td3": "agents.td3:TD3",
    "gan": "generative.gan:GAN",
    "vae": "generative.vae:VAE",
    "diffusion": "generative.diffusion:Diffusion",
    "text-gan": "generative.text_gan:TextGAN",
    "text-gumbel": "generative.text_gumbel:TextGumbel",
    "text-mle": "generative.text_mle:TextMLE",
    "video-gan": "generative.video_gan:VideoGAN",
    "classifier": "supervised.classifier:Classifier",
    "finetune": "supervised.finetune:Finetune",
    "retriever": "supervised.retriever:Retriever",
    "regressor": "supervised.regressor:Regressor",
    "language-model": "supervised.language_model:LanguageModel",
    "reader": "supervised.reader:Reader",
    "seq2seq": "supervised.seq2seq:Seq2Seq",
    "function": "harness.function:FunctionLearner",
    "sb3": "agents.sb3:SB3",
}


class LaneError(Exception):
    """Ends some lanes (they FAIL) and lets the others go on.

    Args:
        lanes: indices of the lanes that cannot go on.
        reason: one sentence.
        reasons: lane -> its own sentence, where lanes fail for different reasons.
    """

    def __init__(self, lanes: Sequence[int], reason: str, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(reason)
        self.lanes = tuple(int(lane) for lane in lanes)  # of NumPy and torch, too
        self.reason = reason
        self.reasons = {int(lane): text for lane, text in (reasons or {}).items()}


@dataclass(frozen=True)
class Media:
    """Something to look at: written to the run folder, shown on the page and in W&B.

    Attributes:
        kind: "image" (data: uint8 [H, W] or [H, W, 3]), "video" (data: uint8 [T, H, W] or [T, H, W, 3]), "points"
            (data: float [N, 2] samples, `reference` the real ones [M, 2]), "matrix" (data: [R, C] counts, rows are
            the truth) or "text" (data: str [N]).
        data: the array.
        reference: for "points", the data's own points; for "image" and "text", real ones beside the samples.
        labels: names of rows and columns of a matrix.
        caption: one sentence.
        fps: of a video, frames per second.
    """

    kind: Literal["image", "video", "points", "matrix", "text"]
    data: np.ndarray
    reference: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    caption: str = ""
    fps: float = 25.0


@dataclass(frozen=True)
class Lanes:
    """The lanes of a cohort: who they are (configuration, seed) and how they are executed.

    Attributes:
        configs: one resolved configuration a lane; they differ in PerLane fields only.
        seeds: one trial seed a lane.
        execution: device, dtype and mode; the only thing that knows vmap, compile and devices.
        encoders: for every lane the weights of the network whose encoder it starts from, or None; () for none.
        samplers: for every lane the generator whose rows it learns from beside real ones, or None; () for none.
        gang: the workers that train this cohort together, each with all of its lanes.
        notes: sentences for the log; the worker takes them into its next report.
        warnings: sentences that are said once a run, whichever cohorts give them, by what they are about.
        heed: called now and then in loops that may last minutes; raises where the worker must let go of the cohort.
    """

    configs: tuple[Any, ...]
    seeds: tuple[int, ...]
    execution: Execution = field(default_factory=Execution)
    encoders: tuple[Mapping[str, Tensor] | None, ...] = ()
    samplers: tuple[nn.Module | None, ...] = ()
    gang: Gang = ALONE
    notes: list[str] = field(default_factory=list, compare=False)
    warnings: dict[str, str] = field(default_factory=dict, compare=False)
    heed: Callable[[], None] = field(default=lambda: None, compare=False)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def config(self) -> Any:
        """The first lane's configuration, for the fields that are the cohort's shape."""
        return self.configs[0]

    def per_lane(self, name: str) -> Tensor:
        """A PerLane field as a tensor [K] of the execution's dtype on its device."""
        return self.execution.tensor(np.array([getattr(c, name) for c in self.configs], dtype=np.float64))

    def noise(self, purpose: str, progress: int, shape: Sequence[int], kind: randomness.Kind = "normal") -> Tensor:
        """Noise [K, *shape] of the execution's dtype on its device; lane k's depends on its seed alone."""
        return self.execution.tensor(randomness.noise(self.seeds, purpose, progress, shape, kind, dtype="float64"))

    def generators(self, purpose: str, progress: int = 0) -> list[np.random.Generator]:
        """One numpy generator a lane."""
        return [randomness.generator(seed, purpose, progress) for seed in self.seeds]

    def keys(self, purpose: str, progress: int, count: int) -> Tensor:
        """Keys int64 [K, count] for the noise inside networks (`nets.lanes.call`)."""
        numbers = [g.integers(-(2**63), 2**63 - 1, count) for g in self.generators(purpose, progress)]
        return self.execution.tensor(np.stack(numbers))

    def stack(self, build: Callable[[], nn.Module], purpose: str) -> tuple[nn.Module, Any, Any]:
        """Networks of all lanes, as `Execution.stack`, with the encoders that their trials start from.

        Raises:
            ValueError: an encoder is not the network's own in every name and shape.
        """
        return self.execution.stack(build, self.init_seeds(purpose), self.encoders)

    def init_seeds(self, purpose: str) -> list[int]:
        """One seed a lane for initialising networks (`Execution.stack`)."""
        return [randomness.torch_seed(seed, purpose) for seed in self.seeds]


class Learner:
    """Trains one cohort. A learner object belongs to one cohort; `start` is always called first."""

    Config: ClassVar[type[LearnerConfig]]
    unit: ClassVar[str]  # "env_steps", "images", "tokens", "rows", "steps"
    score: ClassVar[Score]
    version: ClassVar[int] = 1  # raised when its numbers change
    foreign: ClassVar[bool] = False  # K = 1 and its own `save` and `load`

    rings: ClassVar[Mapping[str, str]] = {}  # ring buffers in the state that are saved step by step: harness.rings

    paced: ClassVar[bool] = False  # sets its own boundaries (a user's own training function)

    chunk: int = 1  # progress of one `advance`; set in `start`
    budget: int = 0  # where training ends; 0 takes the configuration's
    lanes: Lanes

    @property
    def notes(self) -> list[str]:
        """Sentences for the log: whoever has the lanes adds to them, the worker takes them into its next report."""
        return self.lanes.notes

    @classmethod
    def score_of(cls, config: Any) -> Score:
        """The headline metric for a configuration; most learners have one for all."""
        return cls.score

    @classmethod
    def check(cls, config: Any) -> None:
        """Optional: looks, when a file is read, for what a sound configuration names elsewhere.

        Raises:
            ValueError: it is not there, or not what it should be.
        """

    @classmethod
    def rows_to_share(cls, config: Any) -> int:
        """Rows between two means of gradients, which `resources.workers` workers divide among them; 1: no learner's
        that trains in one worker.

        A learner that gives more than 1 takes `lanes.gang.part` of them and the `mean` of its gradients, so that every
        worker's state is the same after each `advance`.
        """
        return 1

    @classmethod
    def work(cls, config: Any, lanes: int) -> Work:
        """What a cohort of so many lanes is expected to cost, for the choice of how lanes are executed."""
        return Work(eager_seconds=config.seconds_per_progress * config.budget * lanes)

    def start(self, lanes: Lanes) -> State:
        """Builds networks and data, sets `self.lanes` and `self.chunk`, returns the state at progress 0.

        The state is nested dicts of tensors, lane axis first, with "progress": int64 [K] zeros and
        "alive": bool [K] ones. Calling it with the same lanes gives the same state, bit for bit.
        """
        raise NotImplementedError

    def advance(self, state: State) -> Metrics:
        """Trains one chunk: changes `state` (progress rises by `chunk` in every lane) and returns metrics [K]."""
        raise NotImplementedError

    def evaluate(self, state: State) -> Metrics:
        """Scores of every lane, [K] or [K, episodes]; changes nothing. Contains `score.name` (and `score.select`)."""
        raise NotImplementedError

    def network(self, state: State, lane: int) -> nn.Module:
        """One ordinary network on the CPU with that lane's weights: for explaining, serving, transfer."""
        raise NotImplementedError

    @property
    def restarts(self) -> bool:
        """Whether `checkpointed` changes the numbers that follow; it then stops only where a checkpoint is due."""
        return False

    def checkpointed(self, state: State) -> None:
        """Optional: called right after every checkpoint and after restoring one.

        Here a learner starts anew, from (seed, progress), what cannot be saved (third-party environments), so that an
        interrupted run and an uninterrupted one see the same numbers. It may change `state`.
        """

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """Optional: further networks to keep beside `network`, by name (a GAN's "discriminator")."""
        return {}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Optional: things to look at, by name."""
        return {}

    def frames(self, state: State) -> dict[str, Sequence[np.ndarray]]:
        """Optional: at every evaluation one picture a lane, by name: a video over training each.

        Pictures are uint8 [H, W] or [H, W, 3]. Draw them from fixed noise, so that what moves is what was learnt.
        """
        return {}

    def close(self) -> None:
        """The worker lets go of the cohort: environments and threads of one's own end here."""

    @property
    def finished(self) -> bool:
        """Paced learners: whether training is over."""
        raise NotImplementedError

    def due(self, what: str) -> bool:
        """Paced learners: whether "evaluate" or "checkpoint" is due at this boundary."""
        raise NotImplementedError

    def drain(self) -> list[tuple[int, dict[str, float]]]:
        """Paced learners: lines of metrics since the last call, (progress, metrics) each."""
        raise NotImplementedError

    def save(self, state: State) -> Any:
        """Foreign learners: a tree of tensors, arrays and JSON values (see harness.packing.pack)."""
        raise NotImplementedError

    def load(self, tree: Any) -> State:
        """Foreign learners: takes back what `save` gave."""
        raise NotImplementedError


def learner_names() -> list[str]:
    """Names of all registered learners: the built-in ones and entry points of group `seedbed.learners`."""
    return sorted({*BUILTIN, *(e.name for e in entry_points(group="seedbed.learners"))})


def learner_target(name: str) -> str:
    """Where the learner registered under a name is found, as "package.module:Class".

    Raises:
        KeyError: no learner has that name.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    found = [e.value for e in entry_points(group="seedbed.learners") if e.name == name]
    if not found:
        raise KeyError(name)
    return found[0]


def learner_class(name: str) -> type[Learner]:
    """The learner registered under a name.

    Raises:
        KeyError: no learner has that name.
    """
    return import_learner(learner_target(name))


def import_learner(target: str) -> type[Learner]:
    """The learner class that a target "package.module:Class" names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def tree_map(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Applies a function to every tensor of nested dicts."""
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    return function(tree)


def select(state: State, index: Sequence[int]) -> State:
    """The state of the lanes `index` (repeats copy lanes): an index_select on every tensor."""
    chosen = torch.as_tensor(list(index), dtype=torch.long)
    return tree_map(lambda t: t.index_select(0, chosen.to(t.device)).clone(), state)


def progress_of(state: State) -> int:
    """The cohort's common progress."""
    return int(state["progress"][0])
