"""Checks of the arguments of attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...variants.base import Shape, Variant
from ..checks import check_floating

MAX_HEAD_DIM = 256  # of the kernels
PAD = "; pad it and say where with key_padding(lengths)"


def check_tensors(q, k, v, names: Sequence[str] = ("q", "k", "v")) -> None:
    """Check types, dtypes, devices, ranks and shapes of queries, keys and values."""
    q_name, k_name, v_name = names
    for name, x in zip(names, (q, k, v), strict=True):
        check_floating(name, x, hint=PAD)
        if x.ndim != 4:
            raise ValueError(
                f"{name}: expected 4 dimensions (batch, heads, seqlen, head_dim), "
                f"got shape {tuple(x.shape)}"
            )
    for name, x in ((k_name, k), (v_name, v)):
        if x.dtype != q.dtype:
            raise TypeError(f"{name}: expected the dtype of {q_name}, {q.dtype}, got {x.dtype}")
        for what, want, got in (
            ("device", q.device, x.device),
            ("batch", q.shape[0], x.shape[0]),
        ):
            if got != want:
                raise ValueError(f"{name}: expected the {what} of {q_name}, {want}, got {got}")
    if k.shape[3] != q.shape[3]:
        raise ValueError(
            f"{k_name}: expected the head_dim of {q_name}, {q.shape[3]}, got {k.shape[3]}"
        )
    for axis, what in ((1, "heads"), (2, "seqlen")):
        if v.shape[axis] != k.shape[axis]:
            raise ValueError(
                f"{v_name}: expected the {what} of {k_name}, {k.shape[axis]}, got {v.shape[axis]}"
            )
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        raise ValueError(
            f"{k_name}: expected a number of heads that divides {q_name}'s {heads}, got {kv_heads}"
        )


def check_head_dims(q, k, v) -> None:
    """Check that head_dim is at least 1 and its dimension contiguous."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.shape[3] < 1:
            raise ValueError(f"{name}: expected head_dim of at least 1, got {x.shape[3]}")
        if x.stride(3) != 1 and x.shape[3] > 1 and x.numel() > 0:
            raise ValueError(
                f"{name}: expected a contiguous last dimension, got stride {x.stride(3)}; "
                f"pass {name}.contiguous()"
            )


def check_variants(q, k, variants: Sequence[Variant]) -> None:
    """Check the variants' arguments against q and k, and that required gradients exist."""
    shape = Shape.of(q, k)
    for variant in variants:
        if variant.type.check is not None:
            variant.type.check(variant.args, shape)
        for position, arg in enumerate(variant.args):
            if not (isinstance(arg, torch.Tensor) and arg.requires_grad):
                continue
            if variant.type.sink_logit is not None:
                continue  # differentiated by PyTorch
            if variant.type.arg_grad is None or position > 0:
                raise NotImplementedError(
                    f"variants: {variant.name} has no gradient for its argument {position}; "
                    "detach() it, or give the variant an arg_grad"
                )
            is_table = variant.type.torch_arg_index is not None
            if torch.is_grad_enabled() and arg.ndim != 4 and not is_table:
                raise ValueError(
                    f"variants: {variant.name} needs a 4-D argument, or a torch_arg_index, to give "
                    f"it a gradient, got shape {tuple(arg.shape)}"
                )
