"""`paged_attention` against the dense fp64 reference, within the budget, on every leg.

Every slot that no sequence owns holds NaN, including the ends of last pages.  Mutations caught here
(`python -m tests.mutations` runs those in tests/mutation_tables):

    test_output_and_lse             a tile that starts in the wrong page or block; heads of a group
        mixed up; rows beyond the group kept; V loaded beyond the last key; scales forgotten
    test_every_context              the last page cut wrongly
    test_splits_agree               splits that overlap; NaN from empty splits; partial results not
        rescaled
    test_physical_blocks_...        results that depend on the order of blocks
    test_pages_before_the_...       pages outside the bounds read, in either backend
    test_bounds_may_differ_...      bounds of a group's first head used for all
"""

import math
from dataclasses import replace

import pytest
import torch

import fused_attention as fa
from fused_attention.ops.paged import checks as paged_checks
from fused_attention.ops.paged import torch_backend, torch_decode

from ...helpers import paged
from ...helpers.paged import PagedCase
from ...helpers.support import FLOATS, every_leg, name_of, over_cases

INT8, E4M3 = torch.int8, torch.float8_e4m3fn
DECODE = ((1, 1), (1, 16), (1, 33))
MIXED = ((1, 40), (0, 7), (20, 33), (3, 3), (4, 50))

CASES = {
    "decode": PagedCase(((1, 1), (1, 16), (1, 17), (1, 65))),
    "idle": PagedCase(((0, 0), (0, 33), (1, 0), (1, 5), (2, 0))),
    "chunks": PagedCase(((5, 5), (7, 40), (33, 65)), 2, 2, 64),
    "speculation": PagedCase(((3, 20), (4, 64)), 4, 1, 64, 32),
    "mixed": PagedCase(MIXED),
    "fewer_keys": PagedCase(((9, 4), (17, 16)), 3, 1),
    "group_1": PagedCase(DECODE, 3, 3),
    "group_2": PagedCase(MIXED, 4, 2),
    "group_3": PagedCase(MIXED, 3, 1),
    "group_4": PagedCase(DECODE, 8, 2, 80),
    "group_5": PagedCase(((4, 40), (1, 17)), 10, 2),
    "group_6": PagedCase(((4, 20), (3, 33)), 6, 1),
    "group_7": PagedCase(((20, 40), (1, 17)), 14, 2),
    "group_8": PagedCase(((2, 40), (1, 3), (3, 20)), 16, 2),
    "group_16": PagedCase(((1, 40), (3, 17)), 16, 1),
    "group_20": PagedCase(((1, 20), (2, 33)), 20, 1),
    "group_71": PagedCase(((1, 20), (2, 33)), 71, 1, 16),
    "head_dim_32": PagedCase(DECODE, 2, 1, 32),
    "head_dim_64": PagedCase(DECODE, 2, 1, 64),
    "head_dim_80": PagedCase(((2, 20), (1, 33)), 2, 1, 80),
    "head_dim_96": PagedCase(DECODE, 2, 1, 96),
    "head_dim_128": PagedCase(((2, 20), (1, 33)), 2, 1, 128),
    "head_dim_192": PagedCase(DECODE, 2, 1, 192),
    "page_48": PagedCase(((1, 97), (20, 48)), page_size=48),
    "page_64": PagedCase(((1, 129), (20, 64)), page_size=64),
    "full": PagedCase(MIXED, stack=""),
    "top_left": PagedCase(((3, 40), (20, 20)), stack="top_left"),
    "window": PagedCase(((1, 97), (40, 65), (3, 20)), stack="causal+window"),
    "window_both": PagedCase(((4, 97), (20, 65)), stack="window_both"),
    "softcap": PagedCase(MIXED, stack="softcap+causal"),
    "alibi": PagedCase(MIXED, 6, 2, stack="alibi+causal"),
    "past_bias": PagedCase(MIXED, 6, 2, stack="past_bias+causal"),
    "stack": PagedCase(MIXED, 6, 2, stack="softcap+alibi+window+causal"),
    "no_bounds": PagedCase(MIXED, 6, 2, stack="stripes+causal"),
    "users_bounds": PagedCase(((4, 50), (20, 30)), stack="prefix"),
    "users_score": PagedCase(MIXED, stack="bend+causal"),
    "sink": PagedCase(MIXED, 6, 2, stack="causal+logit"),
    "sink_idle": PagedCase(((0, 0), (1, 0), (2, 5)), stack="window+logit"),
    "scale": PagedCase(DECODE, options={"scale": 0.3}),
    "negative_scale": PagedCase(MIXED, options={"scale": -0.3}),
    "narrower_storage": PagedCase(MIXED, storage=torch.bfloat16, dtype=torch.float32),
    "int8_head": PagedCase(MIXED, 6, 2, storage=INT8, scaling="head"),
    "int8_token": PagedCase(MIXED, 6, 2, storage=INT8, scaling="token"),
    "e4m3_head": PagedCase(MIXED, storage=E4M3, scaling="head"),
    "e4m3_token": PagedCase(MIXED, 5, 1, 80, storage=E4M3, scaling="token"),
    "quantized_stack": PagedCase(MIXED, stack="softcap+window", storage=INT8, scaling="head"),
    "quantized_negative_scale": PagedCase(
        DECODE, storage=INT8, scaling="head", options={"scale": -0.1}
    ),
}


@over_cases(CASES)
def test_output_and_lse(device, case, dtype):
    paged.check(paged.make(case, dtype, device))


@every_leg
def test_every_context(device):
    """Context lengths from 0 to 4 pages and one key, with 0, 1 or 3 queries."""
    lens = tuple((n % 3 + (n % 3 == 2), n) for n in range(66))
    paged.check(paged.make(PagedCase(lens, 2, 1, 16), torch.float32, device))


SPLITS = {
    "decode": PagedCase(((1, 97), (1, 5), (1, 0)), 2, 1),
    "several": PagedCase(((4, 97), (9, 33)), 3, 1),
    "window": PagedCase(((2, 129), (1, 33)), 2, 1, stack="causal+window"),
    "quantized": PagedCase(((1, 65), (3, 40)), 2, 1, storage=INT8, scaling="token"),
}


@every_leg
@pytest.mark.parametrize("case", SPLITS.values(), ids=SPLITS)
def test_splits_agree(device, case):
    problem = paged.make(case, torch.float32, device)
    for num_splits in (1, 2, 3, 5, 17):
        paged.check(problem, num_splits=num_splits)


@every_leg
def test_more_splits_than_there_is_work(device):
    problem = paged.make(PagedCase(((1, 20),), 2, 1, 16), torch.float16, device)
    paged.check(problem, num_splits=128)


@every_leg
@pytest.mark.parametrize("num_splits", [1, 3])
def test_physical_blocks_change_no_bit(device, num_splits):
    case = PagedCase(MIXED, stack="alibi+causal")
    for_order = [paged.make(case, torch.bfloat16, device, order=order) for order in (0, 1)]
    assert not torch.equal(for_order[0].block_table, for_order[1].block_table)
    results = [problem.attend(num_splits=num_splits) for problem in for_order]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@every_leg
@pytest.mark.parametrize("most", [None, 20, 1000])
def test_max_seqlen_q_changes_nothing(device, most):
    """An unknown, tight or loose max_seqlen_q: it selects how programs find their tile."""
    paged.check(paged.make(PagedCase(MIXED), torch.float32, device), max_seqlen_q=most)
    decode = paged.make(PagedCase(DECODE), torch.float32, device)
    paged.check(decode, max_seqlen_q=None if most is None else max(1, most // 20))


@every_leg
@pytest.mark.parametrize("num_splits", [1, 4])
def test_pages_before_the_window_are_not_read(device, num_splits):
    """Pages before the window are not read, so that the cache may release their blocks."""
    case = PagedCase(((1, 97), (4, 70)), 2, 1, stack="causal+window")
    problem = paged.make(case, torch.float32, device)
    expected = paged.check(problem, num_splits=num_splits)
    table = problem.block_table.clone()
    for row, (queries, keys) in enumerate(case.lens):
        gone = (keys - queries - 20) // case.page_size
        assert gone >= 2
        table[row, :gone] = table[0, -1]  # holds NaN
    found = replace(problem, block_table=table).attend(num_splits=num_splits)
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first, second)


IN_PLACE = {
    "contexts": PagedCase(((1, 1), (1, 15), (1, 16), (1, 17), (1, 65))),
    "group": PagedCase(((1, 40), (1, 64)), 8, 2, 80),
    "window": PagedCase(((1, 97), (1, 65), (1, 20), (1, 5)), 2, 1, stack="causal+window"),
    "sink": PagedCase(((1, 50),), 6, 2, stack="logit"),
    "windows": PagedCase(((1, 97), (1, 33)), 3, 3, stack="window_both+causal+window"),
}


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64], ids=name_of)
@pytest.mark.parametrize("case", IN_PLACE.values(), ids=IN_PLACE)
def test_one_query_reads_its_pages_in_place(case, dtype, monkeypatch):
    """Nothing is gathered, and consecutive blocks, read in one call, give the same bits."""
    monkeypatch.setattr(torch_decode, "_BYTES_A_CALL", 0)
    monkeypatch.setattr(torch_backend, "_gather", None)
    problem = paged.make(case, dtype)
    expected = paged.check(problem)
    found = paged.in_order(problem).attend()
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("stack", "calls"), [("causal", 2), ("causal+window", 3)])
def test_consecutive_blocks_are_read_in_one_call(stack, calls, monkeypatch):
    """97 keys are six full pages and one key; the last 21 are four keys, a page and one key."""
    monkeypatch.setattr(torch_decode, "_BYTES_A_CALL", 0)
    made, attend = [], torch_decode.forward_whole
    monkeypatch.setattr(
        torch_decode, "forward_whole", lambda *args: made.append(args) or attend(*args)
    )
    paged.in_order(paged.make(PagedCase(((1, 97),), stack=stack), torch.float32)).attend()
    assert len(made) == calls
    assert sum(k.shape[0] * k.shape[2] for _, k, *_ in made) == (97 if calls == 2 else 21)


def test_only_visible_pages_are_gathered(monkeypatch):
    """With a window the work does not grow with the context length."""
    problem = paged.make(
        PagedCase(((1, 497), (4, 470)), 2, 1, stack="causal+window"), torch.float32
    )
    pages = []
    gather = torch.index_select

    def counted(x, dim, index, **options):
        pages.append(len(index))
        return gather(x, dim, index, **options)

    monkeypatch.setattr(torch, "index_select", counted)
    problem.attend()
    assert pages and max(pages) <= 3  # windows of 21 and 24 keys, in pages of 16


@every_leg
@pytest.mark.parametrize("num_splits", [1, 2])
def test_bounds_may_differ_among_the_heads_of_a_group(device, num_splits):
    case = PagedCase(((1, 70), (5, 40)), 4, 1, stack="head_window")
    paged.check(paged.make(case, torch.float32, device), num_splits=num_splits)


@every_leg
def test_variants_see_the_index_of_the_sequence(device):
    problem = paged.make(PagedCase(MIXED, 4, 2), torch.float32, device)
    ends = problem.cu_seqlens_q.tolist()
    slopes = torch.rand(len(MIXED), 4, generator=torch.Generator().manual_seed(1)).to(device)
    shorter = (problem.seq_lens - 2).clamp(min=0)
    variants = (fa.alibi(slopes), fa.causal(), fa.key_padding(shorter))
    out = fa.paged_attention(
        *(problem.q, problem.kv, problem.block_table, problem.seq_lens, problem.cu_seqlens_q),
        variants,
    )
    for index in range(len(MIXED)):
        dense = problem.dense(index).double()
        own = (fa.alibi(slopes[index]), fa.causal(), fa.key_padding(shorter[index][None]))
        expected = fa.reference.attention(dense.q, dense.k, dense.v, own).out[0].transpose(0, 1)
        torch.testing.assert_close(
            out[ends[index] : ends[index + 1]].double(), expected, rtol=1e-5, atol=1e-5
        )


@every_leg
def test_any_strides(device):
    case = PagedCase(((2, 40), (1, 17)), 4, 2)
    problem = paged.make(case, torch.float32, device)
    wide = torch.full((3, 6, 40), math.nan, device=device)
    wide[:, ::2][:, :3, :32] = problem.q[:, :3]
    q = torch.full((3, 8, 40), math.nan, device=device)[:, ::2, 4:36]
    q.copy_(problem.q)
    blocks, _, page, heads, dim = problem.kv.shape
    layers = torch.full((blocks, page, 2, 3, heads, dim), math.nan, device=device)
    kv = layers[:, :, :, 1].transpose(1, 2)
    kv.copy_(problem.kv)
    table = problem.block_table.new_full((2, 2 * problem.block_table.shape[1]), -1)
    table = table[:, : problem.block_table.shape[1]].copy_(problem.block_table)
    paged.check(replace(problem, q=q, kv=kv, block_table=table))


@every_leg
def test_empty_batches(device):
    problem = paged.make(PagedCase(((0, 5), (0, 0))), torch.float32, device)
    out, lse = problem.attend()
    assert out.shape == (0, 4, 32) and lse.shape == (0, 4)
    nothing = replace(
        problem,
        block_table=problem.block_table[:0],
        seq_lens=problem.seq_lens[:0],
        cu_seqlens_q=problem.cu_seqlens_q[:1],
    )
    assert nothing.attend()[0].shape == (0, 4, 32)


@pytest.mark.interpreter
def test_lengths_beyond_the_table_are_cut(monkeypatch):
    """Lengths on a GPU are not checked; one that is too long must not read out of bounds."""
    problem = paged.make(PagedCase(((2, 32), (1, 32)), 2, 1), torch.float32)
    problem = replace(problem, block_table=problem.block_table[:, :2].contiguous())
    expected = problem.attend()
    unread = paged_checks.Lengths(problem.cu_seqlens_q.tolist(), [])
    monkeypatch.setattr(paged_checks, "read_lengths", lambda *args: unread)
    found = replace(problem, seq_lens=problem.seq_lens + 1000).attend()
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first, second)


@pytest.mark.gpu
def test_a_captured_graph_follows_its_metadata():
    problem = paged.make(PagedCase(((1, 65), (1, 65)), 4, 2, 64), torch.float16, "cuda")
    warm = problem.attend(max_seqlen_q=1, num_splits=2)
    graph = torch.cuda.CUDAGraph()
    arguments = (problem.q, problem.kv, problem.block_table, problem.seq_lens)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = fa.paged_attention(*arguments, problem.cu_seqlens_q, max_seqlen_q=1, num_splits=2)
    graph.replay()
    assert torch.equal(out, warm[0])
    problem.seq_lens.copy_(torch.tensor([3, 40]))
    graph.replay()
    expected = fa.paged_attention(*arguments, problem.cu_seqlens_q, max_seqlen_q=1, num_splits=2)
    assert torch.equal(out, expected) and not torch.equal(out, warm[0])
