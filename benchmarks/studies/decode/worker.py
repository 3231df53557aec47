"""Measures one point of decoding, in a process of its own."""

from dataclasses import replace

import torch

import fused_attention as fa

from ...harness import errors, memory, timing
from .point import DecodePoint
from .problem import DecodeProblem, least_bytes, make_problem
from .providers import BASELINE, WITHOUT, find

BUDGET_S = {"cpu": 2.0, "cuda": 0.5}
WARM_UP_CONTEXT = 64
TIME = (
    "one layer: the keys and values of the new tokens are written and attended to, projections "
    "left out; caches are flushed before"
)
STEP = "what the paged cache does on the host for a token, once for all layers, beside that time"
SPEEDUP = (
    "the time of a contiguous cache with torch's attention over that of the provider, called in "
    "turn in one process: the median over the rounds, with the 95 % interval of that median"
)
RECOMPUTE = "causal attention of every token, whose projections are not counted: a lower bound"
ERROR = "max |x - fp64| over max |naive - fp64|, naive attention in the model's dtype"


@torch.no_grad()
def measure(point: DecodePoint) -> dict:
    """Measures peak memory, then time in turns with a contiguous cache, then error."""
    on_cuda = point.device == "cuda"
    if not on_cuda:
        memory.limit_to_available()
    provider = find(point.provider)
    _load_kernels(provider, point)
    problem = make_problem(point)
    prepared = provider(problem)
    if on_cuda:
        prepared.call()
    peak = memory.peak(prepared.call, point.device)
    calls = (prepared.call, *_rival(problem))
    rounds = timing.rounds(calls, point.device, point.repeats, "cold", BUDGET_S[point.device])
    numbers = timing.quantiles([times[0] for times in rounds])
    seconds = numbers["time_ms"] / 1e3
    traffic = least_bytes(point) / seconds / 1e9 if point.provider != WITHOUT else None
    return {
        **numbers,
        **timing.speedup(rounds, BASELINE),
        "step_ms": prepared.step_ms,
        "tokens_per_s": point.batch / seconds,
        "gbytes_per_s": traffic,
        **memory.columns(peak),
        "cache_bytes": prepared.cache_bytes,
        **errors.columns(_error(problem, peak["result"])),
        "threads": torch.get_num_threads(),
    }


def _load_kernels(provider, point: DecodePoint) -> None:
    """Loads code with a call too small to show in the peak that is measured next."""
    small = replace(point, batch=1, context=min(point.context, WARM_UP_CONTEXT))
    provider(make_problem(small)).call()


def _rival(problem: DecodeProblem) -> tuple:
    """The call of the contiguous cache, which stores the model's dtype; none for itself."""
    if problem.point.provider in (BASELINE, WITHOUT):
        return ()
    plain = replace(problem.point, kv_dtype=problem.point.dtype)
    rival = find(BASELINE)(replace(problem, point=plain)).call
    rival()
    return (rival,)


def _error(problem: DecodeProblem, out: torch.Tensor) -> float:
    """The error ratio of the first sequence: fp64 of all might not fit."""
    q, k, v = problem.q[:1, :, -1:], problem.k[:1], problem.v[:1]
    exact = fa.reference.attention(q.double(), k.double(), v.double()).out
    naive = fa.reference.attention(q, k, v).out
    return errors.ratio(out[:1], naive, exact, exact.abs().max().item())
