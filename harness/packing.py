"""Trees of a learner's or a user's values, taken apart into tensors for safetensors and a JSON skeleton.

Every place of a tree has a name of its own, every value comes back with its type, shape and dtype, and two places that
hold one tensor (tied weights) hold one tensor again. What cannot come back as it was is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack", "resolved", "separate", "unpack"]

Place = tuple[str, ...]

STORED = {  # dtypes that safetensors has a name for
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
}
AS_BYTES = {"complex128": torch.complex128, "complex32": torch.complex32}
ARRAYS = {np.dtype(code) for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8")}


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Splits a tree into tensors by name and a JSON skeleton that names them.

    Trees are nested dicts, lists and tuples of tensors, numpy arrays and scalars, numbers, strings, booleans and None.
    Keys of dicts are strings, numbers, booleans, None or tuples of these.

    Raises:
        TypeError: a leaf or a key that is none of these, or that could not come back as it is (sparse, quantized,
            masked, structured); the message names its place.
    """
    packer = _Packer()
    try:
        return packer.tensors, packer.walk(tree, ())
    except RecursionError:
        raise TypeError("a checkpoint holds trees; this one is nested too deeply, or contains itself") from None


def resolved(tensor: Tensor) -> Tensor:
    """The numbers of a tensor on the CPU, side by side in memory: not a conjugated, negated or strided view."""
    return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()


def separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as safetensors takes them: every name has its own copy, also of what is tied or a view of another.

    A module that ties its weights ties them again when they are loaded into it.

    Raises:
        TypeError: one of them cannot be stored; the message names it.
    """
    found: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in STORED or tensor.layout != torch.strided:
            kind = f"a {tensor.layout} tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else "not a tensor"
            raise TypeError(f"{name} is {kind}, which a safetensors file does not hold")
        own = resolved(tensor)
        if own.untyped_storage().data_ptr() in storages:
            own = own.clone()
        storages.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found


class _Packer:
    """Walks one tree."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}  # where a tensor lies in memory -> its name
        self._storages: set[int] = set()

    def walk(self, value: Any, place: Place) -> Any:
        """The skeleton of a value; its tensors join `self.tensors`."""
        if isinstance(value, Tensor):
            return self._tensor(value, place)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, place)
        if isinstance(value, dict):
            return self._dict(value, place)
        if isinstance(value, list | tuple):
            rows = [self.walk(v, (*place, str(i))) for i, v in enumerate(value)]
            return rows if isinstance(value, list) else {"$tuple": rows}
        if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
            return {"$float": repr(float(value))}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise _refused(place, f"is a {type(value).__name__}")

    def _dict(self, value: dict[Any, Any], place: Place) -> Any:
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: self.walk(v, (*place, _escaped(k))) for k, v in value.items()}
        for key in value:
            if not _is_key(key):
                raise _refused(place, f"has a {type(key).__name__} for a key")
        rows = ((k, v, _part(k)) for k, v in value.items())
        return {"$items": [[self.walk(k, (*place, f"%key{p}")), self.walk(v, (*place, p))] for k, v, p in rows]}

    def _tensor(self, value: Tensor, place: Place) -> Any:
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            kind = "a quantized" if value.is_quantized else "a meta" if value.is_meta else "a sparse or nested"
            raise _refused(place, f"is {kind} tensor; save a dense one")
        dtype = str(value.dtype).removeprefix("torch.")
        if value.dtype not in STORED and dtype not in AS_BYTES:
            raise _refused(place, f"is a tensor of {dtype}; convert it to a type that can be stored")
        where = (value.data_ptr(), value.device, value.shape, value.stride(), dtype, value.is_conj(), value.is_neg())
        name = self._names.get(where) if value.numel() else None
        if name is None:
            stored = resolved(value)
            if dtype in AS_BYTES:
                stored = stored.reshape(-1).view(torch.uint8)
            name = self._names[where] = self._store(stored, place)
        if dtype in AS_BYTES:
            return {"$tensor": name, "dtype": dtype, "shape": list(value.shape)}
        return {"$tensor": name}

    def _array(self, value: np.ndarray | np.generic, place: Place) -> Any:
        if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
            raise _refused(place, f"is a {type(value).__name__}; save plain arrays")
        if not _is_plain(value.dtype):
            raise _refused(place, f"is an array of {value.dtype}; save numbers, strings or dates, one array each")
        key = "$array" if isinstance(value, np.ndarray) else "$scalar"
        array = np.asarray(value, order="C")
        if array.dtype in ARRAYS and array.dtype.isnative:
            where = (array.ctypes.data, array.shape, array.dtype.str)
            if array is not value or not array.size:  # a copy, whose place in memory says nothing
                return {key: self._store(torch.from_numpy(array.copy()), place)}
            if where not in self._names:
                writable = array if array.flags.writeable else array.copy()
                self._names[where] = self._store(torch.from_numpy(writable), place)
            return {key: self._names[where]}
        raw = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
        return {key: self._store(raw, place), "dtype": array.dtype.str, "shape": list(array.shape)}

    def _store(self, tensor: Tensor, place: Place) -> str:
        """Gives a tensor the name of its place; a part of another tensor's memory becomes a copy."""
        storage = tensor.untyped_storage().data_ptr()
        if storage in self._storages:
            tensor = tensor.clone()
        self._storages.add(tensor.untyped_storage().data_ptr())
        name = ".".join(place)
        self.tensors[name] = tensor
        return name


def unpack(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `pack` took apart."""
    if isinstance(skeleton, list):
        return [unpack(v, tensors) for v in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "$tensor" in skeleton:
        tensor = tensors[skeleton["$tensor"]]
        if "dtype" in skeleton:
            return tensor.clone().view(AS_BYTES[skeleton["dtype"]]).reshape(skeleton["shape"])
        return tensor
    if "$array" in skeleton:
        return _array_of(tensors[skeleton["$array"]], skeleton)
    if "$scalar" in skeleton:
        return _array_of(tensors[skeleton["$scalar"]], skeleton)[()]
    if "$float" in skeleton:
        return float(skeleton["$float"])
    if "$tuple" in skeleton:
        return tuple(unpack(v, tensors) for v in skeleton["$tuple"])
    if "$items" in skeleton:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in skeleton["$items"]}
    return {k: unpack(v, tensors) for k, v in skeleton.items()}


def _array_of(tensor: Tensor, skeleton: dict[str, Any]) -> np.ndarray:
    array = tensor.numpy()
    if "dtype" not in skeleton:
        return array
    return np.frombuffer(bytearray(array.tobytes()), np.dtype(skeleton["dtype"])).reshape(skeleton["shape"])


def _is_plain(dtype: np.dtype) -> bool:
    """Whether numpy rebuilds a dtype from its short name: not of objects, nor with fields of its own."""
    try:
        return not dtype.hasobject and dtype.kind != "V" and np.dtype(dtype.str) == dtype
    except TypeError:
        return False


def _is_key(key: Any) -> bool:
    if isinstance(key, tuple):
        return all(map(_is_key, key))
    return key is None or isinstance(key, str | bool | int | float | np.number)


def _part(key: Any) -> str:
    """A key's part of a name; what is not a string differs from every string."""
    return _escaped(key) if isinstance(key, str) else "$" + _escaped(repr(key))


def _escaped(key: str) -> str:
    for sign in ("%", ".", "$"):
        key = key.replace(sign, f"%{ord(sign):02X}")
    return "%" + key if key == "__metadata__" else key  # safetensors' own


def _refused(place: Place, what: str) -> TypeError:
    where = ".".join(place) or "it"
    return TypeError(f"a checkpoint holds tensors, arrays and JSON values; {where} {what}")
