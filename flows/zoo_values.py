"""What an entry of rl-baselines3-zoo holds: keys, each of which one rule takes, and Python written as text.

Such text ("dict(net_arch=[64, 64], activation_fn=nn.ReLU)") is read, never run: literals, `dict(...)` and names of `nn`
are all there is.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

__all__ = ["Keys", "Untranslatable", "mapping", "named_activation", "python_value"]

ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "GELU": "gelu", "SiLU": "silu", "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid", "Softplus": "softplus",
}  # fmt: skip
OPTIMISERS = ("RMSpropTFLike",)
CLASSES = ("HerReplayBuffer", "ReplayBuffer")
LONGEST = 5_000  # characters of a value that is Python
WHOLE = (
    "n_timesteps", "n_envs", "frame_stack", "n_steps", "batch_size", "n_epochs", "buffer_size", "learning_starts",
    "train_freq", "gradient_steps", "target_update_interval", "policy_delay",
)  # fmt: skip


class Untranslatable(ValueError):
    """A key that cannot be said in an experiment file.

    Args:
        key: of the zoo's entry.
        text: why not, and what to do about it.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key, self.text = key, text


class Keys:
    """The keys of an entry that no rule has taken yet. When all rules are through, none may be left.

    Args:
        values: the entry, or a mapping within it.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.left = {key: _plain(key, value) for key, value in values.items()}

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is taken."""
        return self.left.pop(key, default)

    def take_neutral(self, neutral: Mapping[str, tuple[Any, ...] | None]) -> None:
        """Takes keys whose values change nothing.

        Args:
            neutral: key to the values that change nothing; None: no value does.
        """
        for key, values in neutral.items():
            if key in self.left and (values is None or self.left[key] in values):
                del self.left[key]

    def take_exploration(self) -> None:
        """Takes what is about gSDE, where it is off."""
        if not self.left.get("use_sde", False):
            self.take_neutral({"use_sde": None, "sde_sample_freq": None, "use_sde_at_warmup": None})


def mapping(key: str, value: Any) -> dict[str, Any]:
    """A value that is a mapping.

    Raises:
        Untranslatable: it is anything else.
    """
    if not isinstance(value, dict):
        raise Untranslatable(key, f"write dict(...), not {value!r}")
    return value


def named_activation(value: Any) -> Any:
    """`nn.ReLU` as "relu", as everywhere in experiment files; other values as they are.

    Raises:
        Untranslatable: there is no such activation.
    """
    if not (isinstance(value, str) and value.startswith("nn.")):
        return value
    name = value.removeprefix("nn.")
    if name not in ACTIVATIONS:
        raise Untranslatable("policy_kwargs", f"{value} is not known; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _plain(key: str, value: Any) -> Any:
    """Python in text as values, whole numbers as integers."""
    if isinstance(value, str) and value.strip().startswith(("dict(", "{", "[", "(")):
        value = python_value(key, value)
    if key in WHOLE and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def python_value(key: str, text: str) -> Any:
    """Python written as text: literals, dict(...) and names of nn, which become "nn.ReLU"; RMSpropTFLike too.

    Raises:
        Untranslatable: it is anything else.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError("too long")
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        known = "literals, dict(...) and names such as nn.ReLU"
        raise Untranslatable(key, f"cannot be read: {shown!r}; write {known}") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        return {_word(pair.arg): _literal(pair.value) for pair in node.keywords}
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("nn", "th.nn", "torch.nn"):
        return f"nn.{node.attr}"
    if isinstance(node, ast.Name) and node.id in OPTIMISERS + CLASSES:
        return node.id
    if isinstance(node, ast.Dict):
        return {_word(_literal(k) if k else None): _literal(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    value = ast.literal_eval(node)  # allowed: reads a constant, runs nothing
    if not isinstance(value, str | int | float | None):
        raise ValueError("neither number nor text")
    return value


def _word(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError("not a name")
    return key
