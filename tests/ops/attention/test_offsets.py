"""Offsets are 64 bits wide: tensors may have elements more than 2**31 from the first.

Their gigabytes are reserved address space; only pages that are touched use memory.
"""

import math
import mmap
from dataclasses import replace

import pytest
import torch

import fused_attention as fa

from ...helpers import budget, inputs
from ...helpers.stacks import Sizes
from ...helpers.support import every_leg

FAR = 2**31


@pytest.fixture
def reserve(device):
    """A function (dtype, count) that reserves memory; only the elements written use space.

    2**31 elements of zeros lie before it, where an offset that wraps around would read.
    """
    held = []

    def allocate(dtype, count):
        count += FAR
        if device == "cuda":
            if torch.cuda.mem_get_info()[0] < 1.5 * count * dtype.itemsize:
                pytest.skip("too little GPU memory")
            return torch.zeros(count, dtype=dtype, device=device)[FAR:]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
        try:
            memory = mmap.mmap(-1, count * dtype.itemsize, flags=flags)
        except OSError as error:
            pytest.skip(f"cannot reserve address space: {error}")
        held.append(memory)
        return torch.frombuffer(memory, dtype=dtype)[FAR:]

    yield allocate
    held.clear()


def _view(memory, shape, strides):
    return memory.as_strided(shape, strides, memory.storage_offset())


def _spread(x, reserve, dim, stride):
    """A copy of ``x`` with ``stride`` in ``dim``: below 2**31, but index · stride exceeds it."""
    assert stride < FAR < (x.shape[dim] - 1) * stride
    strides = [0, 0, 0, 1]
    step = x.shape[3]
    for d in (d for d in (2, 1, 0) if d != dim):
        strides[d], step = step, step * x.shape[d]
    strides[dim] = stride
    assert stride >= step
    far = reserve(x.dtype, (x.shape[dim] - 1) * stride + step)
    return _view(far, x.shape, strides).copy_(x)


@every_leg
@pytest.mark.parametrize("name", ["q", "k", "v", "do"])
@pytest.mark.parametrize("dim, stride", [(0, 3 * 2**29), (1, 3 * 2**29), (2, 2**27 + 8)])
def test_of_inputs(device, name, dim, stride, reserve):
    shape = Sizes(3, 3, 3, 18, 18, 8, 8)
    case = inputs.make(shape, torch.float16, device, stack="causal")
    expected = budget.check(case)
    spread = _spread(getattr(case, name), reserve, dim, stride)
    found = budget.evaluate(budget.fused, replace(case, **{name: spread}))
    for key, x in found.items():
        assert torch.equal(x, expected[key]), key


@every_leg
@pytest.mark.parametrize("kind", ["bias", "mask"])
@pytest.mark.parametrize("dim", [2, 3])
def test_of_arguments(device, kind, dim, reserve):
    """A bias or mask with a large stride between rows, or between keys."""
    stride = 2**27 + 8
    q, k, v = (torch.randn(1, 1, 18, 8, device=device).half() for _ in range(3))
    near = torch.randn(18, 18, device=device).half()
    if kind == "mask":
        near = near > 0
    strides = [stride, 1] if dim == 2 else [1, stride]
    far = _view(reserve(near.dtype, 17 * stride + 18), (18, 18), strides).copy_(near)
    make = getattr(fa, kind)
    assert torch.equal(fa.attention(q, k, v, make(far)), fa.attention(q, k, v, make(near)))


@every_leg
@pytest.mark.parametrize("dim, stride", [(0, 3 * 2**29), (2, 2**27 + 8)])
def test_of_pages(device, dim, stride, reserve):
    """Blocks, or slots of a block, too far apart for 32 bits, in paged append and attention."""
    shape, strides = (3, 2, 32, 1, 16), [1024, 512 if dim == 0 else 16, 16, 16, 1]
    strides[dim] = stride
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    far = _view(reserve(torch.float16, last + 1), shape, strides)
    near = torch.full(shape, math.nan, dtype=torch.float16, device=device)
    generator = torch.Generator().manual_seed(0)
    k, v, q = (torch.randn(40, 1, 16, generator=generator).half().to(device) for _ in range(3))
    position = torch.arange(40, device=device)
    slots = torch.where(position < 32, 64 + position, position)  # blocks 2 and 1
    metadata = ([[2, 1]], [40], [0, 5])
    metadata = [torch.tensor(x, dtype=torch.int32, device=device) for x in metadata]
    results = []
    for kv in (near, far):
        fa.paged_append(k, v, kv, slots)
        results.append(fa.paged_attention(q[:5], kv, *metadata))
    assert torch.equal(*results) and results[0].isfinite().all()


@every_leg
def test_of_copied_blocks(device, reserve):
    size = 2**19
    kv = reserve(torch.float16, 4098 * size).view(4098, size)
    kv[4097, ::97] = 3
    fa.copy_blocks(kv, torch.tensor([[4097, 1], [0, 4096]], device=device))
    assert torch.equal(kv[1], kv[4097]) and kv[1].any() and not kv[4096].any()
