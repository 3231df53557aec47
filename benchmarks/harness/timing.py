"""How long a call takes: medians with quantiles, compilation and warm-up outside."""

import gc
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

FLUSH_BYTES = 256 * 2**20
BUDGET_S = 2.0
PATIENCE = 30  # budgets
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
    """Whether to stop: a fixed count if asked for, else 3 to 100 repeats within the budget.

    Calls so slow that three of them exhaust the patience are timed once or twice.
    """
    budget_s = BUDGET_S if budget_s is None else budget_s
    if repeats:
        return done >= repeats
    if done >= MAX_REPEATS or (done and elapsed_s >= PATIENCE * budget_s):
        return True
    return done >= MIN_REPEATS and elapsed_s >= budget_s


def flusher(device: str, cache: str) -> Callable[[], object]:
    """Evicts the caches by writing more than they hold, or does nothing if they are to be warm."""
    if cache == "warm":
        return lambda: None
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device).zero_


def cpu_times(call: Callable[[], object], repeats: int, cache: str) -> list[float]:
    return [took for (took,) in cpu_rounds((call,), repeats, cache)]


def cuda_times(call: Callable[[], object], repeats: int, cache: str) -> list[float]:
    return [took for (took,) in cuda_rounds((call,), repeats, cache)]


def cpu_rounds(
    calls: Calls, repeats: int, cache: str, budget_s: float | None = None
) -> list[tuple[float, ...]]:
    """The milliseconds of each call, round after round: rivals that alternate see the same noise.

    Every other round goes through the calls backwards, so that none always comes first.
    """
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
    """CUDA events around each call; queued in batches so that the host runs ahead of the device."""
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
    """What `measure` says of each call, in the order of `calls`, whichever goes first."""
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
    """Calls for at least WARM_UP_MS and returns the milliseconds the last call took."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    while True:
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        now = time.perf_counter()
        if (now - started) * 1e3 >= WARM_UP_MS:
            return (now - begin) * 1e3


def rivalry(rounds: list[tuple[float, ...]], rival: str) -> dict:
    """What rounds of (ours, theirs) say: how many times as fast ours is; nothing of a lone call."""
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
    """(low, median, high): with 95 % confidence the true median lies between low and high.

    Order statistics, so whatever the distribution; below six values their extremes.
    """
    ordered, n = sorted(values), len(values)
    rank, below = 0, 1  # below: how many of 2**n coin throws put at most `rank` values under it
    while 40 * (below := below + math.comb(n, rank + 1)) <= 2**n:
        rank += 1
    return ordered[rank], float(np.median(ordered)), ordered[n - 1 - rank]
