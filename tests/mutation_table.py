"""What `mutations` breaks, and which test must notice."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """``old`` occurs once in ``file``; ``test`` is below tests/, * in it standing for anything."""

    name: str
    file: str
    old: str
    new: str
    test: str
    interpreted: bool = True


FORWARD, BACKWARD = "kernels/attention_forward.py", "kernels/attention_backward.py"
HOOKS, NUMERICS, DROPOUT = "kernels/hooks.py", "kernels/numerics.py", "kernels/dropout.py"
VARIANTS, OPS = "fused_attention/variants/", "fused_attention/ops/"
LAYERS = "fused_attention/modules/"
ONLINE, ATEN, TORCH = (f"{OPS}attention_{name}.py" for name in ("online", "aten", "torch"))

POOL, TABLES = "fused_attention/block_pool.py", "fused_attention/page_tables.py"
STEP, KV_CACHE = "fused_attention/step_tensors.py", "fused_attention/paged_kv_cache.py"
ATTENTION_PAGED, PAGED_TORCH = "kernels/attention_paged.py", f"{OPS}paged_attention_torch.py"
HISTORIES = "test_cache_stateful.py::test_any_sequence_of_operations"


def case(name: str) -> str:
    return f"test_attention.py::test_output_and_gradients[*-{name}-*]"


def attention(test: str) -> str:
    return f"test_attention.py::test_{test}"


def paged(test: str) -> str:
    return f"test_paged_attention.py::test_{test}"


def append(test: str) -> str:
    return f"test_paged_append.py::test_{test}"


def torch(*fields: str) -> Mutation:
    return Mutation(*fields, interpreted=False)


LOSS, LINEAR_LOSS = "kernels/cross_entropy.py", f"{OPS}linear_cross_entropy.py"


def cross_entropy(test: str) -> str:
    return f"test_cross_entropy.py::test_{test}"


def linear_cross_entropy(test: str) -> str:
    return f"test_linear_cross_entropy.py::test_{test}"


KERNELS = (
    Mutation(
        "no rescale of acc",
        FORWARD,
        "v, acc * alpha[:, None], PRECISION)",
        "v, acc, PRECISION)",
        case("whole_tiles"),
    ),
    Mutation("no rescale of l_i", FORWARD, "l_i * alpha +", "l_i +", case("whole_tiles")),
    Mutation(
        "ragged tiles not masked",
        FORWARD,
        's = tl.where(fold_masks(keep, at, MASKS, mask_args), s * scale, float("-inf"))',
        "s = s * scale",
        case("one_over"),
    ),
    Mutation(
        "last tile not cut at the end",
        FORWARD,
        "keep = ((offs_n >= lo) & (offs_n < hi))[None, :]",
        "keep = (offs_n >= lo)[None, :]",
        case("one_over"),
    ),
    Mutation(
        "empty rows divide by zero",
        FORWARD,
        "l_safe = tl.where(l_i == 0, 1.0, l_i)",
        "l_safe = l_i",
        attention("rows_with_nothing_to_attend[interpreted]"),
    ),
    Mutation(
        "sign of a negative scale lost",
        FORWARD,
        "tl.where(sm_scale < 0, negative(q), q)",
        "q",
        case("negative_scale"),
    ),
    Mutation(
        "wrong group index, forward",
        FORWARD,
        "off_hk = off_h // GROUP_SIZE",
        "off_hk = off_h % GROUP_SIZE",
        case("groups_of_two"),
    ),
    Mutation(
        "wrong group index, key gradient",
        BACKWARD,
        "off_h = off_hk * GROUP_SIZE + group",
        "off_h = off_hk + num_kv_heads * group",
        case("groups_of_two"),
    ),
    Mutation(
        "wrong group index, argument gradient",
        BACKWARD,
        "k_head = k_ptr + b * stride_kb + h // GROUP_SIZE * stride_kh",
        "k_head = k_ptr + b * stride_kb + h % GROUP_SIZE * stride_kh",
        case("groups_of_two"),
    ),
    Mutation(
        "strides swapped",
        "kernels/launch.py",
        "for stride in x.stride()[:3]",
        "for stride in (x.stride(1), x.stride(0), x.stride(2))",
        case("permuted"),
    ),
    Mutation(
        "V loaded beyond the keys there are",
        FORWARD,
        "v = load_rows(v_ptr, offs_n, stride_vn, lo, hi,",
        "v = load_rows(v_ptr, offs_n, stride_vn, 0, seqlen_k,",
        attention("nan_in_padding_does_not_leak[*interpreted]"),
    ),
    Mutation(
        "NaN let through in the key gradient",
        BACKWARD,
        "                    ds = tl.where(keep, ds, 0.0)\n                dk =",
        "                    ds = ds * tl.where(keep, 1.0, 0.0)\n                dk =",
        attention("nan_in_padding_does_not_leak[*interpreted]"),
    ),
    Mutation(
        "LSE gradient dropped",
        BACKWARD,
        "delta -= tl.load(dlse_ptr",
        "delta -= 0 * tl.load(dlse_ptr",
        attention("gradient_through_lse_alone[*interpreted]"),
    ),
    Mutation(
        "weights of empty rows not zero",
        BACKWARD,
        'return tl.where(lse == float("-inf"), float("inf"), lse)',
        "return lse",
        attention("bias_of_minus_infinity_masks[interpreted]"),
    ),
    Mutation(
        "dropout forgotten in dk",
        BACKWARD,
        "dp = dp * scale",
        "dp = dp * dropout_scale",
        case("dropout"),
    ),
    Mutation(
        "dropout forgotten in dv",
        BACKWARD,
        "p_kept = p * scale",
        "p_kept = p",
        case("dropout"),
    ),
    Mutation(
        "dropout forgotten in dq",
        BACKWARD,
        """dp = tl.where(kept, dp * dropout_scale, 0.0)
            ds = fold_score_grads(
                p * (dp - delta), s * sm_scale""",
        """dp = dp * dropout_scale
            ds = fold_score_grads(
                p * (dp - delta), s * sm_scale""",
        case("dropout"),
    ),
    Mutation(
        "dropout depends on the tile",
        DROPOUT,
        "quad = start_n // 4 + tl.arange",
        "quad = start_n // BLOCK_N + tl.arange",
        attention("dropout_drops_the_same_weights_as_the_reference[interpreted]"),
    ),
    Mutation(
        "argument gradient not summed over heads",
        BACKWARD,
        "count_h = num_heads if SUM_H else 1",
        "count_h = 1",
        "test_variants.py::test_alone_and_in_company[bias_shared-interpreted]",
    ),
    Mutation(
        "score gradients taken at the raw scores",
        HOOKS,
        "s_in = fold_scores(s, at, SCORES, score_args, i)",
        "s_in = s",
        "test_variants.py::test_order_of_scores_matters_and_is_kept[interpreted]",
    ),
    Mutation(
        "row offsets of 32 bits",
        "kernels/memory.py",
        "pointers = ptr + offs[:, None].to(tl.int64) * stride + offs_d[None, :]\n    if MASKED",
        "pointers = ptr + offs[:, None] * stride + offs_d[None, :]\n    if MASKED",
        "test_offsets.py::test_of_inputs[2-*-k-interpreted]",
    ),
    Mutation(
        "head offsets of 32 bits",
        FORWARD,
        "off_hk.to(tl.int64) * stride_kh",
        "off_hk * stride_kh",
        "test_offsets.py::test_of_inputs[1-*-k-interpreted]",
    ),
    Mutation(
        "key offsets of a bias of 32 bits",
        f"{VARIANTS}bias.py",
        "kv_idx.to(tl.int64) * stride_k",
        "kv_idx * stride_k",
        "test_offsets.py::test_of_arguments[3-bias-interpreted]",
    ),
    Mutation(
        "bf16 products left to the interpreter",
        NUMERICS,
        'return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")',
        'return tl.dot(a, b, input_precision="ieee")',
        "test_numerics.py::test_products_accumulate_in_fp32[dtype1-interpreted]",
    ),
    Mutation(
        "bf16 rounding left to the interpreter",
        NUMERICS,
        "if INTERPRETED and dtype == tl.bfloat16:",
        "if False:",
        "test_numerics.py::test_rounds_to_nearest_even[dtype1-interpreted]",
    ),
    Mutation(
        "bf16 negation left to the interpreter",
        NUMERICS,
        "return (-x.to(tl.float32)).to(x.dtype)",
        "return -x",
        "test_numerics.py::test_rounds_to_nearest_even[dtype1-interpreted]",
    ),
)
BOUNDS = (
    Mutation(
        "top left for bottom right, kernels",
        f"{VARIANTS}causal.py",
        "    return kv_idx <= q_idx\n",
        "    return kv_idx <= q_idx - (seqlen_k - seqlen_q)\n",
        attention("causal_alignments_differ[interpreted]"),
    ),
    torch(
        "top left for bottom right, torch",
        f"{VARIANTS}causal.py",
        "args: kv_idx <= q_idx,",
        "args: kv_idx <= q_idx - (seqlen_k - seqlen_q),",
        attention("causal_alignments_differ[torch]"),
    ),
    Mutation(
        "bounds of keys one too tight",
        f"{VARIANTS}causal.py",
        "    return 0, q_last + 1, 0, q_first + 1\n",
        "    return 0, q_last, 0, q_first + 1\n",
        "test_bounds.py::test_bounds_of_hooks_are_exact[causal-*-interpreted]",
    ),
    Mutation(
        "wholly seen keys one too many",
        f"{VARIANTS}causal.py",
        "    return 0, q_last + 1, 0, q_first + 1\n",
        "    return 0, q_last + 1, 0, q_first + 2\n",
        attention("bounds_only_save_work[causal-65-95-interpreted]"),
    ),
    Mutation(
        "bounds of queries too tight",
        f"{VARIANTS}key_padding.py",
        "seen = tl.where(kv_first < length, seqlen_k, first)",
        "seen = tl.where(kv_last < length, seqlen_k, first)",
        case("group_5"),
    ),
    torch(
        "bounds one too tight, torch",
        f"{VARIANTS}causal.py",
        "args: (0, last + 1, 0, first + 1)",
        "args: (0, last, 0, first + 1)",
        attention("bounds_only_save_work[causal-129-65-torch]"),
    ),
    Mutation(
        "window of 256 sees 255 keys",
        f"{VARIANTS}sliding_window.py",
        """def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    left, right = args
    return (kv_idx >= q_idx - left)""",
        """def _mask(b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    left, right = args
    return (kv_idx > q_idx - left)""",
        attention("window_of_255_sees_256_keys[interpreted]"),
    ),
    torch(
        "bounds of one sequence used for all",
        f"{OPS}tiles.py",
        "step = 1 if batched else sequences",
        "step = sequences",
        case("square_padding"),
    ),
)
PATHS = (
    torch(
        "chunks not rescaled",
        ONLINE,
        "acc = acc.mul_(alpha).add_(",
        "acc = acc.add_(",
        attention("tile_sizes_do_not_matter[dropout-*-torch]"),
    ),
    torch(
        "dk overwritten",
        ONLINE,
        "dk[chunk.keys] += _matmul_over_rows",
        "dk[chunk.keys] = _matmul_over_rows",
        attention("tile_sizes_do_not_matter[dropout-*-torch]"),
    ),
    torch(
        "dv overwritten by tiles of ATen's",
        TORCH,
        "dv[tile.keys] += dv_tile",
        "dv[tile.keys] = dv_tile",
        case("square_window"),
    ),
    torch(
        "additive mask dropped",
        f"{OPS}tiles.py",
        "total = torch.where(kept, total, -math.inf)",
        "pass",
        case("square_window"),
    ),
    torch(
        "additive scores dropped",
        f"{OPS}tiles.py",
        "total = cut.torch_score(total, *where)",
        "cut.torch_score(total, *where)",
        case("square_alibi"),
    ),
    torch(
        "LSE gradient dropped, torch",
        ONLINE,
        "delta -= dlse[tile.queries]",
        "delta -= 0 * dlse[tile.queries]",
        attention("gradient_through_lse_alone[*torch]"),
    ),
    torch(
        "LSE gradient left to ATen, which has none",
        TORCH,
        " and dlse is None and not any(wanted)",
        " and not any(wanted)",
        attention("gradient_through_lse_alone[-torch]"),
    ),
    torch(
        "dropout forgotten in the backward pass",
        ONLINE,
        "            dp *= kept\n",
        "",
        case("dropout"),
    ),
    torch(
        "bottom right handed to ATen's top left",
        ATEN,
        'names == ["causal"] and q.shape[2] == k.shape[2]',
        'names == ["causal"]',
        case("square_causal_fewer_rows"),
    ),
    torch(
        "ATen's causal flag with a negative scale",
        ATEN,
        "not names or (scale > 0 and (",
        "not names or (True and (",
        case("square_negative_scale"),
    ),
    torch(
        "wrong group index, torch",
        ONLINE,
        "x.reshape(x.shape[0], y.shape[1], -1, x.shape[3])",
        "x.transpose(1, 2).reshape(x.shape[0], y.shape[1], -1, x.shape[3])",
        case("group_8"),
    ),
    torch(
        "wrong group index, reference",
        "fused_attention/reference.py",
        "k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)",
        "k, v = k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1)",
        "test_reference.py::test_twins_against_loops[causal-7-12]",
    ),
    torch(
        "nine rounds of Philox",
        "fused_attention/philox.py",
        "_ROUNDS = 10",
        "_ROUNDS = 9",
        "test_reference.py::test_philox_known_answers[*]",
    ),
    torch(
        "a scale that is not finite let through",
        f"{OPS}checks.py",
        "if not -math.inf < scale < math.inf:",
        "if math.isnan(scale):",
        "test_errors.py::test_scalars[scale_inf]",
    ),
    torch(
        "checked after the work has begun",
        f"{OPS}attention.py",
        "    variants = as_variants(variants)\n    checks.check_scalars",
        "    q = q + 0\n    variants = as_variants(variants)\n    checks.check_scalars",
        "test_errors.py::test_scalars[dropout_high]",
    ),
)


def op(test: str, name: str, leg: str = "interpreted") -> str:
    """A test of `test_ops`."""
    return f"test_ops.py::test_{test}[*{name}-{leg}]"


def norm(test: str) -> str:
    return f"test_layer_norm.py::test_{test}"


NORM, NORM_TRITON, NORM_TORCH = (
    "kernels/layer_norm.py",
    f"{OPS}norm_triton.py",
    f"{OPS}norm_torch.py",
)
_SUM_OF_SQUARES = "    rstd = tl.rsqrt(tl.sum(h * h, 1) / num_columns + eps)\n"
NORMS = (
    Mutation(
        "masked lanes in the variance",
        NORM,
        "        h = tl.where(keep, h - mean, 0.0)\n        tl.store(mean_ptr + rows, mean + pivot",
        "        h = h - mean\n        tl.store(mean_ptr + rows, mean + pivot",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "masked lanes in the variance of a long row",
        NORM,
        "h = tl.where(keep, h - tile_mean[:, None], 0.0)",
        "h = h - tile_mean[:, None]",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "tiles merged without what lies between their means",
        NORM,
        "            squares += start_n * share * apart * apart\n",
        "",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "the mean of constant rows rounded",
        NORM,
        'tl.where(tl.abs(pivot) < float("inf"), pivot, 0.0)',
        "pivot * 0.0",
        norm("constant_rows_are_exactly_the_bias[*]"),
    ),
    Mutation(
        "bf16 statistics",
        f"{OPS}norm.py",
        "num_rows, dtype = x.shape[0], accumulator(x.dtype)",
        "num_rows, dtype = x.shape[0], x.dtype",
        op("hostile_inputs", "shifted-layer_norm_fp32_parameters"),
    ),
    Mutation(
        "bf16 statistics, kept in fp32",
        NORM,
        "rstd = tl.rsqrt(tl.sum(h * h, 1) / num_columns + eps)",
        "rstd = round_to(tl.rsqrt(tl.sum(h * h, 1) / num_columns + eps), tl.bfloat16)",
        norm("statistics_are_fp32[*-layer_norm]"),
    ),
    Mutation(
        "partial sums in the input's dtype",
        NORM_TRITON,
        "h.new_empty(programs, num_columns, dtype=torch.float32)",
        "h.new_empty(programs, num_columns)",
        norm("sums_over_rows_are_fp32[interpreted]"),
    ),
    Mutation(
        "rows summed in the input's dtype",
        NORM,
        "            dbias += dy\n        g = ",
        "            dbias = round_to(dbias + dy, tl.bfloat16).to(tl.float32)\n        g = ",
        norm("sums_over_rows_are_fp32[interpreted]"),
    ),
    Mutation(
        "a program's share of rows cut short",
        NORM,
        "    step = tl.num_programs(0) * BLOCK_M\n",
        "    step = tl.num_programs(0) * BLOCK_M + num_rows\n",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "the last partial sum left out",
        NORM,
        "keep = (rows < num_partials)",
        "keep = (rows < num_partials - 1)",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "no gradient through the mean",
        NORM,
        "            dh -= (tl.sum(g, 1) / num_columns)[:, None]\n",
        "            pass\n",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "dropout mask not drawn again",
        NORM,
        "dx = _dropped(dh, seed_ptr, rows,",
        "dx = _dropped(dh, None, rows,",
        op("outputs_and_gradients", "add_layer_norm_dropout"),
    ),
    Mutation(
        "another mask in every tile of a long row",
        NORM,
        "seed_ptr, zero, zero, rows, start_n,",
        "seed_ptr, zero, zero, rows, 0,",
        norm("kernels_drop_what_the_torch_path_drops[5120]"),
    ),
    Mutation(
        "gradient of the sum dropped",
        NORM,
        "        dh += _tile(dsum_ptr, rows, offs_n, num_columns, keep)\n",
        "        pass\n",
        op("outputs_and_gradients", "add_rms_norm"),
    ),
    Mutation(
        "gradient of the residual dropped",
        f"{OPS}norm.py",
        "return dresidual if repeats else dx, dresidual, *dparameters",
        "return dresidual if repeats else dx, None, *dparameters",
        norm("gradients_through_either_output[sum-interpreted]"),
    ),
    Mutation(
        "the sum normalised before it is rounded",
        NORM,
        "        h = round_to(h, sum_ptr.dtype.element_ty).to(tl.float32)\n",
        "",
        norm("what_is_normalised_is_the_sum_as_it_is_returned[add_layer_norm-interpreted]"),
    ),
    Mutation(
        "a weight read as if contiguous",
        NORM_TRITON,
        "return None if parameter is None else parameter.contiguous()",
        "return parameter",
        op("any_strides", "columns_apart-layer_norm"),
    ),
    torch(
        "another mask on the torch path",
        f"{OPS}norm_torch.py",
        "kept = philox.keep(seed, 0, 0, row, column, dropout_p)",
        "kept = philox.keep(seed, 0, 1, row, column, dropout_p)",
        op("outputs_and_gradients", "add_layer_norm_dropout", "torch"),
    ),
    torch(
        "operators that need Triton",
        f"{OPS}norm.py",
        "if _triton.serves(x) and x.numel() > 0:",
        "if x.numel() > 0:",
        op("operators_compute_where_aten_serves", "layer_norm", "torch"),
    ),
    torch(
        "a fake in another layout",
        f"{OPS}norm.py",
        "return x.new_empty(x.shape, dtype=dtype), *_empty_statistics(x, centred)",
        "return x.new_empty(x.mT.shape, dtype=dtype).mT, *_empty_statistics(x, centred)",
        op("opcheck", "layer_norm", "torch"),
    ),
    torch(
        "eps of zero let through",
        f"{OPS}norm_checks.py",
        "if not 0 < eps <",
        "if not 0 <= eps <",
        norm("bad_input[*-eps_zero]"),
    ),
)
LOSSES = (
    Mutation(
        "cross-entropy without subtracting the maximum",
        LOSS,
        'anchor_new = tl.where(m_new == float("-inf"), 0.0, m_new)',
        "anchor_new = m_new * 0.0",
        cross_entropy("hostile_logits[*large_and_constant-*float32-interpreted]"),
    ),
    Mutation(
        "cross-entropy without rescaling the sum",
        LOSS,
        "l_i = l_i * tl.exp(m_i - anchor_new) +",
        "l_i = l_i +",
        cross_entropy("hostile_logits[*rising-*float32-interpreted]"),
    ),
    Mutation(
        "cross-entropy's gaps not moved to the new maximum",
        LOSS,
        "gaps += w_sum * (anchor_new - anchor) +",
        "gaps +=",
        cross_entropy("hostile_logits[0.1-rising-*float32-interpreted]"),
    ),
    Mutation(
        "cross-entropy's smoothing dropped from the loss",
        LOSS,
        "+ label_smoothing / num_classes * smooth",
        "+ 0 * smooth",
        cross_entropy("options[none-0.1-plain-interpreted]"),
    ),
    Mutation(
        "cross-entropy's smoothing dropped from the gradient",
        LOSS,
        "dx = p * total - share",
        "dx = p * total",
        cross_entropy("options[none-0.1-weighted-interpreted]"),
    ),
    Mutation(
        "cross-entropy ignores the upstream gradient",
        LOSS,
        "tl.where(offs_c == target, hit, 0.0)) * grad",
        "tl.where(offs_c == target, hit, 0.0))",
        cross_entropy("options[none-0.0-plain-interpreted]"),
    ),
    Mutation(
        "cross-entropy takes the statistics of a sum that rounds",
        LOSS,
        """    tl.store(stats_ptr + 2 * row, anchor)
    tl.store(stats_ptr + 2 * row + 1, log_sum)""",
        """    tl.store(stats_ptr + 2 * row, anchor + log_sum)
    tl.store(stats_ptr + 2 * row + 1, 0.0)""",
        cross_entropy("probabilities_of_large_logits_keep_their_digits[interpreted]"),
    ),
    Mutation(
        "cross-entropy reads the logit of any target",
        LOSS,
        "x_t = tl.load(logits_ptr + target, mask=valid, other=0.0)",
        "x_t = tl.load(logits_ptr + target)",
        cross_entropy("a_target_that_is_no_class[0.0-1099511627776-interpreted]"),
    ),
    Mutation(
        "cross-entropy takes a target that is no class for an ignored one",
        LOSS,
        'loss = tl.where(valid, loss, tl.where(counts, float("nan"), 0.0))',
        "loss = tl.where(valid, loss, 0.0)",
        cross_entropy("a_target_that_is_no_class[0.0--1-interpreted]"),
    ),
    Mutation(
        "cross-entropy gives a target that is no class a gradient",
        LOSS,
        'dx = tl.where(valid, dx, tl.where(counts, float("nan"), 0.0))',
        "dx = tl.where(counts, dx, 0.0)",
        cross_entropy("a_target_that_is_no_class[0.0--1-interpreted]"),
    ),
    Mutation(
        "cross-entropy counts ignored rows in the mean",
        f"{OPS}cross_entropy_torch.py",
        "        return counts.sum()",
        "        return torch.ones_like(counts).sum()",
        cross_entropy("options[mean-0.0-plain-interpreted]"),
    ),
    Mutation(
        "cross-entropy overwrites the logits",
        f"{OPS}cross_entropy.py",
        "        out = logits.new_empty(logits.shape)",
        "        out = logits",
        cross_entropy("the_logits_stay_as_they_are[interpreted]"),
    ),
    Mutation(
        "chunks: the kernel's gradient not asked for",
        LINEAR_LOSS,
        "            backward(grad, logits, target, class_weight, stats, *options, out=logits)",
        "            pass",
        linear_cross_entropy("options[mean-0.0-float32-interpreted]"),
    ),
    torch(
        "chunks: smoothing dropped from the gradient",
        f"{OPS}cross_entropy_torch.py",
        "        p -= share",
        "        pass",
        linear_cross_entropy("options[sum-0.1-float32-torch]"),
    ),
    torch(
        "chunks: smoothing dropped from the loss",
        f"{OPS}cross_entropy_torch.py",
        "        loss -= log_p.sum(1) * share if weight is None else log_p @ share",
        "        pass",
        linear_cross_entropy("options[sum-0.1-float32-torch]"),
    ),
    torch(
        "chunks: upstream gradient of a number ignored",
        LINEAR_LOSS,
        "torch.mul(x.to(grad.dtype), grad, out=",
        "torch.mul(x.to(grad.dtype), 1.0, out=",
        linear_cross_entropy("backward_twice_and_the_same_every_time[sum-torch]"),
    ),
    torch(
        "chunks: upstream gradient of rows ignored",
        LINEAR_LOSS,
        "torch.mul(dx, grad[at, None], out=logits[at])",
        "logits[at] = dx",
        linear_cross_entropy("options[none-0.0-float32-torch]"),
    ),
    torch(
        "chunks: weight's gradient summed in bf16",
        LINEAR_LOSS,
        "total.addmm_(a.to(total.dtype), b.to(total.dtype))",
        "total.copy_((total + a.float() @ b.float()).to(a.dtype))",
        linear_cross_entropy("sums_over_chunks_are_fp32[*-torch]"),
    ),
    torch(
        "chunks: bias added to rounded logits",
        LINEAR_LOSS,
        "return torch.addmm(bias, x, weight.t(), out=out)",
        "return torch.mm(x, weight.t(), out=out).add_(bias)",
        linear_cross_entropy("logits_are_rounded_once"),
    ),
    torch(
        "chunks: held gradients scaled in place",
        LINEAR_LOSS,
        "return torch.mul(x.to(grad.dtype), grad, out=x.new_empty(x.shape, dtype=dtype))",
        "return x.mul_(grad).clone()",
        linear_cross_entropy("backward_twice_and_the_same_every_time[sum-torch]"),
    ),
    torch(
        "chunks: one chunk of everything",
        "fused_attention/tuning.py",
        "return min(1024, max(256, dim))",
        "return 1 << 30",
        linear_cross_entropy("peak_memory_is_a_fraction_of_the_pairs"),
    ),
    torch(
        "chunks: zeros made for gradients that are held",
        LINEAR_LOSS,
        "    ctx.set_materialize_grads(False)",
        "    pass",
        linear_cross_entropy("gradients_held_cost_their_own_size_once_more"),
    ),
    torch(
        "chunks: a second derivative of zero",
        LINEAR_LOSS,
        "ctx.save_for_backward(*tensors, *(gradients if summed else ()))",
        "ctx.save_for_backward(*(x if x is None else x.detach() for x in tensors), "
        "*(gradients if summed else ()))",
        linear_cross_entropy("second_derivatives_are_refused[sum-torch]"),
    ),
    torch(
        "chunks: gradients that nobody wants",
        LINEAR_LOSS,
        "torch.is_grad_enabled() and x is not None and x.requires_grad",
        "x is not None",
        linear_cross_entropy("without_gradients_nothing_is_held[torch]"),
    ),
    torch(
        "chunks: a mean over nothing has a gradient",
        f"{OPS}cross_entropy_torch.py",
        "torch.where(some, total / weights.where(some, 1), total.detach() / weights)",
        "total / weights",
        linear_cross_entropy("nothing_counts[torch]"),
    ),
)

ACTIVATIONS, GELU, GLU = (f"kernels/{name}.py" for name in ("activations", "gelu", "glu"))


def outputs(case: str) -> str:
    return f"test_ops.py::test_outputs_and_gradients[{case}-interpreted]"


POINTWISE = (
    Mutation(
        "erf for tanh",
        ACTIVATIONS,
        'elif KIND == "tanh":\n        gate, _ = _sigmoids(_twice_u(x))',
        'elif KIND == "tanh":\n        gate, _ = _normal(x)',
        "test_gelu.py::test_the_approximations_are_told_apart[interpreted]",
    ),
    Mutation(
        "the slope of erf for that of tanh",
        ACTIVATIONS,
        '    if KIND == "none":\n        gate, e = _normal(x)',
        '    if KIND != "silu":\n        gate, e = _normal(x)',
        outputs("gelu_tanh"),
    ),
    Mutation(
        "a tail that cancels",
        ACTIVATIONS,
        "tl.where(x < 0, tail, 1.0 - tail), e",
        "tl.where(x < 0, 1.0 - (1.0 - tail), 1.0 - tail), e",
        "test_gelu.py::test_tails_are_accurate_relative_to_themselves[none-interpreted]",
    ),
    Mutation(
        "a slope that overflows",
        ACTIVATIONS,
        "tl.where(x > 32.0, 32.0, tl.where(x < -32.0, -32.0, x))",
        "x",
        "test_gelu.py::test_finite_inputs_have_finite_results[float32-tanh-interpreted]",
    ),
    Mutation(
        "GELU's gradient without the density",
        ACTIVATIONS,
        "slope = gate + x * (e * INV_SQRT_2PI)",
        "slope = gate",
        outputs("gelu"),
    ),
    Mutation(
        "the last block of GELU left out",
        GELU,
        "_forward_block(x_ptr, y_ptr, offs, offs < numel, KIND)",
        "_forward_block(x_ptr, y_ptr, offs, offs < start, KIND)",
        outputs("gelu"),
    ),
    Mutation(
        "a gradient read in another layout",
        f"{OPS}gelu.py",
        "_laid_out(dy, dx), _laid_out(x, dx), dx, approximate",
        "dy, _laid_out(x, dx), dx, approximate",
        "test_gelu.py::test_layouts_are_those_of_torch[channels_last-gelu-interpreted]",
    ),
    Mutation(
        "results contiguous for any layout",
        f"{OPS}layout.py",
        "x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)",
        "x.new_empty(x.shape)",
        "test_gelu.py::test_layouts_are_those_of_torch[channels_last-gelu-interpreted]",
    ),
    Mutation(
        "partial bias gradients in the input's dtype",
        f"{OPS}bias_gelu.py",
        "partial = x.new_empty(programs, rows.shape[1], dtype=torch.float32)",
        "partial = x.new_empty(programs, rows.shape[1])",
        "test_gelu.py::test_bias_gradient_is_summed_in_fp32[3-interpreted]",
    ),
    Mutation(
        "a program takes its first tile of rows only",
        GELU,
        "tl.range(pid_p, tl.cdiv(R, BLOCK_R), P)",
        "tl.range(pid_p, P, P)",
        "test_gelu.py::test_programs_loop_over_their_share_of_the_rows[interpreted]",
    ),
    Mutation(
        "the sum with the bias rounded",
        GELU,
        "activate(x + bias, KIND))",
        "activate(round_to(x + bias, x_ptr.dtype.element_ty).to(tl.float32), KIND))",
        "test_gelu.py::test_the_sum_with_the_bias_is_not_rounded[interpreted]",
    ),
    Mutation(
        "up activated",
        GLU,
        "activate(gate, KIND) * up",
        "activate(up, KIND) * gate",
        "test_glu.py::test_the_first_argument_is_activated[swiglu-interpreted]",
    ),
    Mutation(
        "the gradient of up without the activation",
        GLU,
        "keep, dy * value)",
        "keep, dy * gate)",
        outputs("swiglu"),
    ),
    Mutation(
        "halves copied before they are read",
        f"{OPS}glu.py",
        "matrices = [as_rows(x) for x in (gate, up, y)]",
        "matrices = [as_rows(x) for x in (gate.contiguous(), up.contiguous(), y)]",
        "test_glu.py::test_halves_of_a_projection_are_read_in_place[shape0-swiglu-interpreted]",
    ),
    torch(
        "unknown approximate let through",
        f"{OPS}activations.py",
        'approximate not in ("none", "tanh")',
        "False",
        "test_gelu.py::test_unknown_approximate[erf]",
    ),
)

ROTATE, ROTARY_TORCH = "kernels/rotary.py", f"{OPS}rotary_torch.py"


def rotary(test: str) -> str:
    return f"test_rotary.py::test_{test}"


ROTARY = (
    Mutation(
        "gradients turned forwards",
        f"{OPS}rotary.py",
        "ctx.interleaved, not ctx.inverse)",
        "ctx.interleaved, ctx.inverse)",
        rotary("values_and_gradients[default-10-halves-interpreted]"),
    ),
    Mutation(
        "half-split for interleaved",
        ROTATE,
        "INTERLEAVED=interleaved",
        "INTERLEAVED=False",
        rotary("values_and_gradients[default-10-interleaved-interpreted]"),
    ),
    Mutation(
        "the rest of head_dim left out",
        ROTATE,
        "if rest else 0",
        "if False else 0",
        rotary("values_and_gradients[default-10-halves-interpreted]"),
    ),
    Mutation(
        "positions of the first sequence for all",
        ROTATE,
        "positions_ptr + off_b * stride_pb",
        "positions_ptr",
        rotary("values_and_gradients[each-10-halves-interpreted]"),
    ),
    Mutation(
        "k at q's head offsets",
        ROTATE,
        "off_hk * stride_kh",
        "head * stride_kh",
        rotary("values_and_gradients[default-10-halves-interpreted]"),
    ),
    Mutation(
        "heads of the last group left out",
        ROTATE,
        "* triton.cdiv(num_heads + num_kv_heads, config.heads)",
        "* ((num_heads + num_kv_heads) // config.heads)",
        rotary("values_and_gradients[default-10-halves-interpreted]"),
    ),
    Mutation(
        "positions outside the tables read",
        ROTATE,
        "known = within & (position >= 0) & (position < L)",
        "known = within & (position < L)",
        rotary("positions_outside_the_tables_read_nothing[halves-interpreted]"),
    ),
    torch(
        "gradients turned forwards, torch",
        ROTARY_TORCH,
        "_Rotation.apply(dy, cos, -sin,",
        "_Rotation.apply(dy, cos, sin,",
        rotary("values_and_gradients[default-10-halves-torch]"),
    ),
    torch(
        "half-split for interleaved, torch",
        ROTARY_TORCH,
        "        x1, x2 = turning[..., 0::2], turning[..., 1::2]",
        "        x1, x2 = turning[..., :half], turning[..., half:]",
        rotary("values_and_gradients[default-10-interleaved-torch]"),
    ),
    torch(
        "tables computed in fp32",
        f"{OPS}rotary.py",
        "angles = torch.outer(positions, base**-exponents)",
        "angles = torch.outer(positions.float(), (base**-exponents).float())",
        rotary("tables_are_accurate_far_out"),
    ),
)
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
        "    lo, hi, full_lo, full_hi = _split_bounds(",
        "    lo = 0 * lo\n    lo, hi, full_lo, full_hi = _split_bounds(",
        paged("pages_out_of_sight_are_not_read[1-interpreted]"),
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
        "test_offsets.py::test_of_pages[*interpreted]",
    ),
    Mutation(
        "table of the first sequence for all",
        ATTENTION_PAGED,
        "block_table_ptr += off_b.to(tl.int64) * stride_table",
        "block_table_ptr += 0 * stride_table",
        paged("output_and_lse[interpreted-decode-*]"),
    ),
    Mutation(
        "heads of a group and tokens mixed up",
        ATTENTION_PAGED,
        "offs_m = start_m + offs_r // GROUP_SIZE",
        "offs_m = start_m + offs_r % TOKENS",
        paged("output_and_lse[interpreted-group_2-*]"),
    ),
    Mutation(
        "rows beyond the last whole group kept",
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
        paged("the_bound_on_queries_changes_nothing[1000-interpreted]"),
    ),
    Mutation(
        "bounds of the first head for the group",
        ATTENTION_PAGED,
        "            lo = tl.minimum(lo, lo_h)\n",
        "",
        paged("bounds_may_differ_among_the_heads_of_a_group[1-interpreted]"),
    ),
    Mutation(
        "lengths trusted beyond the table",
        ATTENTION_PAGED,
        "tl.minimum(tl.load(seq_lens_ptr + off_b), max_blocks * PAGE_SIZE)",
        "tl.load(seq_lens_ptr + off_b)",
        paged("lengths_beyond_the_table_are_cut"),
    ),
    Mutation(
        "shares of splits overlap",
        ATTENTION_PAGED,
        "split_hi = tl.minimum(split_lo + share * BLOCK, end * BLOCK)",
        "split_hi = tl.minimum(split_lo + (share + 1) * BLOCK, end * BLOCK)",
        paged("splits_agree[decode-interpreted]"),
    ),
    Mutation(
        "partial results weighed equally",
        ATTENTION_PAGED,
        "tl.exp2((lse - most) * LOG2E)[:, None] * partial",
        "tl.exp2((lse - lse) * LOG2E)[:, None] * partial",
        paged("splits_agree[several-interpreted]"),
    ),
    Mutation(
        "splits that saw nothing give NaN",
        ATTENTION_PAGED,
        'most = tl.where(most == float("-inf"), 0.0, most)',
        "most = most",
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
        "kernels/storage.py",
        "code = tl.where(size < 0.015625, below, normal)",
        "code = normal",
        append("quantised_numbers_are_the_nearest[float8_e4m3fn-interpreted]"),
    ),
    Mutation(
        "ties of int8 away from zero",
        "kernels/storage.py",
        "return ((x + 12582912.0)",
        "return ((x * 1.001 + 12582912.0)",
        append("quantised_numbers_are_the_nearest[int8-interpreted]"),
    ),
    Mutation(
        "too large a number wraps around",
        "kernels/kv_cache.py",
        "tl.minimum(tl.maximum(x, -LARGEST), LARGEST)",
        "tl.maximum(x, -LARGEST)",
        append("quantised_numbers_are_the_nearest[int8-interpreted]"),
    ),
    Mutation(
        "a token without a slot stored",
        "kernels/kv_cache.py",
        "    if slot < 0:\n        return\n",
        "    slot = tl.maximum(slot, 0)\n",
        append("tokens_land_in_their_slots[*interpreted]"),
    ),
    Mutation(
        "end of a block not copied",
        "kernels/kv_cache.py",
        "some = offs < block_size",
        "some = offs < block_size - 1",
        append("blocks_are_copied[*interpreted]"),
    ),
    Mutation(
        "LSE without the extra logit",
        f"{OPS}extra_logits.py",
        "lse = torch.logaddexp(lse, logits)",
        "lse = lse + 0",
        case("sink"),
    ),
    torch(
        "extra logit one percent off",
        f"{OPS}extra_logits.py",
        "variant.type.extra_logit(variant.args).to(lse.dtype)",
        "variant.type.extra_logit(variant.args).to(lse.dtype) * 1.01",
        case("sink_window"),
    ),
    torch(
        "a window's pages counted from the first gathered",
        PAGED_TORCH,
        "stored, into = kv[:, side], buffer[side, pages]",
        "stored, into = kv[:, side], buffer[side, : len(blocks)]",
        paged("pages_out_of_sight_are_not_read[1-torch]"),
    ),
    torch(
        "all pages gathered, whatever the window",
        PAGED_TORCH,
        "pages = slice(first // page_size,",
        "pages = slice(0 * first,",
        paged("only_visible_pages_are_gathered"),
    ),
    torch(
        "variants see sequence 0",
        PAGED_TORCH,
        "tile = Tile(slice(b, b + 1), rows, *bounds)",
        "tile = Tile(slice(0, 1), rows, *bounds)",
        paged("variants_see_the_index_of_the_sequence[torch]"),
    ),
    torch(
        "slots used twice let through",
        f"{OPS}paged_checks.py",
        "twice = used[1:] == used[:-1]",
        "twice = used[1:] == -1",
        "test_paged_errors.py::test_slots_that_must_be_read_leave_the_cache_alone[*]",
    ),
    torch(
        "blocks outside the pool let through",
        f"{OPS}paged_checks.py",
        "outside = owned & ((block_table < 0) | (block_table >= num_blocks))",
        "outside = owned & ((block_table < 0) | (block_table > num_blocks))",
        "test_paged_errors.py::test_metadata_that_must_be_read[outside]",
    ),
)
CACHE = (
    torch("shared pages written", TABLES, "self.pool.refs(block) > 1 or ", "", HISTORIES),
    torch(
        "published pages written",
        TABLES,
        " or self.pool.is_published(block)",
        "",
        HISTORIES,
    ),
    torch(
        "released twice",
        TABLES,
        "self.pool.release(seq.held[::-1])",
        "self.pool.release(seq.held[::-1]), self.pool.release(seq.held[:1])",
        HISTORIES,
    ),
    torch(
        "copied pages kept",
        TABLES,
        "self.pool.release([source for source, _ in taken.copies])",
        "pass",
        HISTORIES,
    ),
    torch("copies not undone", TABLES, "seq.blocks[page] = source", "pass", HISTORIES),
    torch("new pages not undone", TABLES, "del seq.blocks[count:]", "pass", HISTORIES),
    torch(
        "published before commit",
        TABLES,
        "        return taken\n\n    def commit",
        "        self.commit(taken)\n        return taken\n\n    def commit",
        HISTORIES,
    ),
    torch("a prefix whole", TABLES, "len(tokens) - 1))", "len(tokens)))", HISTORIES),
    torch(
        "keys without history",
        TABLES,
        "hashlib.sha256(key + page.tobytes())",
        "hashlib.sha256(page.tobytes())",
        HISTORIES,
    ),
    torch(
        "a fork publishes",
        TABLES,
        "Seq(seq.length, seq.blocks)",
        "Seq(seq.length, seq.blocks, seq.keys)",
        HISTORIES,
    ),
    torch(
        "a truncated sequence publishes",
        TABLES,
        "del seq.blocks[kept:], seq.keys[:]",
        "del seq.blocks[kept:]",
        HISTORIES,
    ),
    torch(
        "truncation leaves pages published",
        TABLES,
        "if self.pool.refs(block) == 1:",
        "if self.pool.refs(block) == 0:",
        HISTORIES,
    ),
    torch(
        "window one key short",
        TABLES,
        "length - self.window) //",
        "length - self.window + 1) //",
        HISTORIES,
    ),
    torch(
        "truncated beyond the window",
        TABLES,
        "self._dead_pages(length) < seq.dropped:",
        "self._dead_pages(length) > seq.dropped:",
        HISTORIES,
    ),
    torch(
        "the window's pages not counted as free",
        TABLES,
        "self.pool.num_free + self._freed_by_releasing(dead)",
        "self.pool.num_free",
        HISTORIES,
    ),
    torch(
        "some blocks where not all can be had",
        POOL,
        "if n > self.num_free:",
        "if n > self.num_free + 1:",
        "test_block_pool.py::test_all_or_nothing",
    ),
    torch(
        "double free",
        POOL,
        "if times > self._refs[block]:",
        "if self._refs[block] == 0:",
        "test_block_pool.py::test_what_is_wrong_is_refused_and_changes_nothing[*]",
    ),
    torch(
        "the youngest prefix evicted",
        POOL,
        "popitem(last=False)",
        "popitem(last=True)",
        "test_block_pool.py::test_cached_blocks_are_found_until_they_are_needed_oldest_first",
    ),
    torch(
        "evicted blocks still found",
        POOL,
        "del self._block_of[self._key_of.pop(block)]\n        return block",
        "return block",
        "test_block_pool.py::test_cached_blocks_are_found_until_they_are_needed_oldest_first",
    ),
    torch(
        "old slots left in the buffer",
        STEP,
        "self.slot_mapping[total : self._filled] = -1",
        "pass",
        "test_paged_kv_cache.py::test_a_captured_graph_reads_the_numbers_of_the_open_step",
    ),
    torch(
        "block ids not looked at",
        STEP,
        "if table.size and not",
        "if False and not",
        "test_paged_kv_cache.py::test_a_table_with_blocks_that_do_not_exist_reaches_no_kernel",
    ),
    torch(
        "scales not copied",
        KV_CACHE,
        "copy_blocks(cache.scales[layer], pairs)",
        "pass",
        "test_paged_kv_cache.py::test_copies_on_write_carry_the_scales",
    ),
    torch(
        "a window that masks nothing",
        KV_CACHE,
        "(*variants, sliding_window(self.window))",
        "(*variants, causal_mask())",
        "test_paged_kv_cache.py::test_a_window_costs_no_more_blocks_than_it_sees[*]",
    ),
    torch(
        "commits what has failed",
        KV_CACHE,
        "commit if kind is None else",
        "commit if True else",
        "test_paged_kv_cache.py::test_a_step_that_raises_never_was",
    ),
)

MODULES = (
    torch(
        "the up half of a gated MLP activated",
        f"{LAYERS}mlp.py",
        "*h.chunk(2, -1)",
        "*h.chunk(2, -1)[::-1]",
        "test_modules.py::test_mlp[swiglu-*]",
    ),
    torch(
        "dropout before the sum outside training",
        f"{LAYERS}norm.py",
        "self.dropout if self.training else 0.0",
        "self.dropout",
        "test_modules.py::test_dropout_before_the_sum_in_training_only[*]",
    ),
    torch(
        "a padding mask taken for its opposite",
        f"{LAYERS}multihead_attention.py",
        "~m if m.dtype == torch.bool else m for m in masks",
        "m for m in masks",
        "test_modules.py::test_multihead_attention[*-padding-*]",
    ),
    torch(
        "the causal hint not followed",
        f"{LAYERS}multihead_attention.py",
        'variants += [causal("top_left")] if hinted else []',
        "variants += []",
        "test_modules.py::test_the_causal_hint_needs_its_mask_and_then_holds",
    ),
    torch(
        "weights of a query that sees nothing",
        f"{LAYERS}multihead_attention.py",
        ".softmax(-1).masked_fill(empty, 0)",
        ".softmax(-1)",
        "test_modules.py::test_a_query_whose_keys_are_all_padded_gets_the_bias_and_no_nan[*]",
    ),
    torch(
        "label smoothing lost in the module",
        f"{LAYERS}loss.py",
        "            label_smoothing=self.label_smoothing,\n",
        "",
        "test_parity.py::test_moduleinfo_inputs[torch-CrossEntropyLoss-float32]",
    ),
)
RIVALRY = (
    torch(
        "torch always timed second",
        "benchmarks/timing.py",
        "    if number % 2 == 0:\n",
        "    if True:\n",
        "benchmarks/test_ops.py::test_rivals_take_turns_in_going_first",
    ),
    torch(
        "the gradient of one output compared alone",
        "benchmarks/ops/worker.py",
        "torch.autograd.grad(outs, leaves, self.d_outs)",
        "torch.autograd.grad(outs[-1:], leaves, self.d_outs[-1:])",
        "benchmarks/test_ops.py::test_a_wrong_op_stands_out[wrong_gradient_of_sum]",
    ),
    torch(
        "a verdict on the median alone",
        "benchmarks/ops/analysis.py",
        "UNCLEAR if point.speedup_high >= FLOOR else MISSED",
        "MISSED",
        "benchmarks/test_ops.py::test_verdicts[*unclear*]",
    ),
)
MUTATIONS = (
    *KERNELS,
    *BOUNDS,
    *PATHS,
    *NORMS,
    *LOSSES,
    *POINTWISE,
    *ROTARY,
    *PAGED,
    *CACHE,
    *MODULES,
    *RIVALRY,
)
MODELS_DIR = "fused_attention/models/"
MODELS = tuple(
    torch(name, f"{MODELS_DIR}{file}.py", old, new, f"models/test_{test}")
    for name, file, old, new, test in (
        (
            "sdpa forgets the variants",
            "backends",
            "attn_mask=mask, **options",
            "**options",
            "backends.py::test_agreement[gpt-alibi-pre-sdpa]",
        ),
        (
            "the switch does nothing",
            "model",
            "module.backend = backend",
            "pass",
            "backends.py::test_switching",
        ),
        (
            "the stream not passed on",
            "block",
            "return layer(x, **options), stream",
            "return layer(x, **options), x",
            "literature.py::test_residual_stream[True]",
        ),
        (
            "scores of T5 mirrored",
            "positions",
            "torch.arange(1 - seqlen, seqlen, device",
            "-torch.arange(1 - seqlen, seqlen, device",
            "masking.py::test_ragged_tokens[t5-True]",
        ),
        (
            "buckets of the future used by a causal stack",
            "positions",
            "buckets, past = len(self.weight), (-distance).clamp(min=0)",
            "buckets, past = len(self.weight), distance.abs()",
            "literature.py::test_t5_buckets[True]",
        ),
        (
            "a distance too few",
            "transformer_xl",
            "return F.pad(x, (1, 0)).reshape(*x.shape[:2], keys + 1, rows)[:, :, 1:]",
            "return F.pad(x, (0, 1)).reshape(*x.shape[:2], keys + 1, rows)[:, :, :-1]",
            "masking.py::test_relative_scores_against_the_formula",
        ),
        (
            "the memory not detached",
            "transformer_xl",
            "self.length) :].detach())",
            "self.length) :])",
            "masking.py::test_segments_see_what_one_long_segment_sees",
        ),
        (
            "a causal stack that sees the future",
            "block",
            "(causal(),) if self.causal else ()",
            "()",
            "masking.py::test_later_tokens_do_not_leak[rotary-fused]",
        ),
        (
            "padded sources seen",
            "block",
            '"variants": _padding(context_lengths)',
            '"variants": ()',
            "masking.py::test_padded_sources_do_not_leak[fused]",
        ),
        (
            "ragged tokens numbered from the first",
            "block",
            "device=x.device) if step is None else step.positions",
            "device=x.device)",
            "masking.py::test_ragged_tokens[learned-True]",
        ),
        (
            "tables follow the dtype of the model",
            "positions",
            "dtype = torch.promote_types(moved.dtype, torch.float32)",
            "dtype = moved.dtype",
            "errors.py::test_half_precision_keeps_exact_tables",
        ),
        (
            "every masked token a mask",
            "objectives",
            "fate < 0.8, self.mask_id",
            "fate < 1.0, self.mask_id",
            "training.py::test_masked_tokens",
        ),
        (
            "sentinels that count up",
            "objectives",
            "torch.tensor([self.sentinel - i])",
            "torch.tensor([self.sentinel + i])",
            "training.py::test_corrupted_spans",
        ),
        (
            "residual projections as large as the others",
            "initialise",
            "std = 0.02 / math.sqrt(2 * model.config.num_layers)",
            "std = 0.02",
            "training.py::test_initialisation",
        ),
    )
)
MUTATIONS = KERNELS + BOUNDS + PATHS + MODELS
