"""Document mask: packed sequences do not see each other."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant


@jit
def _at(table, b, position):
    pointer, stride_b, stride_l = table
    return tl.load(pointer + b.to(tl.int64) * stride_b + position * stride_l)


@jit
def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return _at(args[0], b, q_idx) == _at(args[0], b, kv_idx)


@jit
def _bounds(b, h, first, last, seqlen_q, seqlen_k, args):
    starts, ends = args
    return _at(starts, b, first), _at(ends, b, last), _at(starts, b, last), _at(ends, b, first)


def _torch_mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    starts = args[0]
    b = b if starts.shape[0] > 1 else 0 * b
    return starts[b, q_idx] == starts[b, kv_idx]


def _torch_key_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args):
    starts, ends = (table[b if table.shape[0] > 1 else 0] for table in args)
    return int(starts[q_first]), int(ends[q_last]), int(starts[q_last]), int(ends[q_first])


def _check(args, shape: Shape):
    starts = args[0]
    if starts.shape[1] != shape.seqlen_k or starts.shape[0] not in (1, shape.batch):
        raise ValueError(
            f"ids: expected shape ({shape.seqlen_k},) or ({shape.batch}, {shape.seqlen_k}), "
            f"one per key, got {tuple(starts.shape)}"
        )
    if shape.seqlen_q > shape.seqlen_k:
        raise ValueError(
            f"ids: expected no more queries than keys, got {shape.seqlen_q} and {shape.seqlen_k}"
        )
    if starts.device != shape.device:
        raise ValueError(f"ids: expected device {shape.device}, got {starts.device}")


_DOCUMENT = define_variant(
    "document",
    mask=_mask,
    torch_mask=_torch_mask,
    key_bounds=_bounds,
    query_bounds=_bounds,
    torch_key_bounds=_torch_key_bounds,
    batched_bounds=True,
    check=_check,
)


def document(ids: torch.Tensor) -> Variant:
    """Block-diagonal attention for packed sequences: a query sees its own document only.

    ``ids``: integer tensor, shape (seqlen_k,) or (batch, seqlen_k), on the device of the inputs.
    Each run of equal ids is one document; an id that occurs again later begins another document.
    The queries are at the last seqlen_q positions, as for all variants.

    Raises TypeError if ``ids`` is not an integer tensor, ValueError if its shape or device does
    not fit, or if there are more queries than keys.
    """
    check_plain("ids", ids)
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ids: expected dtype int32 or int64, got {ids.dtype}")
    if ids.ndim not in (1, 2):
        raise ValueError(f"ids: expected shape (L,) or (batch, L), got {tuple(ids.shape)}")
    return _DOCUMENT(*_runs(ids if ids.ndim == 2 else ids[None]))


def _runs(ids):
    """The start and the end of the run of equal ids around every position; int32."""
    length = ids.shape[1]
    position = torch.arange(length, device=ids.device).expand_as(ids)
    changes = ids[:, 1:] != ids[:, :-1]
    edge = torch.ones_like(ids[:, :1], dtype=torch.bool)[:, :length]
    first, last = torch.cat([edge, changes], 1), torch.cat([changes, edge], 1)
    starts = torch.where(first, position, 0).cummax(1).values
    ends = torch.where(last, position + 1, length).flip(1).cummin(1).values.flip(1)
    return starts.to(torch.int32), ends.to(torch.int32)
