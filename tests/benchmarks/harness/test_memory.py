"""The reported peak is the memory that was allocated."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.harness import isolate, memory
from benchmarks.studies.attention import worker

from ..fakes import ALLOCATED, MIB
from ..points import SMALL, fake

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def peak_of(point):
    outcome = isolate.run(
        "studies.attention.worker.measure", point, 60.0, isolate.default_start_method()
    )
    assert outcome.status == "ok", outcome.reason
    return outcome.value["peak_memory_bytes"]


@linux
@pytest.mark.parametrize("name", ["allocates", "holds_a_mask"])
def test_a_known_allocation_is_measured(name):
    assert peak_of(fake(name)) == pytest.approx(ALLOCATED, rel=0.02)


@linux
def test_nothing_is_measured_as_nearly_nothing():
    assert abs(peak_of(fake("quick"))) < 2 * MIB


@linux
def test_naive_attention_holds_its_score_matrices():
    n, heads = 2048, 2
    matrix = heads * n * n * 4
    peak = peak_of(replace(SMALL, seq_len=n, heads=heads, repeats=1))
    assert 2 * matrix < peak < 6 * matrix


def small_blocks(total):
    """Blocks that the C library takes from its heap, where freed memory lingers."""
    return [torch.ones(64 * 1024, dtype=torch.uint8) for _ in range(total // (64 * 1024))]


@linux
def test_a_call_that_could_reuse_freed_memory_is_still_seen_to_need_it():
    small_blocks(300 * MIB)
    found = memory.cpu_peak(lambda: small_blocks(100 * MIB))
    assert found["peak"] == pytest.approx(100 * MIB, rel=0.05)
    assert found["method"] == memory.VM_HWM


@linux
def test_where_the_mark_cannot_be_reset_the_row_says_so(monkeypatch):
    real = Path.write_text

    def refuse(path, *args, **kwargs):
        if path == Path("/proc/self/clear_refs"):
            raise PermissionError(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", refuse)
    found = memory.cpu_peak(lambda: torch.ones(10 * MIB, dtype=torch.uint8))
    assert found["method"] == memory.MAX_RSS
    assert found["peak"] >= 0


@linux
def test_what_the_machine_could_not_hold_is_refused_before_it_swaps_or_dies():
    point = fake("asks_for_nearly_everything")
    outcome = isolate.run(
        "studies.attention.worker.measure", point, 60.0, isolate.default_start_method()
    )
    assert outcome.status == "oom", outcome


def test_cuda_counts_beyond_what_was_allocated_before(monkeypatch):
    state = {"allocated": 1000, "reserved": 4096, "max": 0, "max_reserved": 0}
    fakes = {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: state.update(max=1000, max_reserved=4096),
        "memory_allocated": lambda: state["allocated"],
        "memory_reserved": lambda: state["reserved"],
        "max_memory_allocated": lambda: state["max"],
        "max_memory_reserved": lambda: state["max_reserved"],
    }
    for name, function in fakes.items():
        monkeypatch.setattr(torch.cuda, name, function)
    found = memory.cuda_peak(lambda: state.update(max=1700, max_reserved=8192) or "result")
    assert found == {
        "result": "result",
        "peak": 700,
        "reserved": 4096,
        "method": memory.ALLOCATED,
    }


def test_a_provider_is_warmed_up_on_a_small_problem_of_the_same_kind():
    seen = []

    def provider(workload):
        seen.append(workload)
        return worker.providers.naive(workload)

    big = replace(SMALL, seq_len=4096, batch=4, heads=6, kv_heads=2, variant="causal")
    shape = worker.AttentionShape.of(big)
    workload = worker.Workload(shape, worker.parse("causal"), "forward", torch.float32, "cpu")
    worker._load_kernels(provider, workload, seed=0)
    (tiny,) = seen
    assert (tiny.shape.heads, tiny.shape.kv_heads, tiny.shape.batch) == (3, 1, 1)
    assert tiny.shape.seq_q == worker.TINY < big.seq_len
    assert (tiny.terms, tiny.mode, tiny.dtype) == (workload.terms, workload.mode, workload.dtype)
