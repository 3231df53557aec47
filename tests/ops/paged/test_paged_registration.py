"""The paged operators in PyTorch: opcheck, compile, fake tensors, on the torch and Triton backends.

Seen failing on: a mutation that is not declared, a fake of the wrong dtype.
"""

import pytest
import torch

import fused_attention as fa
from fused_attention.variants.base import encode

from ...helpers import paged
from ...helpers.paged import PagedCase

pytestmark = pytest.mark.parametrize(
    "path",
    [
        pytest.param("torch", id="torch"),
        pytest.param("triton", id="triton", marks=pytest.mark.interpreter),
    ],
)
CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
CASE = PagedCase(((1, 20), (3, 17)), 4, 2)
QUANTIZED = PagedCase(((1, 20), (3, 17)), 4, 2, storage=torch.int8, scaling="token")


def appended(case):
    """A problem, new tokens and their slots."""
    problem = paged.make(case, torch.float32)
    generator = torch.Generator().manual_seed(1)
    k, v = (torch.randn(4, 2, 32, generator=generator) for _ in "kv")
    return problem, k, v, problem.block_table[0, 0].long() * 16 + torch.arange(4)


@pytest.mark.parametrize("case", [CASE, QUANTIZED], ids=["plain", "quantized"])
def test_opcheck(path, case):
    problem, k, v, slots = appended(case)
    ops = torch.ops.fused_attention
    metadata = (problem.block_table, problem.seq_lens, problem.cu_seqlens_q)
    stack = encode((fa.softcap(3.0), fa.causal()))
    attend = (problem.q, problem.kv, problem.scales, *metadata, *stack, 0.2, None, None)
    torch.library.opcheck(ops.paged_attention, attend, test_utils=CHECKS)
    append = (k, v, problem.kv, slots, problem.scales)
    torch.library.opcheck(ops.paged_append, append, test_utils=CHECKS)
    copy = (problem.kv, torch.tensor([[0, 1]]))
    torch.library.opcheck(ops.copy_blocks, copy, test_utils=CHECKS)


@pytest.mark.parametrize("case", [CASE, QUANTIZED], ids=["plain", "quantized"])
def test_compile_without_graph_breaks(path, case):
    """One step of a model: append tokens, then attend to them."""

    def step(q, k, v, kv, scales, slots, table, seq_lens, cu_seqlens_q):
        fa.paged_append(k * 2, v, kv, slots, scales)
        return fa.paged_attention(
            q * 1.5, kv, table, seq_lens, cu_seqlens_q, scales=scales, return_lse=True
        )

    def run(function):
        problem, k, v, slots = appended(case)
        metadata = (problem.block_table, problem.seq_lens, problem.cu_seqlens_q)
        results = function(problem.q, k, v, problem.kv, problem.scales, slots, *metadata)
        return *results, problem.kv

    torch._dynamo.reset()
    backend = "inductor" if path == "torch" and case is QUANTIZED else "aot_eager"
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    with torch._inductor.config.patch(force_disable_caches=True), torch.no_grad():
        for ours, eager in zip(run(compiled), run(step), strict=True):
            torch.testing.assert_close(ours, eager, equal_nan=True)


def test_fake_tensors_have_the_real_metadata(path):
    problem = paged.make(CASE, torch.bfloat16)
    real = problem.attend()
    arguments = (
        *(problem.q, problem.kv, problem.block_table),
        *(problem.seq_lens, problem.cu_seqlens_q),
    )
    fakes = fa.paged_attention(*(x.to("meta") for x in arguments), return_lse=True)
    for fake, true in zip(fakes, real, strict=True):
        assert (fake.shape, fake.stride(), fake.dtype) == (true.shape, true.stride(), true.dtype)
