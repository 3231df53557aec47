"""Paged attention, and the kernels that write the paged KV cache."""

from .mutation import OPS, Mutation, torch

ATTENTION_PAGED, PAGED_TORCH = "kernels/paged_attention.py", f"{OPS}paged/torch_backend.py"
DECODE_TORCH = f"{OPS}paged/torch_decode.py"
QUANTIZATION = f"{OPS}paged/quantization.py"


def case(name: str) -> str:
    return f"ops/attention/test_attention.py::test_output_and_gradients[*-{name}-*]"


def paged(test: str) -> str:
    return f"ops/paged/test_paged_attention.py::test_{test}"


def append(test: str) -> str:
    return f"ops/paged/test_paged_append.py::test_{test}"


PAGED = (
    Mutation(
        "V loaded beyond the last key, paged",
        ATTENTION_PAGED,
        "v_ptr + origin, offs_n, stride_slot, lo, hi,",
        "v_ptr + origin, offs_n, stride_slot, lo, hi + 1,",
        paged("output_and_lse[interpreted-decode-*]"),
    ),
    Mutation(
        "pages before the window read",
        ATTENTION_PAGED,
        "    bounds = _split_bounds(",
        "    lo, hi, full_lo, full_hi = bounds\n"
        "    bounds = _split_bounds((0 * lo, hi, full_lo, full_hi), BLOCK_N)  # (",
        paged("pages_before_the_window_are_not_read[1-interpreted]"),
    ),
    Mutation(
        "a tile in the middle of a page read from its start",
        ATTENTION_PAGED,
        "page.to(tl.int64) * PAGE_SIZE * stride_slot",
        "start_n.to(tl.int64) * stride_slot",
        paged("output_and_lse[interpreted-page_64-*]"),
    ),
    Mutation(
        "blocks multiplied in 32 bits",
        ATTENTION_PAGED,
        "tl.load(block_table_ptr + page).to(tl.int64)",
        "tl.load(block_table_ptr + page)",
        "ops/attention/test_offsets.py::test_of_pages[*interpreted]",
    ),
    Mutation(
        "table of the first sequence for all",
        ATTENTION_PAGED,
        "block_table_ptr += off_b.to(tl.int64) * stride_table",
        "block_table_ptr += 0 * stride_table",
        paged("output_and_lse[interpreted-decode-*]"),
    ),
    Mutation(
        "heads of a group and tokens swapped",
        ATTENTION_PAGED,
        "offs_m = start_m + offs_r // GROUP_SIZE",
        "offs_m = start_m + offs_r % TOKENS",
        paged("output_and_lse[interpreted-group_2-*]"),
    ),
    Mutation(
        "rows beyond the last full group kept",
        ATTENTION_PAGED,
        "exists = (offs_r < TOKENS * GROUP_SIZE) & (offs_m < seqlen_q)",
        "exists = offs_m < seqlen_q",
        paged("output_and_lse[interpreted-group_7-*]"),
    ),
    Mutation(
        "search ends one sequence early",
        ATTENTION_PAGED,
        "// TOKENS + middle <= tile",
        "// TOKENS + middle < tile",
        paged("max_seqlen_q_changes_nothing[1000-interpreted]"),
    ),
    Mutation(
        "bounds of the first head for the group",
        ATTENTION_PAGED,
        "            lo = tl.minimum(lo, lo_h)\n",
        "",
        paged("bounds_may_differ_among_the_heads_of_a_group[1-interpreted]"),
    ),
    Mutation(
        "lengths not cut to the block table",
        ATTENTION_PAGED,
        "tl.minimum(tl.load(seq_lens_ptr + off_b), max_blocks * PAGE_SIZE)",
        "tl.load(seq_lens_ptr + off_b)",
        paged("lengths_beyond_the_table_are_cut"),
    ),
    Mutation(
        "splits overlap",
        ATTENTION_PAGED,
        "split_hi = tl.minimum(split_lo + share * BLOCK, end * BLOCK)",
        "split_hi = tl.minimum(split_lo + (share + 1) * BLOCK, end * BLOCK)",
        paged("splits_agree[decode-interpreted]"),
    ),
    Mutation(
        "partial results weighed equally",
        ATTENTION_PAGED,
        "tl.exp2((m - most) * LOG2E + log_sum)[:, None] * partial",
        "tl.exp2((m - m) * LOG2E + log_sum)[:, None] * partial",
        paged("splits_agree[several-interpreted]"),
    ),
    Mutation(
        "empty splits give NaN",
        ATTENTION_PAGED,
        "most = finite(tl.max(all_m, 0))",
        "most = tl.max(all_m, 0)",
        paged("splits_agree[decode-interpreted]"),
    ),
    Mutation(
        "scale of values forgotten",
        ATTENTION_PAGED,
        "acc *= tl.load(scales_ptr + num_kv_heads + off_hk)",
        "acc *= 1.0",
        paged("output_and_lse[interpreted-int8_head-*]"),
    ),
    Mutation(
        "scales of tokens read for keys twice",
        ATTENTION_PAGED,
        "at + PAGE_SIZE * num_kv_heads, mask=real",
        "at, mask=real",
        paged("output_and_lse[interpreted-e4m3_token-*]"),
    ),
    Mutation(
        "subnormals of e4m3 rounded as normals",
        "kernels/quantization.py",
        "code = tl.where(size < 0.015625, below, normal)",
        "code = normal",
        append("quantized_numbers_are_the_nearest[float8_e4m3fn-interpreted]"),
    ),
    Mutation(
        "ties of int8 away from zero",
        "kernels/quantization.py",
        "rounded = (x + 12582912.0)",
        "rounded = (x * 1.001 + 12582912.0)",
        append("quantized_numbers_are_the_nearest[int8-interpreted]"),
    ),
    Mutation(
        "int8 wraps around instead of saturating",
        "kernels/paged_cache.py",
        "tl.minimum(tl.maximum(x, -LARGEST), LARGEST)",
        "tl.maximum(x, -LARGEST)",
        append("quantized_numbers_are_the_nearest[int8-interpreted]"),
    ),
    Mutation(
        "NaN of int8 read as -128",
        "kernels/quantization.py",
        'tl.where(x == INT8_NAN, float("nan"), x.to(dtype))',
        "x.to(dtype)",
        append("what_is_not_finite_is_read_back_as_nan[v-nan-head-int8-interpreted]"),
    ),
    Mutation(
        "infinity saturates",
        "kernels/paged_cache.py",
        'x = tl.where(tl.abs(x) < float("inf"), x, float("nan"))',
        "x = x",
        append("what_is_not_finite_is_read_back_as_nan[v-inf-head-*-interpreted]"),
    ),
    Mutation(
        "zero over a scale of zero stored as NaN",
        "kernels/paged_cache.py",
        "other=1.0)\n                scale = tl.where(scale == 0, 1.0, scale)",
        "other=1.0)",
        append("zeros_stay_zeros[head-*-interpreted]"),
    ),
    torch(
        "NaN of int8 read as -128, torch",
        QUANTIZATION,
        "x.masked_fill_(stored == _INT8_NAN, torch.nan)",
        "pass",
        append("what_is_not_finite_is_read_back_as_nan[v-nan-head-int8-torch]"),
    ),
    torch(
        "NaN of int8 stored as 0",
        QUANTIZATION,
        "x.round().nan_to_num(_INT8_NAN)",
        "x.round().nan_to_num(0)",
        append("what_is_not_finite_is_read_back_as_nan[k-nan-head-int8-torch]"),
    ),
    torch(
        "infinity saturates, torch",
        QUANTIZATION,
        "x = x.where(x.isfinite(), torch.nan) / ",
        "x = x / ",
        append("what_is_not_finite_is_read_back_as_nan[k-inf-head-*-torch]"),
    ),
    torch(
        "zero over a scale of zero stored as NaN, torch",
        QUANTIZATION,
        "scales.where(scales != 0, 1)[..., None]",
        "scales[..., None]",
        append("zeros_stay_zeros[head-*-torch]"),
    ),
    Mutation(
        "a token without a slot stored",
        "kernels/paged_cache.py",
        "    if slot < 0:\n        return\n",
        "    slot = tl.maximum(slot, 0)\n",
        append("tokens_land_in_their_slots[*interpreted]"),
    ),
    Mutation(
        "end of a block not copied",
        "kernels/paged_cache.py",
        "some = offs < block_size",
        "some = offs < block_size - 1",
        append("blocks_are_copied[*interpreted]"),
    ),
    Mutation(
        "splits weighed by one number",
        ATTENTION_PAGED,
        "acc += tl.sum(tl.exp2((m - most) * LOG2E + log_sum)[:, None] * partial, 0)",
        "acc += tl.sum(tl.exp2((m + log_sum * LN2 - most) * LOG2E)[:, None] * partial, 0)",
        "ops/attention/test_magnitudes.py::test_splits_of_huge_scores*[65--1000000000.0-interpreted]",
    ),
    torch(
        "pages merged by a huge LSE",
        DECODE_TORCH,
        "return None if extreme(lse) else (out, lse)",
        "return out, lse",
        "ops/attention/test_magnitudes.py::test_pages_of_huge_scores_count_their_keys",
    ),
    Mutation(
        "LSE without the sink",
        f"{OPS}attention/sinks.py",
        "lse = torch.logaddexp(lse, logits)",
        "lse = lse + 0",
        case("sink"),
    ),
    torch(
        "sink logit 1 % too large",
        f"{OPS}attention/sinks.py",
        "sink.type.sink_logit(sink.args).to(lse.dtype)",
        "sink.type.sink_logit(sink.args).to(lse.dtype) * 1.01",
        case("sink_window"),
    ),
    torch(
        "pages of a window gathered to the front",
        PAGED_TORCH,
        "stored, into = kv[:, side], buffer[side, pages]",
        "stored, into = kv[:, side], buffer[side, : len(blocks)]",
        paged("pages_before_the_window_are_not_read[1-torch]"),
    ),
    torch(
        "all pages gathered, whatever the window",
        PAGED_TORCH,
        "pages = slice(first // page_size,",
        "pages = slice(0 * first,",
        paged("only_visible_pages_are_gathered"),
    ),
    torch(
        "in-place pages merged without their weights",
        DECODE_TORCH,
        "weights = (lse - most).exp()",
        "weights = torch.ones_like(lse)",
        paged("one_query_reads_its_pages_in_place[contexts-float32]"),
    ),
    torch(
        "in-place pages joined if not consecutive",
        DECODE_TORCH,
        "blocks[page] == blocks[page - 1] + 1",
        "True",
        paged("one_query_reads_its_pages_in_place[contexts-float32]"),
    ),
    torch(
        "in-place page read from before the window",
        DECODE_TORCH,
        "yield blocks[first], page - first, slice(start, stop)",
        "yield blocks[first], page - first, slice(0, stop)",
        paged("one_query_reads_its_pages_in_place[window-float32]"),
    ),
    torch(
        "in-place page read beyond the last key",
        DECODE_TORCH,
        "stop = min(page_size, start + hi - key)",
        "stop = page_size",
        paged("one_query_reads_its_pages_in_place[contexts-float32]"),
    ),
    torch(
        "mask not applied to a single query",
        PAGED_TORCH,
        "and full_lo <= lo and hi <= full_hi:",
        "and True:",
        paged("output_and_lse[torch-no_bounds-float32]"),
    ),
    torch(
        "variants see sequence 0",
        PAGED_TORCH,
        "_sequence(q_b, k, v, shape, range(b, b + 1),",
        "_sequence(q_b, k, v, shape, range(1),",
        paged("variants_see_the_index_of_the_sequence[torch]"),
    ),
    torch(
        "slots used twice let through",
        f"{OPS}paged/checks.py",
        "twice = used[1:] == used[:-1]",
        "twice = used[1:] == -1",
        "ops/paged/test_paged_errors.py::test_bad_slots_leave_the_cache_unchanged[*]",
    ),
    torch(
        "blocks outside the pool let through",
        f"{OPS}paged/checks.py",
        "outside = owned & ((block_table < 0) | (block_table >= num_blocks))",
        "outside = owned & ((block_table < 0) | (block_table > num_blocks))",
        "ops/paged/test_paged_errors.py::test_bad_metadata[outside]",
    ),
)
