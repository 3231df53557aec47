"""Measures one point of attention, in a process of its own."""

from dataclasses import replace

import torch

from ...harness import memory, timing
from ...harness.errors import columns
from . import errors, providers
from .flops import attention_flops
from .inputs import AttentionInputs, evaluate, make_inputs
from .point import AttentionPoint
from .providers import PreparedCall, Workload
from .variants import AttentionShape, parse

TINY = 320


def measure(point: AttentionPoint) -> dict:
    """Measures the peak memory of the first call at this shape, then time, then error."""
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
    peak = memory.peak(call, point.device)
    numbers = timing.quantiles(timing.times(call, point.device, point.repeats, point.cache))
    results = peak.pop("result")
    if point.mode == "backward":
        results = evaluate(prepared.call, inputs, gradients=True)
    mask_bytes = sum(t.nbytes for t in prepared.tensors)
    ratio = max(errors.ratios(results, inputs, workload.variants).values())
    return {
        **numbers,
        **memory.columns({**peak, "peak": peak["peak"] + mask_bytes}),
        "mask_bytes": mask_bytes,
        "tflops": attention_flops(terms, shape, point.mode) / numbers["time_ms"] / 1e9,
        **columns(ratio),
        "threads": torch.get_num_threads(),
    }


def _task(prepared: PreparedCall, inputs: AttentionInputs, mode: str):
    """The call without arguments that is measured."""
    if mode != "backward":
        return lambda: evaluate(prepared.call, inputs, gradients=mode != "forward")
    leaves = tuple(t.detach().requires_grad_() for t in inputs.leaves)
    out = prepared.call(*leaves)
    return lambda: torch.autograd.grad(out, leaves, inputs.d_out, retain_graph=True)


def _load_kernels(provider, workload: Workload, seed: int) -> None:
    """Loads code with a call too small to show in the peak that is measured next."""
    group = workload.shape.heads // workload.shape.kv_heads
    shape = replace(workload.shape, batch=1, heads=group, kv_heads=1, seq_q=TINY, seq_k=TINY)
    prepared = provider(replace(workload, shape=shape))
    if not prepared.compiled:
        _task(prepared, make_inputs(shape, workload.dtype, workload.device, seed), workload.mode)()
