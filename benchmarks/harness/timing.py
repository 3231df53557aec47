"""How long a call takes: medians with quantiles, compilation and warm-up outside."""

import gc
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

FLUSH_BYTES = 256 * 2**20
BUDGET_S = 2.0
PATIENCE = 30
MIN_REPEATS, MAX_REPEATS = 3, 100
WARM_UP_MS = 25.0
BATCH_MS, MAX_BATCH = 50.0, 10

Calls = Sequence[Callable[[], object]]


def quantiles(milliseconds: list[float]) -> dict:
    p20, median, p80 = np.quantile(milliseconds, [0.2, 0.5, 0.8])
    return {
        "time_ms": float(median),
        "time_ms_p20": float(p20),
        "time_ms_p80": float(p80),
        "repeats": len(milliseconds),
    }


def enough(done: int, elapsed_s: float, repeats: int, budget_s: float | None = None) -> bool:
    """Whether to stop: after `repeats`, or if that is 0, after 3 to 100 repeats as time allows.

    One or two repeats are enough once they have taken PATIENCE times the budget.
    """
    budget_s = BUDGET_S if budget_s is None else budget_s
    if repeats:
        return done >= repeats
    if done >= MAX_REPEATS or (done and elapsed_s >= PATIENCE * budget_s):
        return True
    return done >= MIN_REPEATS and elapsed_s >= budget_s


def flusher(device: str, cache: str) -> Callable[[], object]:
    """A call that evicts the caches by writing more than they hold; for "warm", does nothing."""
    if cache == "warm":
        return lambda: None
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device).zero_


def times(call: Callable[[], object], device: str, repeats: int, cache: str) -> list[float]:
    """The milliseconds of each repeat of one call."""
    return [took for (took,) in rounds((call,), device, repeats, cache)]


def rounds(
    calls: Calls, device: str, repeats: int, cache: str, budget_s: float | None = None
) -> list[tuple[float, ...]]:
    """The milliseconds of each call, in rounds that take every call once.

    Calls that alternate meet the same noise. Every other round takes them in reverse order, so
    that none always comes first.
    """
    measure = cuda_rounds if device == "cuda" else cpu_rounds
    return measure(calls, repeats, cache, budget_s)


def cpu_rounds(
    calls: Calls, repeats: int, cache: str, budget_s: float | None = None
) -> list[tuple[float, ...]]:
    """`rounds` by the clock of the host."""
    flush = flusher("cpu", cache)
    rounds: list[tuple[float, ...]] = []
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    while not enough(len(rounds), time.perf_counter() - started, repeats, budget_s):
        rounds.append(_in_turn(calls, len(rounds), lambda call: _clocked(call, flush)))
    gc.enable()
    return rounds


def cuda_rounds(
    calls: Calls, repeats: int, cache: str, budget_s: float | None = None
) -> list[tuple[float, ...]]:
    """`rounds` by CUDA events, queued in batches so that the host runs ahead of the device."""
    flush = flusher("cuda", cache)
    batch = max(1, min(MAX_BATCH, int(BATCH_MS / sum(_warm_up(call) for call in calls))))
    rounds: list[tuple[float, ...]] = []
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    while not enough(len(rounds), time.perf_counter() - started, repeats, budget_s):
        events = [_in_turn(calls, i, lambda call: _timed(call, flush)) for i in range(batch)]
        torch.cuda.synchronize()
        rounds += [tuple(begin.elapsed_time(end) for begin, end in pairs) for pairs in events]
    gc.enable()
    return rounds[:repeats] if repeats else rounds


def _in_turn(calls: Calls, number: int, measure: Callable) -> tuple:
    """`measure` of each call, in the order of `calls`; odd rounds measure in reverse order."""
    if number % 2 == 0:
        return tuple(measure(call) for call in calls)
    return tuple(measure(call) for call in reversed(calls))[::-1]


def _clocked(call: Callable[[], object], flush: Callable[[], object]) -> float:
    flush()
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def _timed(call: Callable[[], object], flush: Callable[[], object]) -> tuple:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush()
    begin.record()
    call()
    end.record()
    return begin, end


def _warm_up(call: Callable[[], object]) -> float:
    """Repeats the call for at least WARM_UP_MS; the milliseconds that the last one took."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    while True:
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        now = time.perf_counter()
        if (now - started) * 1e3 >= WARM_UP_MS:
            return (now - begin) * 1e3


def speedup(rounds: list[tuple[float, ...]], rival: str) -> dict:
    """How many times as fast the first call is as the second; empty if there was one call."""
    if len(rounds[0]) == 1:
        return {}
    low, median, high = median_interval([theirs / ours for ours, theirs in rounds])
    return {
        f"{rival}_ms": quantiles([theirs for _, theirs in rounds])["time_ms"],
        "speedup": median,
        "speedup_low": low,
        "speedup_high": high,
    }


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """(low, median, high): the median and its 95 % confidence interval.

    The interval is between order statistics, so it holds for any distribution. Fewer than six
    values give their extremes.
    """
    ordered, n = sorted(values), len(values)
    rank, below = 0, 1  # below: of the 2**n ways to split, those with at most `rank` below
    while 40 * (below := below + math.comb(n, rank + 1)) <= 2**n:
        rank += 1
    return ordered[rank], float(np.median(ordered)), ordered[n - 1 - rank]
