"""An attention variant: hooks for the kernels, their torch twins for everything else, arguments.

Index conventions, the same in a hook and in its torch twin:

    b, h              batch and query head; scalars in a kernel (h is a column if a tile has rows of
                      several heads), broadcastable tensors in torch
    q_idx, kv_idx     positions in key coordinates: q_idx = row + seqlen_k - seqlen_q
    s                 scaled scores, fp32 in a kernel
    args              the variant's arguments, in the order they were given

A kernel hook receives a scalar argument unchanged, and a tensor argument as a tuple
``(pointer, stride_0, stride_1, ...)`` with stride 0 along dimensions of size 1, so that
broadcasting needs no code in the hook.  A torch twin receives the tensor; a 4-D tensor, which must
be broadcastable to ``(batch, heads, seqlen_q, seqlen_k)``, is cut to the current tile, unless it is
a table (``torch_arg_index``), which a twin always receives whole.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch

from .._triton import expose_language
from ..plain import check_plain
from .hooks import check_definition

_TYPES: dict[str, VariantType] = {}
# Operators carry scalar arguments as floats.
_LARGEST_INT = 2**53


class Shape(NamedTuple):
    """The sizes and the device of an attention call, passed to the ``check`` of a variant."""

    batch: int
    num_heads: int
    seqlen_q: int
    seqlen_k: int
    device: torch.device

    @classmethod
    def of(cls, q: torch.Tensor, k: torch.Tensor) -> Shape:
        """From q (batch, heads, seqlen_q, head_dim) and k (batch, kv_heads, seqlen_k, head_dim)."""
        return cls(*q.shape[:3], k.shape[2], q.device)

    def indices(self, batch: slice, rows: slice, keys: slice):
        """The arguments b, h, q_idx, kv_idx, seqlen_q, seqlen_k of a torch twin for a tile.

        The four indices are 4-D tensors, each along its own dimension, so that they broadcast to
        the scores of the tile.
        """
        offset = self.seqlen_k - self.seqlen_q
        ranges = (
            (batch.start, batch.stop),
            (0, self.num_heads),
            (rows.start + offset, rows.stop + offset),
            (keys.start, keys.stop),
        )
        indices = (
            torch.arange(*ends, device=self.device).view([-1 if d == i else 1 for d in range(4)])
            for i, ends in enumerate(ranges)
        )
        return *indices, self.seqlen_q, self.seqlen_k


@dataclass(frozen=True, eq=False)
class VariantType:
    """A kind of variant: a name and hooks.  Calling it with arguments gives a `Variant`.

    Made by `define_variant`, which documents the fields.
    """

    name: str
    mask: Callable | None = None
    torch_mask: Callable | None = None
    score: Callable | None = None
    torch_score: Callable | None = None
    score_grad: Callable | None = None
    torch_score_grad: Callable | None = None
    additive: bool = False
    arg_grad: Callable | None = None
    torch_arg_grad: Callable | None = None
    torch_arg_index: Callable | None = None
    sink_logit: Callable | None = None
    key_bounds: Callable | None = None
    query_bounds: Callable | None = None
    torch_key_bounds: Callable | None = None
    batched_bounds: bool = False
    check: Callable[[Sequence[Any], Shape], None] | None = None
    module: str = ""

    def __call__(self, *args: torch.Tensor | int | float) -> Variant:
        for position, arg in enumerate(args):
            if not isinstance(arg, (torch.Tensor, int, float, torch.SymInt, torch.SymFloat)):
                raise TypeError(
                    f"{self.name}: argument {position} must be a tensor, an int or a float, "
                    f"got {type(arg).__name__}"
                )
            if isinstance(arg, int) and abs(arg) > _LARGEST_INT:
                raise ValueError(
                    f"{self.name}: argument {position} must be an int from -2**53 to 2**53, "
                    f"which an operator carries exactly, got {arg}"
                )
            if isinstance(arg, torch.Tensor):
                check_plain(f"{self.name}: argument {position}", arg)
        return Variant(self, args)

    def __reduce__(self):
        """Pickled by reference, as functions are: by the name that holds it in its module."""
        module = sys.modules.get(self.module)
        for attribute, value in vars(module).items() if module else ():
            if isinstance(value, VariantType) and value.name == self.name:
                return _imported, (self.module, attribute)
        raise pickle.PicklingError(
            f"variant {self.name!r}: cannot be pickled, for no name at the top level of module "
            f"{self.module!r} holds it; assign what define_variant returns to one"
        )

    def __copy__(self) -> VariantType:
        return self

    def __deepcopy__(self, memo) -> VariantType:
        return self


def _imported(module: str, attribute: str) -> VariantType:
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, eq=False)
class Variant:
    """An attention variant with its arguments: an immutable value to pass to `attention`.

    It can be copied, deep-copied and pickled (``torch.load`` then needs ``weights_only=False``) if
    its type is held by a name at the top level of a module, as the built-in ones are.
    """

    type: VariantType
    args: tuple

    @property
    def name(self) -> str:
        return self.type.name

    def torch_mask(self, b, h, q_idx, kv_idx, seqlen_q=None, seqlen_k=None) -> torch.Tensor:
        """Boolean tensor, True where a query may see a key; broadcastable over the indices."""
        return self.type.torch_mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, self.args)

    def torch_score(self, s, b, h, q_idx, kv_idx, seqlen_q=None, seqlen_k=None) -> torch.Tensor:
        """The scores ``s`` after this variant."""
        return self.type.torch_score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, self.args)

    def tile(self, batch: slice, rows: slice, keys: slice) -> Variant:
        """This variant with its 4-D tensor arguments, but for a table, cut to a tile (views)."""
        tables = 0 if self.type.torch_arg_index is None else 1
        cut = tuple(
            _cut(arg, batch, rows, keys) if isinstance(arg, torch.Tensor) and arg.ndim == 4 else arg
            for arg in self.args[tables:]
        )
        return Variant(self.type, self.args[:tables] + cut)

    def __repr__(self) -> str:
        shown = (f"tensor{tuple(a.shape)}" if isinstance(a, torch.Tensor) else a for a in self.args)
        return f"{self.name}({', '.join(map(str, shown))})"


def _cut(tensor, batch, rows, keys):
    sizes = tensor.shape
    return tensor[
        batch if sizes[0] > 1 else slice(None),
        :,
        rows if sizes[2] > 1 else slice(None),
        keys if sizes[3] > 1 else slice(None),
    ]


def define_variant(name: str, **hooks) -> VariantType:
    """Define an attention variant.  Calling the result with arguments gives a `Variant`.

    A variant is a mask, a score or both, or else an extra logit.  A mask or a score consists of a
    ``@triton.jit`` hook, which the kernels call, and a torch twin that computes the same:

    ``mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args) -> bool``
        with ``torch_mask`` of the same signature.
    ``score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args) -> s``
        with ``torch_score``.  If the hook only adds something that does not depend on ``s``, pass
        ``additive=True``; otherwise pass the derivative,
        ``score_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args) -> ds`` and
        ``torch_score_grad``, where ``s_in`` and ``s_out`` are the scores before and after.
    ``arg_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args) -> contribution``
        with ``torch_arg_grad``, optional: the contribution of every score to the gradient of the
        first argument, a tensor.  Contributions are summed over the dimensions in which it has
        size 1; it must be 4-D, or else have a ``torch_arg_index``.
    ``torch_arg_index(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args) -> index``
        if the first argument is a table, of any shape, of which every score reads one entry:
        where.  An int64 tensor broadcastable to the scores, the index into the flattened table
        (row-major, whatever its strides), valid for every query and key, masked or not.  The
        kernels need no such function; contributions are added up in a fixed order.
    ``key_bounds(b, h, q_first, q_last, seqlen_q, seqlen_k, args) -> lo, hi, full_lo, full_hi``
        optional, for masks: the keys ``[lo, hi)`` that any of the queries ``q_first..q_last``
        (inclusive) can see, and the keys ``[full_lo, full_hi)`` that all of them see.  The first
        range may be too large and the second too small, never the reverse; both are clipped to the
        existing keys.  ``query_bounds(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args)`` gives
        the same two ranges of queries (which begin at ``seqlen_k - seqlen_q``) for a range of keys.
        ``torch_key_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args)`` works on Python ints;
        ``b`` is a batch index if ``batched_bounds`` is set, else None.
    ``sink_logit(args) -> logits``
        instead of a mask and a score: a differentiable PyTorch function that returns an extra logit
        per query head, (heads,).  The logit joins every softmax of the head, with a zero value.
    ``check(args, shape)``
        optional: raise ValueError or TypeError if the arguments do not fit the `Shape`.

    Raises TypeError if a hook is unknown, is or is not a ``@triton.jit`` function where the other
    is expected, or has other parameters than above; ValueError if a hook has no twin, if hooks do
    not go together, or if another module has defined ``name`` already.  What shows only when hooks
    are called is found by `fused_attention.check_variant`.
    """
    check_definition(name, hooks)
    for hook in hooks.values():
        expose_language(hook)
    kind = VariantType(name, **hooks, module=_module_of(hooks))
    known = _TYPES.get(name)
    if known is not None and known.module != kind.module:
        raise ValueError(f"variant {name!r} is already defined by module {known.module!r}")
    _TYPES[name] = kind
    return kind


def _module_of(hooks):
    twin = hooks.get("torch_mask") or hooks.get("torch_score") or hooks.get("sink_logit")
    return getattr(twin, "__module__", "")


def as_variants(variants: Variant | Sequence[Variant]) -> tuple[Variant, ...]:
    """A tuple of variants from one variant or a sequence; TypeError for anything else."""
    if isinstance(variants, (Variant, str)) or not isinstance(variants, Iterable):
        variants = (variants,)
    variants = tuple(variants)
    for item in variants:
        if not isinstance(item, Variant):
            hint = " (call it: it is a function)" if callable(item) else ""
            raise TypeError(f"variants: expected Variant values, got {item!r}{hint}")
    return variants


def encode(variants: Sequence[Variant]) -> tuple[str, list[torch.Tensor], list[float]]:
    """Variants in types that an operator schema allows: a string, tensors and floats.

    The string has the name of each variant and a letter per argument: t(ensor), i(nt), f(loat).
    """
    words, tensors, scalars = [], [], []
    for variant in variants:
        codes = ""
        for arg in variant.args:
            if isinstance(arg, torch.Tensor):
                codes += "t"
                tensors.append(arg)
            else:
                codes += "i" if isinstance(arg, (Integral, torch.SymInt)) else "f"
                scalars.append(float(arg))
        words.append(f"{variant.name}:{codes}")
    return " ".join(words), tensors, scalars


def decode(spec: str, tensors: Sequence[torch.Tensor], scalars: Sequence[float]):
    """The inverse of `encode`."""
    tensors, scalars = iter(tensors), iter(scalars)
    readers = {
        "t": lambda: next(tensors),
        "i": lambda: int(next(scalars)),
        "f": lambda: next(scalars),
    }
    variants = []
    for word in spec.split():
        name, codes = word.split(":")
        if name not in _TYPES:
            raise ValueError(f"variant {name!r} is not defined in this process; import its module")
        variants.append(Variant(_TYPES[name], tuple(readers[code]() for code in codes)))
    return tuple(variants)
