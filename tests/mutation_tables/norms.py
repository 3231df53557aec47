"""LayerNorm and RMSNorm."""

from .mutation import OPS, Mutation, non_finite, torch


def op(test: str, name: str, leg: str = "interpreted") -> str:
    """A test of `test_ops`."""
    return f"ops/test_ops.py::test_{test}[*{name}-{leg}]"


def norm(test: str) -> str:
    return f"ops/norm/test_layer_norm.py::test_{test}"


NORM, NORM_TRITON, NORM_TORCH = (
    "kernels/norm.py",
    f"{OPS}norm/triton_backend.py",
    f"{OPS}norm/torch_backend.py",
)
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
        "variances merged without the means' distance",
        NORM,
        "            squares += start_n * share * apart * apart\n",
        "",
        op("outputs_and_gradients", "layer_norm"),
    ),
    Mutation(
        "mean of constant rows rounded",
        NORM,
        'tl.where(tl.abs(pivot) < float("inf"), pivot, 0.0)',
        "pivot * 0.0",
        norm("constant_rows_are_exactly_the_bias[*]"),
    ),
    Mutation(
        "bf16 statistics",
        f"{OPS}norm/operators.py",
        "num_rows, dtype = x.shape[0], accumulator(x.dtype)",
        "num_rows, dtype = x.shape[0], x.dtype",
        op("adversarial_inputs", "shifted-layer_norm_fp32_parameters"),
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
        "only the first rows of a program summed",
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
        "dropout not applied in backward",
        NORM,
        "dx = _dropped(dh, seed_ptr, rows,",
        "dx = _dropped(dh, None, rows,",
        op("outputs_and_gradients", "add_layer_norm_dropout"),
    ),
    Mutation(
        "dropout mask repeated in every tile of a row",
        NORM,
        "seed_ptr, zero, zero, rows, start_n,",
        "seed_ptr, zero, zero, rows, 0,",
        norm("both_backends_drop_the_same[5120]"),
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
        f"{OPS}norm/operators.py",
        "return dresidual if repeats else dx, dresidual, *dparameters",
        "return dresidual if repeats else dx, None, *dparameters",
        norm("gradients_through_either_output[sum-interpreted]"),
    ),
    Mutation(
        "the sum normalized before it is rounded",
        NORM,
        "        h = round_to(h, sum_ptr.dtype.element_ty).to(tl.float32)\n",
        "",
        norm("the_norm_is_of_the_rounded_sum[add_layer_norm-interpreted]"),
    ),
    Mutation(
        "a weight read as if contiguous",
        NORM_TRITON,
        "return None if parameter is None else parameter.contiguous()",
        "return parameter",
        op("any_strides", "columns_apart-layer_norm"),
    ),
    torch(
        "other dropout mask, torch",
        f"{OPS}norm/torch_backend.py",
        "kept = philox.keep(seed, 0, 0, row, column, dropout_p)",
        "kept = philox.keep(seed, 0, 1, row, column, dropout_p)",
        op("outputs_and_gradients", "add_layer_norm_dropout", "torch"),
    ),
    torch(
        "operators that need Triton",
        f"{OPS}backend.py",
        "triton = uses_triton(*tensors) and all(",
        "triton = all(",
        op("operators_compute_without_triton", "layer_norm", "torch"),
    ),
    torch(
        "fake in another layout",
        f"{OPS}norm/operators.py",
        "return x.new_empty(x.shape, dtype=dtype), *_empty_statistics(x, centered)",
        "return x.new_empty(x.mT.shape, dtype=dtype).mT, *_empty_statistics(x, centered)",
        op("opcheck", "layer_norm", "torch"),
    ),
    Mutation(
        "statistics of all rows of a program",
        NORM,
        "rstd = tl.rsqrt(tl.sum(h * h, 1) / num_columns + eps)",
        "rstd = tl.rsqrt((tl.sum(h * h, 1) * 0 + tl.sum(h * h)) / num_columns + eps)",
        "ops/test_rows.py::test_a_row_does_not_depend_on_the_others[rms_norm-interpreted]",
    ),
    Mutation(
        "dropout drops NaN",
        NORM,
        "tl.where(kept, x * dropout_scale, x * 0.0)",
        "tl.where(kept, x * dropout_scale, 0.0)",
        non_finite("nan-add_layer_norm_dropout-interpreted"),
    ),
    torch(
        "dropout drops NaN, torch",
        NORM_TORCH,
        "return x * kept * philox.inverse_keep(dropout_p)",
        "return torch.where(kept, x * philox.inverse_keep(dropout_p), 0)",
        non_finite("nan-add_layer_norm_dropout-torch"),
    ),
    torch(
        "eps of zero refused",
        f"{OPS}norm/checks.py",
        "if not 0 <= eps <",
        "if not 0 < eps <",
        norm("eps_of_zero_is_torchs[*-torch]"),
    ),
    torch(
        "a negative eps let through",
        f"{OPS}norm/checks.py",
        "if not 0 <= eps <",
        "if not -1 <= eps <",
        norm("bad_input[*-eps_negative]"),
    ),
)
