"""The rates that bound this machine, measured in the same run: copies and matrix products."""

import numpy as np
import torch

from . import timing

REPEATS = 5
COPY_BYTES = {"cpu": 2**27, "cuda": 2**31}
MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
MATMUL_DTYPES = {"cpu": ("float32",), "cuda": ("bfloat16", "float16", "float32")}


def ceilings(device: str) -> dict:
    rates = {
        f"matmul_{name}_tflops": _matmul_rate(device, getattr(torch, name)) / 1e12
        for name in MATMUL_DTYPES[device]
    }
    return {"copy_gbytes_per_s": _copy_rate(device) / 1e9, **rates}


def _copy_rate(device: str) -> float:
    """Bytes read plus bytes written, per second."""
    source = torch.ones(COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _matmul_rate(device: str, dtype: torch.dtype) -> float:
    n = MATMUL_SIZE[device]
    a, b = (torch.randn((n, n), device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: a @ b, device)


def _seconds(call, device: str) -> float:
    call()
    return float(np.median(timing.times(call, device, REPEATS, "warm"))) / 1e3
