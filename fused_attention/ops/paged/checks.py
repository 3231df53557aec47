"""Checks of a paged KV cache and its metadata.

Shapes and dtypes are checked on every device.  The values of the metadata (block table, lengths,
slots) are checked on the CPU only: on a GPU, reading them would wait for the device, so the caller
must check them on the host, as `PagedKVCache` does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch

from ...plain import check_plain
from ..attention.checks import MAX_HEAD_DIM
from ..checks import check_dense
from .quantization import FLOATS, LARGEST, NARROWER


class Lengths(NamedTuple):
    """The metadata of a batch as Python ints: where queries begin, and the numbers of keys."""

    cu_seqlens_q: list[int]
    seq_lens: list[int]

    @property
    def max_seqlen_q(self) -> int:
        return max((stop - start for start, stop in pairwise(self.cu_seqlens_q)), default=0)


def check_no_gradient(op: str, **tensors) -> None:
    """Raise NotImplementedError if one of ``tensors`` requires a gradient: ``op`` has none."""
    for name, x in tensors.items():
        if torch.is_grad_enabled() and isinstance(x, torch.Tensor) and x.requires_grad:
            raise NotImplementedError(
                f"{name}: expected a tensor without requires_grad, for {op} has no gradient; "
                "call it under torch.no_grad(), or detach()"
            )


def check_tensor(name: str, x, dtypes, shape: str, like: torch.Tensor | None = None) -> None:
    """Check that ``x`` is dense, of one of ``dtypes``, with as many dimensions as ``shape``."""
    check_dense(name, x, dtypes)
    if x.ndim != shape.count(",") + (not shape.endswith(",)")):
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name}: expected the device of kv, {like.device}, got {x.device}")


def check_contiguous(name: str, x: torch.Tensor, dims: str = "last dimension") -> None:
    if dims == "last dimension" and (x.shape[-1] <= 1 or x.numel() == 0 or x.stride(-1) == 1):
        return
    if dims != "last dimension" and x.is_contiguous():
        return
    raise ValueError(
        f"{name}: expected contiguous {dims}, got strides {x.stride()}; pass {name}.contiguous()"
    )


def check_storage(kv, scales) -> None:
    """Check the cache of a layer, which has scales if and only if it is quantized."""
    check_tensor(
        "kv",
        kv,
        (*FLOATS, *LARGEST),
        "(num_blocks, 2, page_size, kv_heads, head_dim)",
    )
    num_blocks, two, page_size, kv_heads, head_dim = kv.shape
    if two != 2:
        raise ValueError(f"kv: expected 2, keys and values, in dimension 1, got {two}")
    if page_size == 0 or page_size % 16:
        raise ValueError(f"kv: expected a page_size that is a multiple of 16, got {page_size}")
    if not 1 <= head_dim <= MAX_HEAD_DIM:
        raise ValueError(f"kv: expected head_dim from 1 to {MAX_HEAD_DIM}, got {head_dim}")
    check_contiguous("kv", kv)
    if kv.dtype not in LARGEST:
        if scales is not None:
            raise ValueError(f"scales: expected None, for {kv.dtype} is stored as it is, got some")
        return
    if scales is None:
        raise ValueError(f"scales: expected a tensor, for kv is stored in {kv.dtype}, got None")
    if not isinstance(scales, torch.Tensor) or scales.dtype != torch.float32:
        raise TypeError(f"scales: expected a float32 tensor, got {_kind(scales)}")
    check_plain("scales", scales)
    shapes = ((2, kv_heads), (num_blocks, 2, page_size, kv_heads))
    if tuple(scales.shape) not in shapes:
        raise ValueError(
            f"scales: expected shape {shapes[0]}, per head, or {shapes[1]}, per token, "
            f"got {tuple(scales.shape)}"
        )
    if scales.device != kv.device:
        raise ValueError(f"scales: expected the device of kv, {kv.device}, got {scales.device}")
    check_contiguous("scales", scales, "dimensions")


def check_fits(name: str, x: torch.Tensor, kv: torch.Tensor) -> None:
    """Check that ``x`` has the head_dim of ``kv``, and a dtype at least as wide."""
    if x.shape[2] != kv.shape[4]:
        raise ValueError(f"{name}: expected the head_dim of kv, {kv.shape[4]}, got {x.shape[2]}")
    if kv.dtype not in (x.dtype, *NARROWER.get(x.dtype, ()), *LARGEST):
        raise TypeError(
            f"{name}: expected the dtype of kv, {kv.dtype}, or a wider one, got {x.dtype}"
        )
    check_contiguous(name, x)


def check_slots(slots: torch.Tensor, kv: torch.Tensor) -> None:
    """Check that slots are -1 or in the pool, and that no two tokens share one; CPU only."""
    end = kv.shape[0] * kv.shape[2]
    outside = (slots < -1) | (slots >= end)
    if outside.any():
        token = int(outside.nonzero()[0])
        raise ValueError(
            f"slot_mapping: expected slots from -1 to {end - 1}, got {int(slots[token])} "
            f"for token {token}"
        )
    used = slots[slots >= 0].sort().values
    twice = used[1:] == used[:-1]
    if twice.any():
        raise ValueError(
            f"slot_mapping: expected every slot once, got {int(used[1:][twice][0])} twice"
        )


def check_pairs(pairs: torch.Tensor, num_blocks: int) -> None:
    """Check that blocks are in the pool, and that no copy writes what another reads or writes."""
    outside = (pairs < 0) | (pairs >= num_blocks)
    if outside.any():
        raise ValueError(
            f"pairs: expected blocks from 0 to {num_blocks - 1}, got {int(pairs[outside][0])}"
        )
    source, destination = pairs.unbind(1)
    ordered = destination.sort().values
    if (ordered[1:] == ordered[:-1]).any() or torch.isin(source, destination).any():
        raise ValueError(
            f"pairs: expected destinations that occur once and are no sources, got {pairs.tolist()}"
        )


def read_lengths(
    kv, block_table, seq_lens, cu_seqlens_q, num_tokens: int, max_seqlen_q: int | None
) -> Lengths:
    """The metadata as Python ints, after checking it against block table and pool; CPU only."""
    ends, lengths = found = Lengths(cu_seqlens_q.tolist(), seq_lens.tolist())
    if ends[0] != 0 or ends[-1] != num_tokens or ends != sorted(ends):
        raise ValueError(
            f"cu_seqlens_q: expected 0, then ascending to the {num_tokens} tokens of q, got {ends}"
        )
    if max_seqlen_q is not None and found.max_seqlen_q > max_seqlen_q:
        raise ValueError(
            f"max_seqlen_q: expected at least the {found.max_seqlen_q} tokens of a sequence, "
            f"got {max_seqlen_q}"
        )
    num_blocks, page_size = kv.shape[0], kv.shape[2]
    capacity = block_table.shape[1] * page_size
    for index, length in enumerate(lengths):
        if not 0 <= length <= capacity:
            raise ValueError(
                f"seq_lens: expected lengths from 0 to the {capacity} slots of a row of "
                f"block_table, got {length} for sequence {index}"
            )
    column = torch.arange(block_table.shape[1], dtype=seq_lens.dtype)
    owned = column * page_size < seq_lens[:, None]
    outside = owned & ((block_table < 0) | (block_table >= num_blocks))
    if outside.any():
        index, page = outside.nonzero()[0].tolist()
        raise ValueError(
            f"block_table: expected blocks from 0 to {num_blocks - 1}, "
            f"got {int(block_table[index, page])} for page {page} of sequence {index}"
        )
    return found


def _kind(x) -> str:
    return str(x.dtype) if isinstance(x, torch.Tensor) else type(x).__name__
