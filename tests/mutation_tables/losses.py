"""Cross-entropy and linear cross-entropy."""

from .mutation import OPS, Mutation, torch

LOSS, LINEAR_LOSS = "kernels/cross_entropy.py", f"{OPS}loss/linear_cross_entropy.py"


def cross_entropy(test: str) -> str:
    return f"ops/loss/test_cross_entropy.py::test_{test}"


def linear_cross_entropy(test: str) -> str:
    return f"ops/loss/test_linear_cross_entropy.py::test_{test}"


LOSSES = (
    Mutation(
        "cross-entropy without subtracting the maximum",
        LOSS,
        'anchor_new = tl.where(m_new == float("-inf"), 0.0, m_new)',
        "anchor_new = m_new * 0.0",
        cross_entropy("adversarial_logits[*large_and_constant-*float32-interpreted]"),
    ),
    Mutation(
        "cross-entropy without rescaling the sum",
        LOSS,
        "l_i = l_i * tl.exp(m_i - anchor_new) +",
        "l_i = l_i +",
        cross_entropy("adversarial_logits[*rising-*float32-interpreted]"),
    ),
    Mutation(
        "cross-entropy's smoothing sum not shifted",
        LOSS,
        "gaps += w_sum * (anchor_new - anchor) +",
        "gaps +=",
        cross_entropy("adversarial_logits[0.1-rising-*float32-interpreted]"),
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
        "cross-entropy stores log_z as one number",
        LOSS,
        """    tl.store(stats_ptr + 2 * row, anchor)
    tl.store(stats_ptr + 2 * row + 1, log_sum)""",
        """    tl.store(stats_ptr + 2 * row, anchor + log_sum)
    tl.store(stats_ptr + 2 * row + 1, 0.0)""",
        cross_entropy("probabilities_of_large_logits_keep_their_digits[interpreted]"),
    ),
    Mutation(
        "cross-entropy reads logits out of range",
        LOSS,
        "x_t = tl.load(logits_ptr + target, mask=valid, other=0.0)",
        "x_t = tl.load(logits_ptr + target)",
        cross_entropy("target_out_of_range[0.0-1099511627776-interpreted]"),
    ),
    Mutation(
        "cross-entropy ignores targets out of range",
        LOSS,
        'loss = tl.where(valid, loss, tl.where(counts, float("nan"), 0.0))',
        "loss = tl.where(valid, loss, 0.0)",
        cross_entropy("target_out_of_range[0.0--1-interpreted]"),
    ),
    Mutation(
        "cross-entropy: gradient where out of range",
        LOSS,
        'dx = tl.where(valid, dx, tl.where(counts, float("nan"), 0.0))',
        "dx = tl.where(counts, dx, 0.0)",
        cross_entropy("target_out_of_range[0.0--1-interpreted]"),
    ),
    Mutation(
        "cross-entropy counts ignored rows in the mean",
        f"{OPS}loss/reduction.py",
        "        return counts.sum()",
        "        return torch.ones_like(counts).sum()",
        cross_entropy("options[mean-0.0-plain-interpreted]"),
    ),
    Mutation(
        "cross-entropy overwrites the logits",
        f"{OPS}loss/cross_entropy.py",
        "    dlogits = logits.new_empty(logits.shape)",
        "    dlogits = logits",
        cross_entropy("the_logits_stay_as_they_are[interpreted]"),
    ),
    Mutation(
        "chunks: backward kernel not launched",
        f"{OPS}loss/triton_backend.py",
        "backward(grad, logits, target, weight, stats, ignore_index, label_smoothing, logits)",
        "pass",
        linear_cross_entropy("options[mean-0.0-float32-interpreted]"),
    ),
    torch(
        "chunks: smoothing dropped from the gradient",
        f"{OPS}loss/torch_backend.py",
        "        p -= share",
        "        pass",
        linear_cross_entropy("options[sum-0.1-float32-torch]"),
    ),
    torch(
        "chunks: smoothing dropped from the loss",
        f"{OPS}loss/torch_backend.py",
        "        loss -= log_p.sum(1) * share if weight is None else log_p @ share",
        "        pass",
        linear_cross_entropy("options[sum-0.1-float32-torch]"),
    ),
    torch(
        "chunks: upstream gradient of scalar ignored",
        LINEAR_LOSS,
        "torch.mul(x.to(grad.dtype), grad, out=",
        "torch.mul(x.to(grad.dtype), 1.0, out=",
        linear_cross_entropy("backward_twice_and_the_same_every_time[sum-torch]"),
    ),
    torch(
        "chunks: upstream gradient of rows ignored",
        f"{OPS}loss/torch_backend.py",
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
        "chunks: saved gradients scaled in place",
        LINEAR_LOSS,
        "return torch.mul(x.to(grad.dtype), grad, out=x.new_empty(x.shape, dtype=dtype))",
        "return x.mul_(grad).clone()",
        linear_cross_entropy("backward_twice_and_the_same_every_time[sum-torch]"),
    ),
    torch(
        "chunks: one chunk for all tokens",
        "fused_attention/tuning.py",
        "return min(1024, max(256, dim))",
        "return 1 << 30",
        linear_cross_entropy("peak_memory_is_a_fraction_of_separate_calls"),
    ),
    torch(
        "chunks: zeros allocated for saved gradients",
        LINEAR_LOSS,
        "    ctx.set_materialize_grads(False)",
        "    pass",
        linear_cross_entropy("backward_allocates_only_what_it_returns"),
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
        "chunks: gradients computed under no_grad",
        LINEAR_LOSS,
        "torch.is_grad_enabled() and x is not None and x.requires_grad",
        "x is not None",
        linear_cross_entropy("no_grad_computes_no_gradients[torch]"),
    ),
    torch(
        "chunks: NaN of ignored tokens in the weight's gradient",
        LINEAR_LOSS,
        "x.masked_fill(ignored, 0)",
        "x",
        linear_cross_entropy("ignored_tokens_have_no_effect[mean-0.0-torch]"),
    ),
    torch(
        "chunks: NaN of the weight in ignored tokens' gradients",
        LINEAR_LOSS,
        "out=dhidden[at]).masked_fill_(ignored, 0)",
        "out=dhidden[at])",
        linear_cross_entropy("ignored_tokens_have_gradient_zero_beside_nan[weight-mean-torch]"),
    ),
    torch(
        "chunks: held gradients of ignored tokens times NaN",
        LINEAR_LOSS,
        "grad.where(target != ignore_index, 0)[:, None] if len(held[0]) else grad",
        "grad",
        linear_cross_entropy("ignored_tokens_have_gradient_zero_beside_nan[upstream-mean-torch]"),
    ),
    torch(
        "chunks: gradients of ignored tokens times NaN",
        f"{OPS}loss/torch_backend.py",
        "grad = None if grad is None else grad.where(target != ignore_index, 0)",
        "pass",
        linear_cross_entropy("ignored_tokens_have_no_effect[none-0.0-torch]"),
    ),
    torch(
        "chunks: mean over no target has a gradient",
        f"{OPS}loss/reduction.py",
        "torch.where(some, total / weights.where(some, 1), total.detach() / weights)",
        "total / weights",
        linear_cross_entropy("every_target_ignored[torch]"),
    ),
)
