"""Attention: kernels, bounds of variants, backends."""

from .mutation import OPS, Mutation, torch

VARIANTS = "fused_attention/variants/"

FORWARD, BACKWARD = "kernels/attention_forward.py", "kernels/attention_backward.py"
GRID, SOFTMAX = "kernels/grid.py", "kernels/softmax.py"
HOOKS, NUMERICS, DROPOUT = "kernels/hooks.py", "kernels/numerics.py", "kernels/dropout.py"
ONLINE, ATEN, STATISTICS, TORCH = (
    f"{OPS}attention/{name}.py"
    for name in ("tile_online", "tile_aten", "statistics", "torch_backend")
)


def case(name: str) -> str:
    return f"ops/attention/test_attention.py::test_output_and_gradients[*-{name}-*]"


def attention(test: str) -> str:
    return f"ops/attention/test_attention.py::test_{test}"


def magnitudes(test: str) -> str:
    return f"ops/attention/test_magnitudes.py::test_{test}"


def non_finite(test: str) -> str:
    return f"ops/attention/test_non_finite.py::test_{test}"


KERNELS = (
    Mutation(
        "no rescale of acc",
        FORWARD,
        "v, acc * alpha[:, None], PRECISION)",
        "v, acc, PRECISION)",
        case("whole_tiles"),
    ),
    Mutation("no rescale of l_i", SOFTMAX, "l_i * alpha +", "l_i +", case("whole_tiles")),
    Mutation(
        "partial tiles not masked",
        FORWARD,
        's = tl.where(fold_masks(keep, at, MASKS, mask_args), s, float("-inf"))',
        "s = s",
        case("one_over"),
    ),
    Mutation(
        "last tile not masked beyond the last key",
        FORWARD,
        "keep = ((offs_n >= lo) & (offs_n < hi))[None, :]",
        "keep = (offs_n >= lo)[None, :]",
        case("one_over"),
    ),
    Mutation(
        "fully masked rows divide by zero",
        FORWARD,
        "l_safe = tl.where(l_i == 0, 1.0, l_i)",
        "l_safe = l_i",
        attention("fully_masked_rows[interpreted]"),
    ),
    Mutation(
        "sign of a negative scale lost",
        SOFTMAX,
        "tl.where(sm_scale < 0, -1.0, 0.0)",
        "tl.where(sm_scale < 0, 1.0, 0.0)",
        case("negative_scale"),
    ),
    Mutation(
        "wrong group index, forward",
        GRID,
        "off_h // GROUP_SIZE, off_bh",
        "off_h % GROUP_SIZE, off_bh",
        case("groups_of_two"),
    ),
    Mutation(
        "wrong group index, dkdv",
        BACKWARD,
        "off_h = off_hk * GROUP_SIZE + group",
        "off_h = off_hk + num_kv_heads * group",
        case("groups_of_two"),
    ),
    Mutation(
        "wrong group index, dbias",
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
        "V loaded beyond the last key",
        FORWARD,
        "v = load_rows(v_ptr, offs_n, stride_vn, lo, hi,",
        "v = load_rows(v_ptr, offs_n, stride_vn, 0, seqlen_k,",
        attention("nan_in_padding_does_not_leak[*interpreted]"),
    ),
    Mutation(
        "NaN let through in dkdv",
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
        "weights of fully masked rows not zero",
        SOFTMAX,
        'tl.where(log_sum == float("-inf"), float("inf"), log_sum)',
        "log_sum",
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
        "dbias not summed over heads",
        BACKWARD,
        "count_h = num_heads if SUM_H else 1",
        "count_h = 1",
        "variants/test_variants.py::test_alone_and_composed[bias_shared-interpreted]",
    ),
    Mutation(
        "score gradients taken at the raw scores",
        HOOKS,
        "s_in = fold_scores(s, at, SCORES, score_args, i)",
        "s_in = s",
        "variants/test_variants.py::test_order_of_scores_matters_and_is_kept[interpreted]",
    ),
    Mutation(
        "row offsets of 32 bits",
        "kernels/memory.py",
        "pointers = ptr + offs[:, None].to(tl.int64) * stride + offs_d[None, :]\n    if MASKED",
        "pointers = ptr + offs[:, None] * stride + offs_d[None, :]\n    if MASKED",
        "ops/attention/test_offsets.py::test_of_inputs[2-*-k-interpreted]",
    ),
    Mutation(
        "head offsets of 32 bits",
        GRID,
        "off_h.to(tl.int64) * stride_h",
        "off_h * stride_h",
        "ops/attention/test_offsets.py::test_of_inputs[1-*-k-interpreted]",
    ),
    Mutation(
        "key offsets of a bias of 32 bits",
        f"{VARIANTS}bias.py",
        "kv_idx.to(tl.int64) * stride_k",
        "kv_idx * stride_k",
        "ops/attention/test_offsets.py::test_of_arguments[3-bias-interpreted]",
    ),
    Mutation(
        "bf16 products left to the interpreter",
        NUMERICS,
        'return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")',
        'return tl.dot(a, b, input_precision="ieee")',
        "kernels/test_numerics.py::test_products_accumulate_in_fp32[dtype1-interpreted]",
    ),
    Mutation(
        "bf16 rounding left to the interpreter",
        NUMERICS,
        "if INTERPRETED and dtype == tl.bfloat16:",
        "if False:",
        "kernels/test_numerics.py::test_rounds_to_nearest_even[dtype1-interpreted]",
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
        "ops/attention/test_bounds.py::test_bounds_of_hooks_are_exact[causal-*-interpreted]",
    ),
    Mutation(
        "full block one key too long",
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
        f"{OPS}attention/tiles.py",
        "step = 1 if batched else sequences",
        "step = sequences",
        case("square_padding"),
    ),
)
PATHS = (
    torch(
        "wide heads refused",
        f"{OPS}attention/checks.py",
        "if x.shape[3] < 1:",
        "if not 1 <= x.shape[3] <= MAX_HEAD_DIM:",
        "ops/attention/test_attention.py::test_output_and_gradients[torch-head_dim_v_300-*]",
    ),
    Mutation(
        "wide heads left to the kernels",
        f"{OPS}attention/attention.py",
        "if max(q.shape[3], v.shape[3]) > checks.MAX_HEAD_DIM:",
        "if False:",
        "ops/attention/test_attention.py::test_wide_heads_are_not_left_to_the_kernels[*]",
    ),
    torch(
        "heads of no width",
        f"{OPS}attention/sdpa.py",
        "if head_dim == 0:",
        "if False:",
        "ops/attention/test_sdpa.py::test_heads_of_no_width_give_the_mean_of_the_visible_values[*]",
    ),
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
        "dv overwritten by each tile of ATen",
        TORCH,
        "dv[tile.keys] += dv_tile",
        "dv[tile.keys] = dv_tile",
        case("square_window"),
    ),
    torch(
        "additive mask dropped",
        f"{OPS}attention/tiles.py",
        "total = torch.where(kept, total, -math.inf)",
        "pass",
        case("square_window"),
    ),
    torch(
        "additive scores dropped",
        f"{OPS}attention/tiles.py",
        "total = tile.cut(variant).torch_score(total, *indices)",
        "tile.cut(variant).torch_score(total, *indices)",
        case("square_alibi"),
    ),
    Mutation(
        "distances of past_bias not clamped",
        f"{VARIANTS}past_bias.py",
        "tl.minimum(tl.maximum(q_idx - kv_idx, 0), args[1] - 1)",
        "tl.maximum(q_idx - kv_idx, 0)",
        "variants/test_variants.py::test_alone_and_composed[past_bias-interpreted]",
    ),
    torch(
        "sdpa mask without the scores",
        f"{OPS}attention/sdpa_mask.py",
        "if any(variant.type.score is not None for variant in variants):",
        "if not any(variant.type.mask is not None for variant in variants):",
        "models/test_backends.py::test_agreement[gpt-alibi-pre-sdpa]",
    ),
    torch(
        "needs_input_grad of a tensor list not nested",
        f"{OPS}registration.py",
        "ctx.needs_input_grad = nested(needed[2:], ctx.count)",
        "ctx.needs_input_grad = needed[2:]",
        "ops/attention/test_registration.py::test_a_second_backward_through_a_retained_graph[torch]",
    ),
    torch(
        "needs_input_grad not restored after backward",
        f"{OPS}registration.py",
        "                ctx.needs_input_grad = needed\n",
        "                pass\n",
        "ops/attention/test_registration.py::test_a_second_backward_through_a_retained_graph[torch]",
    ),
    torch(
        "LSE gradient dropped, torch",
        ONLINE,
        "delta -= dlse[tile.queries]",
        "delta -= 0 * dlse[tile.queries]",
        attention("gradient_through_lse_alone[*torch]"),
    ),
    torch(
        "LSE gradient left to ATen",
        TORCH,
        " and dlse is None and not any(wanted)",
        " and not any(wanted)",
        attention("gradient_through_lse_alone[-torch]"),
    ),
    torch(
        "dropout forgotten in the backward pass",
        ONLINE,
        "kept, dp.mul_(kept)",
        "kept, dp",
        case("dropout"),
    ),
    torch(
        "delta from the rounded output",
        ONLINE,
        "if once or out.dtype != dtype:",
        "if False:",
        attention("score_gradients_of_half_precision_sum_to_zero[bfloat16-*]"),
    ),
    Mutation(
        "weights recomputed from the LSE",
        SOFTMAX,
        "(s - m) * (unit * LOG2E) - log_sum",
        "s * (unit * LOG2E) - (m * (unit * LOG2E) + log_sum)",
        magnitudes("a_masked_row_spreads_its_gradient_evenly[-1000000000.0-interpreted]"),
    ),
    Mutation(
        "scores scaled before the maximum is subtracted",
        SOFTMAX,
        "(s - m_safe[:, None]) * (unit * LOG2E)",
        "s * (unit * LOG2E) - (m_safe * (unit * LOG2E))[:, None]",
        magnitudes("a_masked_row_spreads_its_gradient_evenly[-3*-interpreted]"),
    ),
    Mutation(
        "weights of 0 beside a score of +inf",
        SOFTMAX,
        'tl.where(log_sum == float("inf"), float("nan"), log_sum)',
        "log_sum",
        non_finite("one_element[interpreted-*-inf]"),
    ),
    Mutation(
        "softcap's derivative from tanh",
        f"{VARIANTS}softcap.py",
        "return ds * (4 * e / ((1 + e) * (1 + e)))",
        "return ds * (1 - (s_out / args[0]) * (s_out / args[0]))",
        "variants/test_variants.py::test_softcap_keeps_the_digits_of_its_derivative[interpreted]",
    ),
    torch(
        "softcap's derivative from tanh, torch",
        f"{VARIANTS}softcap.py",
        "return ds / (s_in / args[0]).cosh_().square_()",
        "return ds * (1 - (s_out / args[0]).square())",
        "variants/test_variants.py::test_softcap_keeps_the_digits_of_its_derivative[torch]",
    ),
    torch(
        "ATen's kernel for every score",
        STATISTICS,
        "if lse.numel() == 0 or _ordinary(lse):",
        "if True:",
        magnitudes("a_masked_row_spreads_its_gradient_evenly[*-torch]"),
    ),
    Mutation(
        "weights above one",
        SOFTMAX,
        "tl.exp2(tl.minimum(exponent, 0.0, propagate_nan=tl.PropagateNan.ALL))",
        "tl.exp2(exponent)",
        magnitudes("weights_are_at_most_one_on_triton[interpreted]"),
    ),
    torch(
        "weights above one, torch",
        STATISTICS,
        "(scores - shift).clamp_(max=0).exp_()",
        "(scores - shift).exp_()",
        magnitudes("weights_are_at_most_one"),
    ),
    torch(
        "weights from the LSE, torch",
        STATISTICS,
        "return (scores - shift).clamp_(max=0).exp_().mul_(inverse)",
        "return (scores - (shift - inverse.log())).exp_()",
        magnitudes("rows_of_any_magnitude_in_several_tiles[100-torch]"),
    ),
    torch(
        "one extreme sequence changes the others",
        STATISTICS,
        "if not _ordinary(lse[b])]",
        "]",
        non_finite("what_sees_it_and_what_does_not[torch-causal-float32]"),
    ),
    Mutation(
        "lengths narrowed before they are clamped",
        f"{VARIANTS}key_padding.py",
        "length = tl.load(pointer + b * stride)",
        "length = tl.load(pointer + b * stride).to(tl.int32)",
        "variants/test_variants.py::test_lengths_of_any_size[*-interpreted]",
    ),
    torch(
        "a tangent of an outer level dropped",
        f"{OPS}transforms.py",
        "if functorch.maybe_get_level(x) in levels:",
        "if False:",
        "ops/test_transforms.py::test_forward_over_reverse[attention-aten]",
    ),
    torch(
        "vmap computes the first entry for all",
        f"{OPS}transforms.py",
        "x.select(dim, i)",
        "x.select(dim, 0)",
        "ops/test_transforms.py::test_vmap[attention-aten-0]",
    ),
    torch(
        "a pickled variant that becomes another",
        f"{VARIANTS}base.py",
        "if isinstance(value, VariantType) and value.name == self.name:",
        "if isinstance(value, VariantType):",
        "variants/test_copies.py::test_a_copy_means_the_same[pickle-5-bend]",
    ),
    torch(
        "kernels launched on the current device",
        f"{OPS}registration.py",
        "with torch._C._DisableAutocast(), _device_of(first):",
        "with torch._C._DisableAutocast():",
        "ops/test_devices.py::test_every_launch_of_attention_is_guarded",
    ),
    torch(
        "autocast inside an operator",
        f"{OPS}registration.py",
        "with torch._C._DisableAutocast(), _device_of(first):",
        "with _device_of(first):",
        "ops/attention/test_registration.py::test_autocast_ends_at_the_operators[*bias-torch]",
    ),
    torch(
        "autocast inside the operators of a loss",
        f"{OPS}registration.py",
        "with torch._C._DisableAutocast(), _device_of(first):",
        "with _device_of(first):",
        "ops/test_ops.py::test_autocast_ends_at_the_operators[cross_entropy_weighted_smoothed-torch]",
    ),
    torch(
        "bottom-right mask run as ATen's top-left",
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
        "infinite scale let through",
        f"{OPS}checks.py",
        "if not -math.inf < scale < math.inf:",
        "if math.isnan(scale):",
        "ops/attention/test_errors.py::test_scalars[scale_inf]",
    ),
    torch(
        "checked after the work has begun",
        f"{OPS}attention/attention.py",
        "    variants = as_variants(variants)\n    check_scale",
        "    q = q + 0\n    variants = as_variants(variants)\n    check_scale",
        "ops/attention/test_errors.py::test_scalars[dropout_high]",
    ),
)
