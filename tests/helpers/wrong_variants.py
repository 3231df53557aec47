"""Variants with one mistake each, which `fa.check_variant` must find: a window, a bend, a table."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fused_attention import define_variant

from . import custom_variants


@triton.jit
def _window(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0])


@triton.jit
def _window_keys(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    return q_first - args[0], q_last + 1, q_last - args[0], q_first + 1


@triton.jit
def _window_queries(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    return kv_first, kv_last + args[0] + 1, kv_last, kv_first + args[0] + 1


def _torch_window(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0])


def _torch_window_keys(b, q_first, q_last, seqlen_q, seqlen_k, args):
    return q_first - args[0], q_last + 1, q_last - args[0], q_first + 1


WINDOW = {
    "mask": _window,
    "torch_mask": _torch_window,
    "key_bounds": _window_keys,
    "query_bounds": _window_queries,
    "torch_key_bounds": _torch_window_keys,
}


def _torch_bend(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s - args[0] * s * s


def _torch_bend_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * (1 - 2 * args[0] * s_in)


# The twins are of this module, by which another process finds a variant.
BEND = {
    "score": custom_variants.BEND.score,
    "torch_score": _torch_bend,
    "score_grad": custom_variants.BEND.score_grad,
    "torch_score_grad": _torch_bend_grad,
}


@triton.jit
def _table(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_h, stride_k = args[0]
    return s + 3 * tl.load(pointer + h * stride_h + kv_idx % 4 * stride_k)


@triton.jit
def _table_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return 3 * ds


def _torch_table(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s + 3 * args[0].to(s.dtype)[h, kv_idx % 4]


def _torch_table_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return 3 * ds


def _table_index(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return h * 4 + kv_idx % 4


TABLE = {
    "score": _table,
    "torch_score": _torch_table,
    "additive": True,
    "arg_grad": _table_grad,
    "torch_arg_grad": _torch_table_grad,
    "torch_arg_index": _table_index,
}


# The kernel hooks with mistakes.


@triton.jit
def _narrower(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (kv_idx <= q_idx) & (kv_idx > q_idx - args[0])


@triton.jit
def _of_its_tile(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    within = kv_idx - tl.min(tl.min(kv_idx, 1), 0)
    return (within <= q_idx) & (within >= q_idx - args[0])


@triton.jit
def _of_rows(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    rows_first: tl.constexpr = q_idx.shape[0] >= q_idx.shape[1]
    if rows_first:
        seen = (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0])
    else:
        seen = kv_idx <= q_idx
    return seen


@triton.jit
def _keys_too_narrow(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    return q_first - args[0] + 1, q_last + 1, q_last - args[0], q_first + 1


@triton.jit
def _all_keys_too_wide(b, h, q_first, q_last, seqlen_q, seqlen_k, args):
    return q_first - args[0], q_last + 1, q_last - args[0], q_first + 2


@triton.jit
def _queries_too_narrow(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    return kv_first, kv_last + args[0], kv_last, kv_first + args[0] + 1


@triton.jit
def _all_queries_too_wide(b, h, kv_first, kv_last, seqlen_q, seqlen_k, args):
    return kv_first, kv_last + args[0] + 1, kv_first, kv_first + args[0] + 1


@triton.jit
def _bend_more(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s - 1.001 * args[0] * s * s


@triton.jit
def _bend_at_one_key(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return tl.where((h == 1) & (kv_idx == 11), s, s - args[0] * s * s)


@triton.jit
def _bend_grad_at_the_output(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * (1 - 2 * args[0] * s_out)


@triton.jit
def _table_grad_without_factor(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds


@triton.jit
def _with_a_typo(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s + undefined_name  # noqa: F821


# And the twins.


def _torch_of_its_tile(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    kv_idx = torch.arange(kv_idx.shape[3]).view(kv_idx.shape)
    return (kv_idx <= q_idx) & (kv_idx >= q_idx - args[0])


def _torch_as_a_number(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return _torch_window(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args).float()


def _torch_without_keys(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return torch.ones(seqlen_q, seqlen_k + 1, dtype=torch.bool)


def _torch_keys_of_the_last(b, q_first, q_last, seqlen_q, seqlen_k, args):
    """Right for one query, too narrow for several."""
    return q_last - args[0], q_last + 1, q_last - args[0], q_first + 1


def _torch_all_keys_of_the_last(b, q_first, q_last, seqlen_q, seqlen_k, args):
    """Right for one query, too wide for several."""
    return q_first - args[0], q_last + 1, q_last - args[0], q_last + 1


def _torch_bend_of_a_row(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (s - args[0] * s * s)[:, :, :1]


def _torch_bend_of_the_tile(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s - args[0] * s * s.amax(-1, keepdim=True)


def _torch_bend_of_a_half(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return (s - args[0] * s * s).half()


def _torch_bend_grad_of_s(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * (1 - args[0] * s_in)


def _torch_table_twice(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return 2 * s + 3 * args[0].to(s.dtype)[h, kv_idx % 4]


def _torch_bend_in_place(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s.sub_(args[0] * s * s)


def _torch_bend_without_grad(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    """A formula for speed, as `softcap` has one, which is wrong."""
    if torch.is_grad_enabled():
        return s - args[0] * s * s
    return s - args[0] * s * s * 1.001


def _torch_bend_grad_in_place(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds * s_in.mul_(-2 * args[0]).add_(1)


def _torch_table_grad_in_place(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds.mul_(3)


class Wrong(NamedTuple):
    """A set of hooks above, what replaces some of them, and what is said about it."""

    hooks: dict
    mistake: dict
    message: str

    def make(self, name: str):
        """What `check_variant` takes."""
        kind = define_variant(f"test_wrong_{name}", **{**self.hooks, **self.mistake})
        if self.hooks is TABLE:
            return lambda shape: kind(torch.randn(shape.num_heads, 4))
        return kind(5 if self.hooks is WINDOW else 0.25)


def _bounds_of(**change: int):
    """Bounds of the window for torch, with one of them changed."""
    order = ("lo", "hi", "full_lo", "full_hi")

    def torch_key_bounds(b, q_first, q_last, seqlen_q, seqlen_k, args):
        right = _torch_window_keys(b, q_first, q_last, seqlen_q, seqlen_k, args)
        return tuple(x + change.get(name, 0) for name, x in zip(order, right, strict=True))

    return {"torch_key_bounds": torch_key_bounds}


def _indices(offset: int = 0, dtype: torch.dtype = torch.int64):
    return {
        "torch_arg_index": lambda b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args: (
            h * 4 + (kv_idx + 1) % 4 + offset
        ).to(dtype)
    }


IN_TORCH = {
    "mask_dtype": Wrong(
        WINDOW, {"torch_mask": _torch_as_a_number}, "torch_mask: .* torch.bool, got torch.float32"
    ),
    "mask_shape": Wrong(
        WINDOW, {"torch_mask": _torch_without_keys}, "torch_mask: .* broadcastable to"
    ),
    "mask_tile": Wrong(
        WINDOW, {"torch_mask": _torch_of_its_tile}, "torch_mask: .* not a slice of the whole mask"
    ),
    "score_shape": Wrong(
        BEND, {"torch_score": _torch_bend_of_a_row}, "torch_score: .* the shape of the scores"
    ),
    "score_dtype": Wrong(
        BEND, {"torch_score": _torch_bend_of_a_half}, "torch_score: .* expected dtype"
    ),
    "score_tile": Wrong(
        BEND, {"torch_score": _torch_bend_of_the_tile}, "torch_score: .* not a slice of all scores"
    ),
    "torch_keys_too_narrow": Wrong(
        WINDOW,
        _bounds_of(lo=1),
        r"torch_key_bounds: .* it gives keys \[.*, but key \d+ is seen too",
    ),
    "torch_keys_of_the_last": Wrong(
        WINDOW, {"torch_key_bounds": _torch_keys_of_the_last}, "torch_key_bounds: .* is seen too"
    ),
    "torch_all_keys_of_the_last": Wrong(
        WINDOW,
        {"torch_key_bounds": _torch_all_keys_of_the_last},
        r"torch_key_bounds: .* all of the queries see keys .*, but one does not see key",
    ),
    "torch_keys_end_early": Wrong(WINDOW, _bounds_of(hi=-1), "torch_key_bounds: .* is seen too"),
    "torch_all_keys_too_wide": Wrong(
        WINDOW, _bounds_of(full_hi=1), "torch_key_bounds: .* says that all of the queries see"
    ),
    "torch_all_keys_too_early": Wrong(
        WINDOW, _bounds_of(full_lo=-1), "torch_key_bounds: .* says that all of the queries see"
    ),
    "torch_score_grad": Wrong(
        BEND,
        {"torch_score_grad": _torch_bend_grad_of_s},
        "torch_score_grad: not the derivative of torch_score at batch .*: expected .*, got",
    ),
    "additive": Wrong(
        {**BEND, "score_grad": None, "torch_score_grad": None},
        {"additive": True},
        "additive: torch_score adds another number to other scores",
    ),
    "twice_is_not_additive": Wrong(
        TABLE, {"torch_score": _torch_table_twice}, "additive: torch_score adds another number"
    ),
    "torch_arg_grad": Wrong(
        TABLE,
        {"torch_arg_grad": lambda ds, *rest: ds},
        "torch_arg_grad: not the derivative of torch_score .* entry",
    ),
    "torch_arg_grad_shape": Wrong(
        TABLE,
        {"torch_arg_grad": lambda ds, *rest: 3 * ds[:, :, :1]},
        "torch_arg_grad: .* a contribution of every score",
    ),
    "score_in_place": Wrong(
        BEND, {"torch_score": _torch_bend_in_place}, "torch_score: .* overwrites the scores"
    ),
    "score_grad_in_place": Wrong(
        BEND,
        {"torch_score_grad": _torch_bend_grad_in_place},
        "torch_score_grad: .* overwrites",
    ),
    "arg_grad_in_place": Wrong(
        TABLE, {"torch_arg_grad": _torch_table_grad_in_place}, "torch_arg_grad: .* overwrites ds"
    ),
    "score_without_grad": Wrong(
        BEND,
        {"torch_score": _torch_bend_without_grad},
        "attention in PyTorch operations: .* is .* from the reference's, allowed",
    ),
    "index": Wrong(TABLE, _indices(), "torch_arg_grad: not the derivative of torch_score"),
    "index_outside": Wrong(TABLE, _indices(-4), "torch_arg_index: .* indices from 0 to 3, got -"),
    "index_dtype": Wrong(
        TABLE, _indices(dtype=torch.int32), "torch_arg_index: .* torch.int64, got torch.int32"
    ),
}

IN_KERNELS = {
    "mask": Wrong(
        WINDOW, {"mask": _narrower}, r"mask: disagrees with torch_mask at .* expected 1, got 0"
    ),
    "mask_of_its_tile": Wrong(WINDOW, {"mask": _of_its_tile}, "mask: disagrees with torch_mask"),
    "mask_of_rows": Wrong(
        WINDOW,
        {"mask": _of_rows},
        r"mask: .* called on a tile \(keys, rows\) at .* expected 0, got",
    ),
    "keys_too_narrow": Wrong(
        WINDOW, {"key_bounds": _keys_too_narrow}, r"key_bounds: .* head .* key \d+ is seen too"
    ),
    "all_keys_too_wide": Wrong(
        WINDOW, {"key_bounds": _all_keys_too_wide}, "key_bounds: .* all of the queries see keys"
    ),
    "queries_too_narrow": Wrong(
        WINDOW, {"query_bounds": _queries_too_narrow}, r"query_bounds: .* query \d+ is seen too"
    ),
    "all_queries_too_wide": Wrong(
        WINDOW, {"query_bounds": _all_queries_too_wide}, "query_bounds: .* all of the keys see"
    ),
    "score": Wrong(BEND, {"score": _bend_more}, "score: disagrees with torch_score at batch"),
    "score_at_one_key": Wrong(
        BEND, {"score": _bend_at_one_key}, "score: disagrees .* head 1, query .*, key 11: expected"
    ),
    "score_grad": Wrong(
        BEND, {"score_grad": _bend_grad_at_the_output}, "score_grad: disagrees with torch_score_gr"
    ),
    "arg_grad": Wrong(
        TABLE, {"arg_grad": _table_grad_without_factor}, "arg_grad: disagrees with torch_arg_grad"
    ),
    "raises": Wrong(BEND, {"score": _with_a_typo}, "score: .* raised .*undefined_name"),
}

# In another process a variant is found by its name in a module.
WRONG_SCORE = define_variant("test_wrong_by_name", **{**BEND, "score": _bend_more})
