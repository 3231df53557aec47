"""Append to a paged KV cache: the public function and its registered operator."""

from __future__ import annotations

import torch

from .. import backend
from ..registration import define
from . import checks
from .quantization import FLOATS


def paged_append(
    k: torch.Tensor,
    v: torch.Tensor,
    kv: torch.Tensor,
    slot_mapping: torch.Tensor,
    scales: torch.Tensor | None = None,
) -> None:
    """Write the keys and values of new tokens into their slots of ``kv``, in place.

    Args:
        k, v: (tokens, kv_heads, head_dim), of one floating dtype; any strides with a contiguous
            last dimension.
        kv: (num_blocks, 2, page_size, kv_heads, head_dim), keys and values of one layer; fp16,
            bf16, fp32 or fp64, not wider than k, or int8 or float8_e4m3fn, which need ``scales``.
        slot_mapping: (tokens,), int64: ``block * page_size + offset`` of every token.  Slots are
            distinct; a token with slot -1 is not written.
        scales: fp32, contiguous, for 8-bit storage only: a stored number x means x * scale.
            Scales per head, (2, kv_heads), are read, and finite keys and values out of range
            saturate.  Scales per token, (num_blocks, 2, page_size, kv_heads), are written, so that
            every token and head is in range.

    There is no infinity in 8 bits: NaN and infinities are read back as NaN, with scales per token
    the token's whole head.  In int8, -128 is NaN.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; on the CPU also
            slots outside the pool or used twice.  Nothing is written then.  On a GPU the slots are
            not read back: check them on the host.
        NotImplementedError: k, v or kv requires a gradient; the op has none.
    """
    checks.check_storage(kv, scales)
    for name, x in (("k", k), ("v", v)):
        checks.check_tensor(name, x, FLOATS, "(tokens, kv_heads, head_dim)", kv)
        checks.check_fits(name, x, kv)
        if x.shape[1] != kv.shape[3]:
            raise ValueError(f"{name}: expected the {kv.shape[3]} heads of kv, got {x.shape[1]}")
    if v.dtype != k.dtype:
        raise TypeError(f"v: expected the dtype of k, {k.dtype}, got {v.dtype}")
    if v.shape[0] != k.shape[0]:
        raise ValueError(f"v: expected the {k.shape[0]} tokens of k, got {v.shape[0]}")
    checks.check_tensor("slot_mapping", slot_mapping, (torch.int64,), "(tokens,)", kv)
    if slot_mapping.shape[0] != k.shape[0]:
        raise ValueError(
            f"slot_mapping: expected the {k.shape[0]} tokens of k, got {slot_mapping.shape[0]}"
        )
    checks.check_no_gradient("paged_append", k=k, v=v, kv=kv)
    _paged_append(k.detach(), v.detach(), kv, slot_mapping, scales)


def _append(k, v, kv, slot_mapping, scales):
    if k.device.type == "cpu":
        checks.check_slots(slot_mapping, kv)
    if k.shape[0] > 0 and kv.numel() > 0:
        backend.of("paged", k).append(k, v, kv, slot_mapping, scales)


_paged_append = define(
    "paged_append(Tensor k, Tensor v, Tensor(a!) kv, Tensor slot_mapping, Tensor(b!)? scales) "
    "-> ()",
    _append,
    lambda k, v, kv, slot_mapping, scales: None,
)
