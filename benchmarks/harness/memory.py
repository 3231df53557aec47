"""Peak memory of one call, beyond what was there before it."""

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

SAFE_SHARE = 0.9
VM_HWM = "high-water mark of resident memory (VmHWM, reset before the call)"
MAX_RSS = "ru_maxrss, not reset before the call: a lower bound"
ALLOCATED = "torch.cuda.max_memory_allocated"


def limit_to_available() -> None:
    """Limits this process, so that an allocation too large for the machine fails at once."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = _status_bytes("VmData") + int(SAFE_SHARE * _available_bytes())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _available_bytes() -> int:
    available = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    return available


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status, which counts in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak(call: Callable[[], object], device: str) -> dict:
    """Calls once; the result, the peak beyond the memory in use before, and how it was measured."""
    return (cuda_peak if device == "cuda" else cpu_peak)(call)


def columns(found: dict) -> dict:
    """The columns of a row that hold what `peak` found."""
    return {
        "peak_memory_bytes": found["peak"],
        "reserved_memory_bytes": found.get("reserved"),
        "memory_method": found["method"],
    }


def cpu_peak(call: Callable[[], object]) -> dict:
    """`peak` of the process's resident memory."""
    gc.collect()
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = psutil.Process().memory_info().rss
        result = call()
        return {"result": result, "peak": max(0, _max_rss() - before), "method": MAX_RSS}
    before = _status_bytes("VmRSS")
    result = call()
    return {"result": result, "peak": _status_bytes("VmHWM") - before, "method": VM_HWM}


def _return_free_memory() -> None:
    """Returns freed heap to the system: memory that the call reused would not be counted."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cuda_peak(call: Callable[[], object]) -> dict:
    """`peak` by the counters of the CUDA allocator, and the peak of what it had reserved."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    result = call()
    torch.cuda.synchronize()
    return {
        "result": result,
        "peak": torch.cuda.max_memory_allocated() - before,
        "reserved": torch.cuda.max_memory_reserved() - reserved,
        "method": ALLOCATED,
    }
