"""The bounds of masks are exact: which keys any row of a tile sees, and which every row sees.

A bound too tight gives a wrong result (caught here: bounds off by one, in the kernels and in
torch); a bound too loose wastes work.
"""

import pytest
import torch

from fused_attention.kernels import probe
from fused_attention.ops.attention.tiles import key_bounds
from fused_attention.ops.attention.triton_backend import variant_stack
from fused_attention.variants.base import Shape

from ...helpers import stacks
from ...helpers.stacks import Sizes
from ...helpers.support import LEGS

BOUNDED = ("causal", "top_left", "window", "window_both", "key_padding", "document", "prefix")


def _seen(variant, rows, keys):
    """The visible keys by the torch mask, booleans (B, M, N)."""
    b, _, row, kv_idx = (
        torch.arange(n).view([-1 if d == i else 1 for d in range(4)])
        for i, n in enumerate((2, 1, rows, keys))
    )
    seen = variant.torch_mask(b, 0 * b, row + keys - rows, kv_idx, rows, keys)
    return seen.expand(2, 1, rows, keys)[:, 0]


@pytest.mark.parametrize("rows, keys", [(33, 70), (70, 70), (70, 33)])
@pytest.mark.parametrize("stack", BOUNDED)
def test_bounds_are_exact(stack, rows, keys):
    if stack == "document" and rows > keys:
        pytest.skip("documents have no more queries than keys")
    shape = Sizes(2, 1, 1, rows, keys, 8, 8)
    tensors = stacks.draw(stack, shape, torch.Generator().manual_seed(1), torch.float32)
    (variant,) = stacks.build(stack, tensors)
    seen = _seen(variant, rows, keys)
    call = Shape(2, 1, rows, keys, torch.device("cpu"))
    for b, first in ((b, first) for b in range(2) for first in range(rows)):
        for last in range(first, min(first + 20, rows)):
            some = seen[b, first : last + 1].any(0).nonzero()[:, 0].tolist()
            every = seen[b, first : last + 1].all(0).nonzero()[:, 0].tolist()
            lo, hi, full_lo, full_hi = key_bounds(call, (variant,), b, first, last)
            where = (stack, b, first, last)
            assert list(range(lo, hi)) == some, where
            assert list(range(full_lo, full_hi)) == every, where


@pytest.mark.parametrize("device", LEGS[1:])
@pytest.mark.parametrize("rows, keys", [(11, 19), (19, 11)])
@pytest.mark.parametrize("stack", BOUNDED)
def test_bounds_of_hooks_are_exact(device, stack, rows, keys):
    """The keys that a tile of rows sees, and the rows that see a tile of keys."""
    if stack == "document" and rows > keys:
        pytest.skip("documents have no more queries than keys")
    shape = Sizes(2, 1, 1, rows, keys, 8, 8)
    tensors = stacks.draw(stack, shape, torch.Generator().manual_seed(1), torch.float32)
    (variant,) = stacks.build(stack, tensors)
    seen = _seen(variant, rows, keys)
    (variant,) = stacks.build(stack, [x if x is None else x.to(device) for x in tensors])
    hooks = variant_stack([variant])
    offset = keys - rows
    for (bounds,), seen_by, start, other in (
        (hooks.key_bounds, seen, offset, 0),
        (hooks.query_bounds, seen.mT, 0, offset),
    ):
        length, count, width = 5, seen_by.shape[1], seen_by.shape[2]
        ranges = [(start + i, start + min(i + length, count) - 1) for i in range(count)]
        ranges = torch.tensor(ranges, dtype=torch.int32, device=device)
        found = torch.zeros(2, 1, count, 4, dtype=torch.int64, device=device)
        probe.probe_bounds(bounds, hooks.mask_args[0], ranges, found, rows, keys)
        for b, i in ((b, i) for b in range(2) for i in range(count)):
            lo, hi, full_lo, full_hi = (found[b, 0, i] - other).clamp(0, width).tolist()
            tile = seen_by[b, i : i + length]
            assert list(range(lo, hi)) == tile.any(0).nonzero()[:, 0].tolist(), (b, i)
            assert list(range(full_lo, full_hi)) == tile.all(0).nonzero()[:, 0].tolist(), (b, i)
