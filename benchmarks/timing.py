"""How long a call takes: medians with quantiles, compilation and warm-up outside."""

import gc
import time
from collections.abc import Callable

import numpy as np
import torch

FLUSH_BYTES = 256 * 2**20
BUDGET_S = 2.0
PATIENCE_S = 60.0
MIN_REPEATS, MAX_REPEATS = 3, 100
WARM_UP_MS = 25.0
BATCH_MS, MAX_BATCH = 50.0, 10


def quantiles(milliseconds: list[float]) -> dict:
    p20, median, p80 = np.quantile(milliseconds, [0.2, 0.5, 0.8])
    return {
        "time_ms": float(median),
        "time_ms_p20": float(p20),
        "time_ms_p80": float(p80),
        "repeats": len(milliseconds),
    }


def enough(done: int, elapsed_s: float, repeats: int) -> bool:
    """Whether to stop: a fixed count if asked for, else 3 to 100 repeats within the budget.

    Calls so slow that three of them exhaust PATIENCE_S are timed once or twice.
    """
    if repeats:
        return done >= repeats
    if done >= MAX_REPEATS or (done and elapsed_s >= PATIENCE_S):
        return True
    return done >= MIN_REPEATS and elapsed_s >= BUDGET_S


def flusher(device: str, cache: str) -> Callable[[], object]:
    """Evicts the caches by writing more than they hold, or does nothing if they are to be warm."""
    if cache == "warm":
        return lambda: None
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device).zero_


def cpu_times(call: Callable[[], object], repeats: int, cache: str) -> list[float]:
    flush = flusher("cpu", cache)
    times: list[float] = []
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    while not enough(len(times), time.perf_counter() - started, repeats):
        flush()
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    gc.enable()
    return times


def cuda_times(call: Callable[[], object], repeats: int, cache: str) -> list[float]:
    """CUDA events around each call; queued in batches so that the host runs ahead of the device."""
    flush = flusher("cuda", cache)
    batch = max(1, min(MAX_BATCH, int(BATCH_MS / _warm_up(call))))
    times: list[float] = []
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    while not enough(len(times), time.perf_counter() - started, repeats):
        events = [_timed(call, flush) for _ in range(batch)]
        torch.cuda.synchronize()
        times += [begin.elapsed_time(end) for begin, end in events]
    gc.enable()
    return times[:repeats] if repeats else times


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
