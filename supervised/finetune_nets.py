"""Pretrained networks as trunk and head: encoders of texts, language models, networks of images.

Everything is read from local files (`supervised.finetune_models`), offline and without a word on the terminal. Weights
are safetensors or GGUF (expanded to float32), and one pinned pickle that torch reads as weights only.

Legend: B rows of a batch, T tokens of a row, D features, V words, C classes, H x W pixels.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from supervised.finetune_models import Source

__all__ = ["ENDED", "Images", "Language", "Texts", "build", "calibrate", "tokenizer"]

ENDED = -1  # a token after the end of a text
TEMPERATURE = 0.05  # of cosines that become probabilities
MOMENTUM = 0.1  # of batch norms that have no moments yet; ImageNet's networks have 0.01 for a hundred times the updates
IMAGENET = {"efficientnet": (0.498, 0.502)}  # mean and deviation of pixels in [0, 1]; others: 0.5 and 0.5


class Texts(nn.Module):
    """Texts to logits: the mean of the last layer's features over a text's tokens, then a linear head.

    Args:
        trunk: a model of Hugging Face without head.
        classes: how many logits.
    """

    def __init__(self, trunk: nn.Module, classes: int) -> None:
        super().__init__()
        self.trunk = _unpooled(trunk)
        self.head = nn.Linear(_width(trunk), classes)

    def features(self, tokens: Tensor) -> Tensor:
        """int64 [B, T], ENDED after a text's end, to [B, D]."""
        return mean_over_tokens(self.trunk, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, T] to [B, C]."""
        return self.head(self.features(tokens))


class Retrieval(nn.Module):
    """Pairs of a question and a passage to how much every question of a batch asks for every passage of it.

    A text is the mean of the last layer's features over its tokens, through a linear layer that begins as the identity,
    at length 1; a logit is the cosine of two, over TEMPERATURE (Reimers & Gurevych 2019; Henderson et al. 2017).

    Args:
        trunk: a model of Hugging Face without head.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = _unpooled(trunk)
        self.head = Matching(_width(trunk))

    def features(self, tokens: Tensor) -> Tensor:
        """int64 [B, n, T], the n texts that belong together, ENDED after each one's end, to [B, n, D]."""
        return torch.stack([mean_over_tokens(self.trunk, part) for part in tokens.unbind(1)], 1)

    def forward(self, pairs: Tensor) -> Tensor:
        """int64 [B, 2, T] to [B, B]: rows are questions, columns passages."""
        return self.head(self.features(pairs))


class Matching(nn.Module):
    """Cosines of questions and passages, over TEMPERATURE.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.project.weight)

    def embed(self, features: Tensor) -> Tensor:
        """[..., D] to the same shape, of length 1."""
        return functional.normalize(self.project(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, 2, D] to [B, B]: rows are questions, columns passages."""
        questions, passages = self.embed(features).unbind(1)
        return questions @ passages.T / TEMPERATURE


class Language(nn.Module):
    """Tokens to logits of each token's successor; the head is the embedding where the model ties the two.

    Args:
        model: a causal language model of Hugging Face.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.trunk = model.base_model
        self.unembed = None if model.config.tie_word_embeddings else model.get_output_embeddings()

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, T] to [B, T, V]."""
        found = self.trunk(input_ids=tokens, use_cache=False).last_hidden_state
        if self.unembed is None:
            return functional.linear(found, self.trunk.get_input_embeddings().weight)
        return self.unembed(found)


class Images(nn.Module):
    """Images to logits: enlarged, with three channels, normalised; the trunk's features averaged; a linear head.

    Args:
        trunk: EfficientNet-Lite, or a model of Hugging Face that takes `pixel_values`.
        classes: how many logits.
        side: of the square that the trunk sees, in pixels.
        mean: of pixels in [0, 1] that becomes 0.
        deviation: that becomes 1.
    """

    def __init__(self, trunk: nn.Module, classes: int, side: int, mean: float = 0.5, deviation: float = 0.5) -> None:
        super().__init__()
        self.trunk, self.side, self.mean, self.deviation = trunk, side, mean, deviation
        with torch.no_grad():  # the trunk says how many features it has
            width = self.eval().features(torch.zeros(1, side, side)).shape[-1]
        self.head = nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """[B, H, W] or [B, channels, H, W], pixels in [0, 1], to [B, D]."""
        x = images.unsqueeze(1) if images.dim() == 3 else images
        x = functional.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        trunk: Any = self.trunk
        if hasattr(trunk, "extract_features"):  # EfficientNet-Lite's
            return trunk.extract_features(x).mean((2, 3))
        found = trunk(pixel_values=x).last_hidden_state
        return found.mean((2, 3)) if found.dim() == 4 else found.mean(1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, H, W] or [B, channels, H, W] to [B, C]."""
        return self.head(self.features(images))


def mean_over_tokens(trunk: nn.Module, tokens: Tensor) -> Tensor:
    """The mean of a trunk's last layer over a text's tokens.

    Args:
        trunk: a model of Hugging Face without head.
        tokens: int64 [B, T], ENDED after a text's end; columns in which all have ended are not computed.

    Returns:
        [B, D].
    """
    there = tokens != ENDED
    length = int(there.sum(1).max())
    tokens, there = tokens[:, :length], there[:, :length]
    found = trunk(input_ids=tokens.clamp(min=0), attention_mask=there.long()).last_hidden_state
    weights = there.unsqueeze(-1).to(found.dtype)
    return (found * weights).sum(1) / weights.sum(1)


def _unpooled(trunk: nn.Module) -> nn.Module:
    if hasattr(trunk, "pooler"):
        trunk.pooler = None  # type: ignore[assignment]  # BERT's, of the first token: not used
    return trunk


def _width(trunk: Any) -> int:
    return trunk.config.hidden_size


def build(source: Source, task: str, classes: int, side: int, pretrained: bool, seed: int) -> nn.Module:
    """A network with the source's weights, or with random ones of the same shapes; its new parts follow the seed.

    Args:
        source: of `finetune_models.find`.
        task: "texts", "language", "images" or "retrieval".
        classes: of the new head; a language model and retrieval have none.
        side: of images, in pixels.
        pretrained: whether the source's weights are taken.
        seed: of everything that is random.
    """
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        if source.kind == "efficientnet":
            trunk = _efficientnet(source, side, pretrained)
        else:
            trunk = _hugging_face(source, task, pretrained)
        if not pretrained:
            for norm in _batch_norms(trunk):
                norm.momentum = MOMENTUM
        if task == "language":
            return Language(trunk).float()
        torch.manual_seed(seed)  # the same head, whatever the trunk drew
        if task == "texts":
            return Texts(trunk, classes).float()
        if task == "retrieval":
            return Retrieval(trunk).float()
        return Images(trunk, classes, side, *IMAGENET.get(source.kind, (0.5, 0.5))).float()


def calibrate(net: nn.Module, run: Callable[[Any], Any], batches: Iterable[Any]) -> None:
    """Gives batch norms the mean moments of these batches; weights and everything else stay.

    Args:
        net: left in evaluation mode.
        run: a function of one batch that calls the network.
        batches: one at least; none is looked at where there is no batch norm.
    """
    norms = _batch_norms(net)
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for the mean of all batches
        norm.train()
    with torch.no_grad():
        for batch in batches:
            run(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    net.eval()


def _batch_norms(net: nn.Module) -> list[Any]:
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def tokenizer(source: Source) -> Any:
    """The tokenizer beside a model's weights."""
    with quiet():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(*_where(source)[0], **_where(source)[1])


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Hugging Face's libraries stay offline and print nothing: bars, hints, warnings."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before their first import
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield


def _where(source: Source) -> tuple[tuple[str], dict[str, Any]]:
    if source.kind == "gguf":
        return (str(source.path.parent),), {"gguf_file": source.path.name, "local_files_only": True}
    return (str(source.path),), {"local_files_only": True}


def _hugging_face(source: Source, task: str, pretrained: bool) -> nn.Module:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM if task == "language" else AutoModel
    place, how = _where(source)
    if pretrained:
        return auto.from_pretrained(*place, **how, use_safetensors=True, dtype=torch.float32)
    return auto.from_config(AutoConfig.from_pretrained(*place, **how), dtype=torch.float32)


def _efficientnet(source: Source, side: int, pretrained: bool) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    if pretrained:
        net.load_state_dict(torch.load(source.path, weights_only=True))  # allowed: sha256 is that of PICKLES
    net._fc = nn.Identity()  # its classes are ImageNet's
    return net
