"""The gradient of a table: an argument of which every score reads one entry (`torch_arg_index`).

`test_variants` and `test_properties` compare it with autograd through the reference, among all
other variants.  Here are small strips and tiles, the order of additions, and what checks allow.

Seen failing on: threads that add at once, a strip that is read from row 0 on or stored beside its
place, a table cut to the tile, contributions dropped along a broadcast dimension of the index.
"""

import pytest
import torch

import fused_attention as fa
from fused_attention.ops.attention import tables
from fused_attention.variants.base import Shape

from ...helpers import budget, custom_variants, inputs
from ...helpers.stacks import Sizes
from ...helpers.support import every_leg, set_tiles, thinned

SIZES = {
    "fewer_rows": Sizes(2, 4, 2, 49, 70, 8, 16),
    "fewer_keys": Sizes(1, 2, 2, 70, 33, 8, 8),
    "one_row": Sizes(2, 2, 1, 1, 40, 8, 8),
}


@thinned("stack, sizes", ("relative+window", "gate+softcap+key_padding"), tuple(SIZES))
def test_many_strips_and_tiles(device, stack, sizes, monkeypatch):
    set_tiles(monkeypatch, 16, 16)
    monkeypatch.setattr(tables, "CONTRIBUTIONS", 1)
    case = inputs.make(SIZES[sizes], torch.float32, device, stack=stack)
    budget.check(case, dropout_p=0.3)


@every_leg
def test_the_same_bits_every_time(device, monkeypatch):
    """Many scores read each entry, and threads share the work where they may."""
    threads = torch.get_num_threads()
    length = 40 if device == "cpu" and fa._triton.INTERPRETED else 400
    q, k, v, do = (torch.randn(2, 2, length, 8, device=device) for _ in range(4))
    table = torch.randn(31, 2, device=device, requires_grad=True)
    torch.set_num_threads(4)
    try:
        out = fa.attention(q, k, v, custom_variants.RELATIVE(table, 15))
        first, *others = (
            torch.autograd.grad(out, table, do, retain_graph=True)[0] for _ in range(6)
        )
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("size", [(1,), (2, 3), (3, 1, 2), (2, 2, 3, 2, 1)])
@pytest.mark.parametrize("index_size", [(2, 3, 4, 5), (1, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1)])
def test_contributions_of_any_shape(size, index_size):
    """Tables of any rank; an index of size 1 along a dimension is that of all scores along it."""
    generator = torch.Generator().manual_seed(0)
    contributions = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    dtable = torch.randn(size, generator=generator, dtype=torch.float64)
    index = torch.randint(dtable.numel(), index_size, generator=generator)
    expected = dtable.clone().flatten()
    for at, x in zip(
        index.expand(2, 3, 4, 5).flatten().tolist(), contributions.flatten(), strict=True
    ):
        expected[at] += x
    tables.add_at(dtable, index, contributions)
    torch.testing.assert_close(dtable.flatten(), expected)


@pytest.mark.parametrize("seqlen_q, seqlen_k", [(1, 7), (100, 7), (5000, 7), (300, 1 << 20)])
def test_strips_cover_all_rows_and_hold_no_square(seqlen_q, seqlen_k):
    shape = Shape(2, 4, seqlen_q, seqlen_k, torch.device("cpu"))
    rows = list(tables.strips(shape, 64))
    assert [i for strip in rows for i in range(strip.start, strip.stop)] == list(range(seqlen_q))
    assert all(strip.start % 64 == 0 for strip in rows)
    for strip in rows:
        held = 2 * 4 * seqlen_k * (strip.stop - strip.start)
        assert held <= tables.CONTRIBUTIONS or strip.stop - strip.start <= 64


def test_only_a_table_may_have_other_than_four_dimensions():
    x = torch.randn(1, 2, 9, 8)
    sink = custom_variants.SINK(torch.randn(2, 9, requires_grad=True), 0.5)
    with pytest.raises(ValueError, match="needs a 4-D argument, or a torch_arg_index"):
        fa.attention(x, x, x, sink)
