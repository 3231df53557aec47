"""One measurement, in a process of its own: a point in, plain numbers out."""

import math
import os
from dataclasses import replace

import torch

from ...harness import memory, timing
from ...harness.point import AttentionPoint
from . import errors, providers
from .flops import attention_flops
from .inputs import AttentionInputs, evaluate, make_inputs
from .providers import PreparedCall, Workload
from .variants import AttentionShape, parse

TINY = 320
COMPILE_THREADS = "1"


def measure(point: AttentionPoint) -> dict:
    """Peak memory in the first call at this shape, then time, then error."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", COMPILE_THREADS)
    on_cuda = point.device == "cuda"
    if not on_cuda:
        memory.limit_to_available()
    shape, terms = AttentionShape.of(point), parse(point.variant)
    workload = Workload(shape, terms, point.mode, getattr(torch, point.dtype), point.device)
    provider = providers.find(point.provider)
    if not on_cuda:
        _load_kernels(provider, workload, point.seed)
    inputs = make_inputs(shape, workload.dtype, point.device, point.seed)
    prepared = provider(workload)
    call = _task(prepared, inputs, point.mode)
    if prepared.compiled or on_cuda:
        call()
    peak = (memory.cuda_peak if on_cuda else memory.cpu_peak)(call)
    times = (timing.cuda_times if on_cuda else timing.cpu_times)(call, point.repeats, point.cache)
    numbers = timing.quantiles(times)
    results = peak["result"]
    if point.mode == "backward":
        results = evaluate(prepared.call, inputs, gradients=True)
    ratio = max(errors.ratios(results, inputs, workload.variants).values())
    return {
        **numbers,
        "peak_memory_bytes": peak["peak"] + sum(t.nbytes for t in prepared.tensors),
        "reserved_memory_bytes": peak.get("reserved"),
        "mask_bytes": sum(t.nbytes for t in prepared.tensors),
        "memory_method": peak["method"],
        "tflops": attention_flops(terms, shape, point.mode) / numbers["time_ms"] / 1e9,
        "max_error_ratio": ratio if math.isfinite(ratio) else None,
        "reason": None if math.isfinite(ratio) else "the result is not finite",
        "threads": torch.get_num_threads(),
    }


def _task(prepared: PreparedCall, inputs: AttentionInputs, mode: str):
    """What is measured: a call without arguments."""
    if mode != "backward":
        return lambda: evaluate(prepared.call, inputs, gradients=mode != "forward")
    leaves = tuple(t.detach().requires_grad_() for t in inputs.leaves)
    out = prepared.call(*leaves)
    return lambda: torch.autograd.grad(out, leaves, inputs.d_out, retain_graph=True)


def _load_kernels(provider, workload: Workload, seed: int) -> None:
    """Pages code in on a problem too small to hide in what is measured afterwards."""
    group = workload.shape.heads // workload.shape.kv_heads
    shape = replace(workload.shape, batch=1, heads=group, kv_heads=1, seq_q=TINY, seq_k=TINY)
    prepared = provider(replace(workload, shape=shape))
    if not prepared.compiled:
        _task(prepared, make_inputs(shape, workload.dtype, workload.device, seed), workload.mode)()


def machine(device: str) -> dict:
    """What only a process that has touched the device can tell."""
    told = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        torch.zeros(1, device="cuda").item()
        told |= {
            "device_name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
        }
    return told
