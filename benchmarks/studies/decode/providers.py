"""The ways to decode: one function each, which takes a `DecodeProblem` and returns what to call.

The command line takes a user's own as `module:function`.
"""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import fused_attention as fa

from ...harness.isolate import Unsupported
from ...harness.lookup import lookup
from .problem import QUANTIZED, DecodeProblem

STEPS_TIMED = 50


@dataclass(frozen=True)
class PreparedCache:
    """A cache that holds the context.

    call: writes the keys and values of the new tokens and returns their attention,
        (batch, heads, 1, head_dim). It can be repeated.
    cache_bytes: the size of the cache.
    step_ms: the time that a token takes outside the call, once for all layers.
    """

    call: Callable[[], torch.Tensor]
    cache_bytes: int
    step_ms: float = 0.0


def paged(problem: DecodeProblem) -> PreparedCache:
    """The cache of this package, its pages shuffled, as after many sequences were freed."""
    point = problem.point
    length = point.context + 1
    pages = -(-length // point.page_size)
    cache = fa.PagedKVCache(
        *(1, point.kv_heads, point.head_dim),
        num_blocks=point.batch * pages,
        page_size=point.page_size,
        dtype=problem.q.dtype,
        kv_dtype=getattr(torch, point.kv_dtype),
        max_seqs=point.batch,
        max_seq_len=length,
        device=point.device,
    )
    blocks = cache.pool.alloc(cache.pool.num_blocks)
    random.Random(point.seed).shuffle(blocks)
    cache.pool.release(blocks)
    seqs = [cache.new() for _ in range(point.batch)]
    with cache.step(seqs, point.context) as step:
        k, v = (x[:, :, :-1].transpose(1, 2).flatten(0, 1) for x in (problem.k, problem.v))
        fa.paged_append(k, v, cache.kv[0], step.slot_mapping, cache.scales[0])
        step.mark_written()
    step_ms = _bookkeeping(cache, seqs, point.context)
    q, k, v = (x[:, :, 0] for x in problem.new)
    # Held open for the rest of the process: every call writes the same slots again.
    step = ExitStack().enter_context(cache.step(seqs, 1))
    stored = [x for x in (*cache.kv, *cache.scales) if x is not None]
    return PreparedCache(
        lambda: cache.attend(0, q, k, v, step)[:, :, None],
        sum(x.nbytes for x in stored),
        step_ms,
    )


def _bookkeeping(cache, seqs, context: int) -> float:
    """The median milliseconds of opening and closing a step."""
    times = []
    for _ in range(STEPS_TIMED):
        started = time.perf_counter()
        with cache.step(seqs, 1) as step:
            step.mark_written()
        times.append((time.perf_counter() - started) * 1e3)
        for seq in seqs:
            cache.truncate(seq, context)
    return sorted(times)[STEPS_TIMED // 2]


def contiguous(problem: DecodeProblem) -> PreparedCache:
    """One tensor with room for the longest sequence, and torch's attention over it."""
    if problem.point.kv_dtype in QUANTIZED:
        raise Unsupported("scaled_dot_product_attention reads no quantized keys")
    q, k, v = problem.new
    dtype = getattr(torch, problem.point.kv_dtype)
    if dtype != q.dtype:
        raise Unsupported("scaled_dot_product_attention wants keys in the dtype of the queries")
    keys, values = problem.k.clone(), problem.v.clone()
    grouped = problem.point.group > 1

    def call():
        keys[:, :, -1:], values[:, :, -1:] = k, v
        return F.scaled_dot_product_attention(q, keys, values, enable_gqa=grouped)

    return PreparedCache(call, keys.nbytes + values.nbytes)


def recompute(problem: DecodeProblem) -> PreparedCache:
    """No cache: causal attention of all tokens, without the time to project them again."""
    grouped = problem.point.group > 1

    def call():
        q, k, v = problem.q, problem.k, problem.v
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return out[:, :, -1:]

    return PreparedCache(call, 0)


OURS, BASELINE, WITHOUT = "paged", "contiguous", "recompute"
PROVIDERS: dict[str, Callable[[DecodeProblem], PreparedCache]] = {
    OURS: paged,
    BASELINE: contiguous,
    WITHOUT: recompute,
}


def find(name: str) -> Callable[[DecodeProblem], PreparedCache]:
    """A provider by name; ValueError if there is none."""
    return lookup("provider", name, PROVIDERS)
