"""Activations, gated linear units and rotary embedding."""

from .mutation import OPS, Mutation, non_finite, torch


def case(name: str) -> str:
    return f"ops/attention/test_attention.py::test_output_and_gradients[*-{name}-*]"


ACTIVATIONS, GELU, GLU = (f"kernels/{name}.py" for name in ("activations", "gelu", "glu"))


TORCH_GELU = f"{OPS}activation/torch_gelu.py"


def outputs(case: str) -> str:
    return f"ops/test_ops.py::test_outputs_and_gradients[{case}-interpreted]"


POINTWISE = (
    Mutation(
        "erf for tanh",
        ACTIVATIONS,
        'elif KIND == "tanh":\n        gate, _ = _sigmoids(_twice_u(x))',
        'elif KIND == "tanh":\n        gate, _ = _normal(x)',
        "ops/activation/test_gelu.py::test_approximate_selects_erf_or_tanh[interpreted]",
    ),
    Mutation(
        "derivative of erf for that of tanh",
        ACTIVATIONS,
        '    if KIND == "none":\n        gate, e = _normal(x)',
        '    if KIND != "silu":\n        gate, e = _normal(x)',
        outputs("gelu_tanh"),
    ),
    Mutation(
        "tail of GELU by cancellation",
        ACTIVATIONS,
        "tl.where(x < 0, tail, 1.0 - tail), e",
        "tl.where(x < 0, 1.0 - (1.0 - tail), 1.0 - tail), e",
        "ops/activation/test_gelu.py::test_tails_are_accurate_relative_to_themselves[none-interpreted]",
    ),
    Mutation(
        "derivative of tanh overflows",
        ACTIVATIONS,
        "tl.minimum(tl.maximum(x, -32.0), 32.0)",
        "x",
        "ops/activation/test_gelu.py::test_finite_inputs_have_finite_results[float32-tanh-interpreted]",
    ),
    Mutation(
        "derivative of tanh a number at infinity",
        ACTIVATIONS,
        "slope += x - x",
        "slope += 0.0",
        non_finite("inf-gelu_tanh-interpreted"),
    ),
    torch(
        "PyTorch's derivative of tanh for large numbers",
        TORCH_GELU,
        "return (x.abs() > _FAR) & ~x.isinf()",
        "return x.isnan() & ~x.isnan()",
        "ops/activation/test_gelu.py::test_finite_inputs_have_finite_results[float64-tanh-torch]",
    ),
    torch(
        "large numbers for GELU not looked for",
        TORCH_GELU,
        "all(abs(value.item()) <= _FAR for value in x.detach().aminmax())",
        "True",
        "ops/activation/test_magnitudes.py::test_every_magnitude_within_its_budget[gelu_tanh-torch]",
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
        f"{OPS}activation/triton_backend.py",
        "dy, x = _laid_out(dy, dx), _laid_out(x, dx)",
        "dy, x = dy, _laid_out(x, dx)",
        "ops/activation/test_gelu.py::test_layouts_are_those_of_torch[channels_last-gelu-interpreted]",
    ),
    Mutation(
        "contiguous results for any layout",
        f"{OPS}layout.py",
        "x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)",
        "x.new_empty(x.shape)",
        "ops/activation/test_gelu.py::test_layouts_are_those_of_torch[channels_last-gelu-interpreted]",
    ),
    Mutation(
        "partial bias gradients in the input's dtype",
        f"{OPS}activation/triton_backend.py",
        "partial = x.new_empty(programs, rows.shape[1], dtype=torch.float32)",
        "partial = x.new_empty(programs, rows.shape[1])",
        "ops/activation/test_gelu.py::test_bias_gradient_is_summed_in_fp32[3-interpreted]",
    ),
    Mutation(
        "a program takes its first tile of rows only",
        GELU,
        "tl.range(pid_p, tl.cdiv(R, BLOCK_R), P)",
        "tl.range(pid_p, P, P)",
        "ops/activation/test_gelu.py::test_programs_loop_over_their_share_of_the_rows[interpreted]",
    ),
    Mutation(
        "the sum with the bias rounded",
        GELU,
        "activate(x + bias, KIND))",
        "activate(round_to(x + bias, x_ptr.dtype.element_ty).to(tl.float32), KIND))",
        "ops/activation/test_gelu.py::test_the_sum_with_the_bias_is_not_rounded[interpreted]",
    ),
    Mutation(
        "up activated",
        GLU,
        "activate(gate, KIND) * up",
        "activate(up, KIND) * gate",
        "ops/activation/test_glu.py::test_the_first_argument_is_activated[swiglu-interpreted]",
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
        f"{OPS}activation/triton_backend.py",
        "gate, up, y = as_rows(gate), as_rows(up), as_rows(y)",
        "gate, up, y = as_rows(gate.contiguous()), as_rows(up.contiguous()), as_rows(y)",
        "ops/activation/test_glu.py::test_halves_of_a_projection_are_read_in_place[shape0-swiglu-interpreted]",
    ),
    torch(
        "unknown approximate let through",
        f"{OPS}activation/checks.py",
        'approximate not in ("none", "tanh")',
        "False",
        "ops/activation/test_gelu.py::test_unknown_approximate[erf]",
    ),
)
ROTATE, ROTARY_TORCH = "kernels/rotary.py", f"{OPS}rotary/torch_backend.py"


def rotary(test: str) -> str:
    return f"ops/rotary/test_rotary.py::test_{test}"


ROTARY = (
    torch(
        "rotary scaling of high frequencies",
        f"{OPS}rotary/scaling.py",
        ".clamp(0, 1)",
        ".clamp(0, 0)",
        rotary("scaled_tables"),
    ),
    torch(
        "rotary extrapolation of low frequencies",
        f"{OPS}rotary/scaling.py",
        ".clamp(0, 1)",
        ".clamp(max=1)",
        rotary("scaled_tables"),
    ),
    Mutation(
        "rotary gradients rotated forward",
        f"{OPS}rotary/rotary.py",
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
        "columns beyond rotary_dim left out",
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
        "rotary gradients rotated forward, torch",
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
        f"{OPS}rotary/rotary.py",
        "angles = torch.outer(positions, frequencies)",
        "angles = torch.outer(positions.float(), frequencies.float()).double()",
        rotary("tables_are_accurate_at_large_positions"),
    ),
)
