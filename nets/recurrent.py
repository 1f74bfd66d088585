"""Recurrent networks as pure steps and a scan: they run under vmap and compile whole, where torch's own do neither.

Dynamo refuses `nn.RNN`, `nn.LSTM` and `nn.GRU`, and under vmap `nn.LSTM` runs one lane after another. Here a step is a
function of tensors (`rnn_step`, `lstm_step`, `gru_step`), `scan` repeats it over time, and `Recurrent` stacks layers
of scans with torch's weights and names: a state dict of torch's layer loads as it is. What does not depend on the
state, the product with the inputs, is taken for all times at once. The scan is unrolled: a compiled graph grows with
the number of time steps, and so does the time to compile it. LSTM and GRU in an ordinary call on a CPU, without resets,
run torch's own kernels: the same to rounding, and faster (LSTM 1.2 to 17 times, GRU 1.1 to 2.6).

Legend: B sequences, T time steps, F input features, H features of the state, G = H * gates of the cell.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.attend import transformed
from nets.recurrent_kernels import at_the_end, gru_layer, lstm_layer
from nets.registry import register
from nets.regularise import Dropout

__all__ = [
    "Cell",
    "GRUEncoder",
    "LSTMEncoder",
    "RNNEncoder",
    "Recurrent",
    "RecurrentEncoder",
    "State",
    "gru_step",
    "lstm_step",
    "rnn_step",
    "scan",
]

Cell = Literal["rnn", "lstm", "gru"]
State = Tensor | tuple[Tensor, Tensor]  # as torch has it: h, or (h, c) of the LSTM
Parts = tuple[Tensor, ...]  # the state within a scan: (h,) or (h, c)
GATES: dict[Cell, int] = {"rnn": 1, "lstm": 4, "gru": 3}
FEWEST = 4  # steps from which on torch's kernel pays


def rnn_step(x: Tensor, state: Parts, weight: Tensor) -> Parts:
    """h_t = tanh(x_t + W h_tm1) (Elman 1990).

    Args:
        x: the inputs' share with both biases, W_ih x_t + b_ih + b_hh, [B, H].
        state: (h [B, H],).
        weight: W transposed, [H, H].

    Returns:
        The next state; its first part is the output.
    """
    return (torch.tanh(torch.addmm(x, state[0], weight)),)


def lstm_step(x: Tensor, state: Parts, weight: Tensor) -> Parts:
    """c_t = f c_tm1 + i g, h_t = o tanh(c_t) (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    Args:
        x: the inputs' share with both biases [B, 4 H]: input gate i, forget gate f, candidate g, output gate o.
        state: (h, c), each [B, H].
        weight: [H, 4 H].

    Returns:
        (h, c); h is the output.
    """
    h, c = state
    i, f, g, o = torch.addmm(x, h, weight).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(x: Tensor, state: Parts, weight: Tensor, bias: Tensor) -> Parts:
    """h_t = z h_tm1 + (1 - z) n (Cho et al. 2014, in torch's form: the reset gate acts after the product).

    Args:
        x: the inputs' share with its own bias [B, 3 H]: reset gate, update gate z, candidate n.
        state: (h [B, H],).
        weight: [H, 3 H].
        bias: of the state's product [3 H].

    Returns:
        (h,).
    """
    (h,) = state
    widths = [2 * h.shape[-1], h.shape[-1]]
    x_gates, x_new = x.split(widths, dim=-1)
    h_gates, h_new = torch.addmm(bias, h, weight).split(widths, dim=-1)
    reset, update = torch.sigmoid(x_gates + h_gates).chunk(2, dim=-1)
    new = torch.tanh(x_new + reset * h_new)
    return (new + update * (h - new),)


STEPS: dict[Cell, Callable[..., Parts]] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
}


def scan(
    cell: Cell,
    x: Tensor,
    state: Parts,
    weight: Tensor,
    bias: Tensor,
    reset: Tensor | None = None,
    mask: Tensor | None = None,
    truncate: int = 0,
    reverse: bool = False,
) -> tuple[Tensor, Parts]:
    """Repeats a cell's step over time.

    Args:
        cell: whose step.
        x: the inputs' share of all times, [T, B, G]: time comes first here.
        state: before the first step, each part [B, H].
        weight: of the state's product, [G, H] as torch has it.
        bias: its bias [G].
        reset: bool [T, B]: the state is zeroed before a step where True.
        mask: bool [T, B]: where False the step is padding and the state stays as it is.
        truncate: detach the state every so many steps (truncated backpropagation, Werbos 1990); 0: never.
        reverse: from the last step to the first. An episode that begins at t is then left behind at t: the state is
            zeroed after that step.

    Returns:
        (outputs [T, B, H], last state).
    """
    step, weight = STEPS[cell], weight.t()
    # only the GRU needs the bias at its place; the others take it into the inputs' share, once for all times
    rest = (bias,) if cell == "gru" else ()
    inputs = list((x if rest else x + bias).unbind(0))
    zeroed: list[Tensor | None] = [None] * len(inputs) if reset is None else list(reset.unsqueeze(-1).unbind(0))
    real: list[Tensor | None] = [None] * len(inputs) if mask is None else list(mask.unsqueeze(-1).unbind(0))
    if reverse:
        inputs, zeroed, real = inputs[::-1], [None, *zeroed[:0:-1]], real[::-1]
    outputs = []
    for time, (x_t, zero, valid) in enumerate(zip(inputs, zeroed, real, strict=True)):
        if truncate and time and time % truncate == 0:
            state = tuple(part.detach() for part in state)
        if zero is not None:
            state = tuple(torch.where(zero, 0.0, part) for part in state)
        new = step(x_t, state, weight, *rest)
        state = new if valid is None else tuple(torch.where(valid, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state


@register("recurrent", role="layer")
class Recurrent(nn.Module):
    """Layers of RNN, LSTM or GRU over a sequence, with torch's weights: a state dict of torch's own layer loads.

    An LSTM that torch's kernel computes has no second derivative. Where an ordinary call needs one (a gradient
    penalty), give it a `reset` that is False everywhere: what has resets is a scan.

    Weights and biases start uniform in +-1 / sqrt(hidden_features), as torch's, from the same random numbers.

    Args:
        in_features: width of the input, F.
        hidden_features: width of every layer's state, H.
        cell: "rnn" (tanh), "lstm" or "gru".
        depth: how many layers.
        bidirectional: whether every layer also reads from the end to the start; outputs are then 2 H wide.
        dropout: rate of zeroing the outputs of every layer but the last.
        truncate: gradients reach back over at most so many steps within one call; 0: over all.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        cell: Cell = "lstm",
        depth: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        truncate: int = 0,
    ) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.hidden_features = hidden_features
        self.depth = depth
        self.truncate = truncate
        self.directions = ["", "_reverse"] if bidirectional else [""]
        self.out_features = hidden_features * len(self.directions)
        self.dropout = Dropout(dropout)
        for layer in range(depth):
            width = self.out_features if layer else in_features
            for direction in self.directions:
                for name, weight in _weights(width, hidden_features, GATES[cell]).items():
                    self.register_parameter(f"{name}_l{layer}{direction}", weight)

    def forward(
        self, x: Tensor, state: State | None = None, reset: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs of the last layer and the last states of all layers.

        Args:
            x: [B, T, F].
            state: before the first step, as torch's: h [depth * directions, B, H], for "lstm" (h, c); None: zeros.
            reset: bool [B, T]: the state is zeroed before a step where True (the first of an episode).
            mask: bool [B, T]: False where a sequence is padded; the state, and with it the output, stays there as it
                is. None: no padding.

        Returns:
            (outputs [B, T, H * directions], state).
        """
        parts = self._parts(x, state)
        if reset is None and self._has_kernel(x, state, mask):
            return self._by_torch(x, parts, mask)
        reset, mask = (None if flags is None else flags.t() for flags in (reset, mask))
        x = x.transpose(0, 1)  # time first: one step's inputs then lie together
        last: list[Parts] = []
        for layer in range(self.depth):
            outputs = []
            for direction in self.directions:
                w_ih, w_hh, b_ih, b_hh = (cast(Tensor, getattr(self, f"{name}_l{layer}{direction}")) for name in NAMES)
                found, end = scan(
                    self.cell,
                    functional.linear(x, w_ih, b_ih),
                    tuple(part[len(last)] for part in parts),
                    w_hh,
                    b_hh,
                    reset,
                    mask,
                    self.truncate,
                    reverse=direction != "",
                )
                outputs.append(found)
                last.append(end)
            x = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
            if layer < self.depth - 1:
                x = self.dropout(x)
        ends = tuple(torch.stack(part) for part in zip(*last, strict=True))
        return x.transpose(0, 1), (ends[0], ends[1]) if self.cell == "lstm" else ends[0]

    def _has_kernel(self, x: Tensor, state: State | None, mask: Tensor | None) -> bool:
        if torch.compiler.is_compiling() or self.cell == "rnn" or torch.is_autocast_enabled("cpu"):
            return False
        if x.device.type != "cpu" or x.dtype != torch.float32 or x.shape[1] < FEWEST or 0 < self.truncate < x.shape[1]:
            return False
        flags = () if mask is None else (mask,)
        if transformed(x, *flags, *(() if state is None else self._parts(x, state)), *self.parameters(recurse=False)):
            return False
        return mask is None or (self.cell == "lstm" and state is None and at_the_end(mask))

    def _by_torch(self, x: Tensor, state: Parts, mask: Tensor | None) -> tuple[Tensor, State]:
        """As `forward`, layer by layer: dropout between them is ours."""
        both, ends = len(self.directions), []
        for layer in range(self.depth):
            weights = [getattr(self, f"{name}_l{layer}{direction}") for direction in self.directions for name in NAMES]
            start = tuple(part[layer * both : (layer + 1) * both] for part in state)
            x, end = gru_layer(x, start, weights) if self.cell == "gru" else lstm_layer(x, start, weights, mask)
            ends.append(end)
            if layer < self.depth - 1:
                x = self.dropout(x.transpose(0, 1)).transpose(0, 1)  # the scan draws in this order
        parts = tuple(torch.cat(part) for part in zip(*ends, strict=True))
        return x, (parts[0], parts[1]) if self.cell == "lstm" else parts[0]

    def _parts(self, x: Tensor, state: State | None) -> Parts:
        if state is not None:
            return (state,) if isinstance(state, Tensor) else state
        zeros = x.new_zeros(self.depth * len(self.directions), x.shape[0], self.hidden_features)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _weights(in_features: int, hidden_features: int, gates: int) -> dict[str, nn.Parameter]:
    """One layer's weights in torch's order, so that a seed gives torch's numbers."""
    bound, rows = 1 / math.sqrt(hidden_features), gates * hidden_features
    shapes = ((rows, in_features), (rows, hidden_features), (rows,), (rows,))
    return {
        name: nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        for name, shape in zip(NAMES, shapes, strict=True)
    }


class RecurrentEncoder(nn.Module):
    """A recurrent network that reads a sequence into one vector.

    An image is read row by row, from top to bottom. Tokens are embedded first, standard normal.

    Args:
        in_shape: (T, F); (C, H, W): rows of C * W; or (T,), tokens below `vocabulary`.
        hidden_features: width of every layer's state (and of the embedding).
        depth: how many layers.
        bidirectional: whether every layer also reads from the end to the start; the result is then twice as wide.
        dropout: rate of zeroing between layers.
        pool: "last", each direction's last state; "mean", the mean of the outputs over time; or "all", the outputs of
            all T steps side by side, T times as wide (zeros where a sequence is padded).
        vocabulary: how many tokens there are; 0: the inputs are no tokens.

    Raises:
        ValueError: a shape of another kind.
    """

    cell: ClassVar[Cell]

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 64,
        depth: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pool: Literal["last", "mean", "all"] = "last",
        vocabulary: int = 0,
    ) -> None:
        super().__init__()
        tokens = len(in_shape) == 1
        if not (tokens and vocabulary) and (vocabulary or len(in_shape) not in (2, 3)):
            raise ValueError(
                f"a recurrent encoder takes (time, features), (channels, height, width), or (time,) with a vocabulary; "
                f"not {tuple(in_shape)} with a vocabulary of {vocabulary}"
            )
        width = hidden_features if tokens else in_shape[-1] * (in_shape[0] if len(in_shape) == 3 else 1)
        self.embed = nn.Embedding(vocabulary, hidden_features) if tokens else nn.Identity()
        self.layers = Recurrent(width, hidden_features, self.cell, depth, bidirectional, dropout)
        self.pool = pool
        steps = in_shape[-2] if len(in_shape) > 1 else in_shape[0]
        self.out_features = self.layers.out_features * (steps if pool == "all" else 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, *in_shape] to [B, out_features]; mask: bool [B, T], False where a sequence is padded."""
        x = self.embed(x)
        if x.dim() == 4:
            x = x.transpose(1, 2).flatten(2)
        outputs, state = self.layers(x, mask=mask)
        if self.pool == "last":
            h = state[0] if isinstance(state, tuple) else state
            return h[-len(self.layers.directions) :].transpose(0, 1).flatten(1)
        if mask is not None:
            outputs = torch.where(mask.unsqueeze(-1), outputs, 0.0)
        if self.pool == "all":
            return outputs.flatten(1)
        return outputs.mean(1) if mask is None else outputs.sum(1) / mask.unsqueeze(-1).sum(1).clamp(min=1)


def _encoder_doc(summary: str) -> str:
    """The arguments stand once, above; the registry reads them from every encoder's own docstring."""
    return summary + "\n" + inspect.cleandoc(RecurrentEncoder.__doc__ or "").partition("\n")[2]


@register("rnn", role="encoder")
class RNNEncoder(RecurrentEncoder):
    __doc__ = _encoder_doc("A plain recurrent network with tanh (Elman 1990) that reads a sequence into one vector.")
    cell = "rnn"


@register("lstm", role="encoder")
class LSTMEncoder(RecurrentEncoder):
    __doc__ = _encoder_doc("An LSTM (Hochreiter & Schmidhuber 1997) that reads a sequence into one vector.")
    cell = "lstm"


@register("gru", role="encoder")
class GRUEncoder(RecurrentEncoder):
    __doc__ = _encoder_doc("A GRU (Cho et al. 2014) that reads a sequence into one vector.")
    cell = "gru"
