"""Problems of paged attention, and the error budget of their results.

The reference is dense: `fused_attention.reference` in fp64, on the exact stored keys and values of
each sequence.  The budget is that of `tests.helpers.budget`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

import fused_attention as fa

from . import inputs, stacks
from .budget import distance, largest
from .rounding import ATEN_HALF_EXP, band
from .support import poisoned, runs_triton

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True)
class PagedCase:
    """``lens``: (queries, keys) of each sequence; ``storage``, ``scaling``: of the KV cache."""

    lens: tuple[tuple[int, int], ...]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    page_size: int = 16
    stack: str = "causal"
    storage: torch.dtype | None = None
    scaling: str = ""
    dtype: torch.dtype | None = None
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PagedProblem:
    """The arguments of `paged_attention`, and k and v of each sequence in fp64, (N, K, D)."""

    case: PagedCase
    q: torch.Tensor
    kv: torch.Tensor
    scales: torch.Tensor | None
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    cu_seqlens_q: torch.Tensor
    tensors: list[torch.Tensor | None]
    stored: list[tuple[torch.Tensor, torch.Tensor]]

    def attend(self, **options):
        """Output and LSE."""
        variants = stacks.build(self.case.stack, self.tensors)
        with poisoned():
            return fa.paged_attention(
                *(self.q, self.kv, self.block_table, self.seq_lens, self.cu_seqlens_q, variants),
                scales=self.scales,
                return_lse=True,
                **self.case.options | options,
            )

    def dense(self, index: int) -> inputs.Inputs:
        """Sequence ``index`` alone, as `fused_attention.attention` takes it."""
        ends = self.cu_seqlens_q.tolist()
        q = self.q[ends[index] : ends[index + 1]].transpose(0, 1)[None]
        k, v = (x.transpose(0, 1)[None].to(q) for x in self.stored[index])
        return inputs.Inputs(self.case.stack, q, k, v, self.tensors, torch.zeros_like(q), None)


def make(
    case: PagedCase, dtype, device: str = "cpu", *, seed: int = 0, order: int = 0
) -> PagedProblem:
    """Draw a problem; ``order`` seeds the choice of physical blocks and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    storage = case.storage or dtype
    page = case.page_size
    counts = [-(-keys // page) for _, keys in case.lens]
    width = max([1, *counts]) + 1
    num_blocks = sum(counts) + 3
    kv, scales = _pool(case, storage, num_blocks, generator)

    ids = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(order))
    # Table entries beyond a sequence's pages point to an unowned block, which is filled with NaN.
    table = ids[-1].expand(len(case.lens), width).clone()
    stored, used = [], 0
    for index, (_, keys) in enumerate(case.lens):
        table[index, : counts[index]] = ids[used : used + counts[index]]
        used += counts[index]
        position = torch.arange(keys)
        at = table[index, position // page], position % page
        sides = []
        for side in range(2):
            numbers, worth = _numbers(case, storage, keys, generator)
            kv[at[0], side, at[1]] = _raw(numbers)
            if case.scaling == "token":
                scales[at[0], side, at[1]] = worth
            elif case.scaling == "head":
                worth = scales[side].expand(keys, -1)
            sides.append(numbers.double() * worth[..., None].double())
        stored.append(tuple(sides))

    queries = [rows for rows, _ in case.lens]
    q = torch.randn(sum(queries), case.heads, case.head_dim, generator=generator).to(dtype)
    shape = stacks.Sizes(1, case.heads, case.kv_heads, 1, 1, case.head_dim, case.head_dim)
    tensors = stacks.draw(case.stack, shape, generator, dtype)

    def move(x):
        return x if x is None else x.to(device)

    return PagedProblem(
        case,
        move(q),
        move(kv.view(storage)),
        move(scales),
        move(table.int()),
        move(torch.tensor([keys for _, keys in case.lens], dtype=torch.int32)),
        move(torch.tensor([0, *queries]).cumsum(0).int()),
        list(map(move, tensors)),
        [(move(k), move(v)) for k, v in stored],
    )


def in_order(problem: PagedProblem) -> PagedProblem:
    """The same pages in consecutive blocks."""
    blocks = dict.fromkeys(problem.block_table.flatten().tolist())
    unnamed = [block for block in range(len(problem.kv)) if block not in blocks]
    order = torch.tensor([*blocks, *unnamed])
    table = order.argsort()[problem.block_table.long()].int()
    return replace(problem, kv=_raw(problem.kv)[order].view(problem.kv.dtype), block_table=table)


def _raw(x):
    """8-bit floats viewed as bytes, because PyTorch cannot index them."""
    return x.view(torch.uint8) if x.dtype == torch.float8_e4m3fn else x


def _pool(case, storage, num_blocks, generator):
    """Blocks filled with NaN, or 127 in int8, and their scales."""
    shape = (num_blocks, 2, case.page_size, case.kv_heads, case.head_dim)
    filler = 127 if storage == torch.int8 else math.nan
    kv = _raw(torch.full(shape, filler).to(storage))
    if case.scaling == "token":
        return kv, torch.full(shape[:4], math.nan)
    if case.scaling == "head":
        return kv, torch.rand(2, case.kv_heads, generator=generator) / LARGEST[storage] + 0.005
    return kv, None


def _numbers(case, storage, keys, generator):
    """Random stored numbers (N, K, D) and their scales (N, K)."""
    x = torch.randn(keys, case.kv_heads, case.head_dim, generator=generator)
    if storage not in LARGEST:
        return x.to(storage), torch.ones(keys, case.kv_heads)
    x = (x / 4 * LARGEST[storage]).clamp(-LARGEST[storage], LARGEST[storage])
    worth = (torch.rand(keys, case.kv_heads, generator=generator) + 0.5) * 4 / LARGEST[storage]
    return (x.round() if storage == torch.int8 else x).to(storage), worth


def check(problem: PagedProblem, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Assert that output and LSE of every sequence are within the budget; returns them."""
    out, lse = problem.attend(**options)
    assert out.shape == problem.q.shape and out.dtype == problem.q.dtype
    assert lse.shape == problem.q.shape[:2]
    assert lse.dtype == torch.promote_types(problem.q.dtype, torch.float32)
    wrong, ends = [], problem.cu_seqlens_q.tolist()
    for index, (rows, keys) in enumerate(problem.case.lens):
        own = slice(ends[index], ends[index + 1])
        found = {"out": out[own].transpose(0, 1)[None], "lse": lse[own].mT[None]}
        if rows == 0:
            continue
        if keys == 0 and "logit" not in stacks.names(problem.case.stack):
            assert not found["out"].any() and (found["lse"] == -math.inf).all()
            continue
        exact, allowed = allowances(problem, index)
        for name, x in found.items():
            error = distance(x, exact[name])
            if not error <= allowed[name]:
                wrong.append(f"{name} of {index}: error {error:.3g}, allowed {allowed[name]:.3g}")
    assert not wrong, "; ".join(wrong)
    return out, lse


def allowances(problem: PagedProblem, index: int):
    """The exact results of a sequence, and the allowed error of each."""
    dense = problem.dense(index)
    # The fp64 values: a dequantized number may not be representable in the dtype of q.
    k, v = (x.transpose(0, 1)[None] for x in problem.stored[index])
    exactly = replace(dense.double(), k=k, v=v)
    scale = problem.case.options.get("scale")
    exact, naive = (_reference(x, scale) for x in (exactly, dense))
    bands = band(dense, exact | {"dq": torch.zeros_like(exactly.q)}, scale=scale)
    if dense.q.dtype.itemsize == 2 and not runs_triton(dense.q.device.type):
        bands["lse"] += ATEN_HALF_EXP
    return exact, {
        name: 2 * distance(naive[name], exact[name]) + largest(bands[name]) for name in exact
    }


def _reference(dense: inputs.Inputs, scale):
    variants = stacks.build(dense.stack, dense.tensors)
    found = fa.reference.attention(dense.q, dense.k, dense.v, variants, scale=scale)
    return {"out": found.out, "lse": found.lse}
