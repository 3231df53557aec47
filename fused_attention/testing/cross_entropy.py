"""Cross-entropy of a language model: of logits, and of hidden states with the layer before it.

``hidden`` is the vocabulary.  The hidden states of `linear_cross_entropy` have a 64th as many
channels: 784 beside GPT-2's vocabulary of 50,257, which goes with 768.
"""

import torch
import torch.nn.functional as F

import fused_attention as fa

from .op_case import Case, Problem

IGNORED = -100


def _targets(problem: Problem) -> torch.Tensor:
    """Random classes; one row in five is ignored."""
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    shape, device = (problem.rows,), problem.device
    target = torch.randint(problem.hidden, shape, generator=generator, device=device)
    target[3::5] = IGNORED
    return target


def _logits(problem: Problem):
    return problem.normal(problem.rows, problem.hidden), _targets(problem)


def dim_of(vocabulary: int) -> int:
    return max(8, vocabulary // 512 * 8)


def _hidden_states(problem: Problem):
    dim = dim_of(problem.hidden)
    weight = problem.normal(problem.hidden, dim, stream=1) / dim**0.5
    return problem.normal(problem.rows, dim), weight, _targets(problem)


def _hidden_states_and_bias(problem: Problem):
    return *_hidden_states(problem), problem.normal(problem.hidden, stream=2)


def _class_weights(x: torch.Tensor, num_classes: int) -> torch.Tensor:
    """From 1/4 to 1; constants, and the same in every dtype."""
    return ((torch.arange(num_classes, device=x.device) % 4 + 1) / 4).to(x.dtype)


def _weighted(function):
    def loss(logits, target):
        weight = _class_weights(logits, logits.shape[1])
        return function(logits, target, weight, label_smoothing=0.1, reduction="none")

    return loss


def _linear_weighted(hidden, weight, target, bias):
    return fa.linear_cross_entropy(
        *(hidden, weight, target, bias),
        class_weight=_class_weights(hidden, len(weight)),
        label_smoothing=0.1,
        reduction="none",
    )


def _pair(hidden, weight, target):
    return F.cross_entropy(F.linear(hidden, weight), target)


def _pair_weighted(hidden, weight, target, bias):
    return _weighted(F.cross_entropy)(F.linear(hidden, weight, bias), target)


def _arithmetic(forward: int, backward: int):
    return lambda problem, is_backward: (
        (backward if is_backward else forward) * problem.rows * problem.hidden
    )


def _bytes(problem: Problem, backward: bool) -> int:
    """Forward reads the logits; backward reads them and writes their gradient."""
    return (2 if backward else 1) * problem.rows * problem.hidden * problem.dtype.itemsize


def _linear_flops(problem: Problem, backward: bool) -> int:
    """One product of all tokens with the vocabulary forward, two backward."""
    return (4 if backward else 2) * problem.rows * problem.hidden * dim_of(problem.hidden)


def _linear_bytes(problem: Problem, backward: bool) -> int:
    """Forward reads hidden states and weight; backward reads them and writes their gradients."""
    numbers = (problem.rows + problem.hidden) * dim_of(problem.hidden)
    return (2 if backward else 1) * numbers * problem.dtype.itemsize


def _liger(name: str):
    def loss(*args):
        from liger_kernel.transformers import functional

        return getattr(functional, name)(*args)

    return loss


LINEAR_SIZES = (1, 7, 64, 100, 512, 1000, 4096, 16384)

CASES = (
    Case(
        name="cross_entropy",
        op=fa.cross_entropy,
        reference=F.cross_entropy,
        make_inputs=_logits,
        flops=_arithmetic(4, 4),
        bytes=_bytes,
        liger=_liger("liger_cross_entropy"),
    ),
    Case(
        name="cross_entropy_weighted_smoothed",
        op=_weighted(fa.cross_entropy),
        reference=_weighted(F.cross_entropy),
        make_inputs=_logits,
        flops=_arithmetic(7, 6),
        bytes=_bytes,
    ),
    Case(
        name="linear_cross_entropy",
        op=fa.linear_cross_entropy,
        reference=_pair,
        make_inputs=_hidden_states,
        flops=_linear_flops,
        bytes=_linear_bytes,
        liger=_liger("liger_fused_linear_cross_entropy"),
        sizes=LINEAR_SIZES,
    ),
    Case(
        name="linear_cross_entropy_weighted_smoothed",
        op=_linear_weighted,
        reference=_pair_weighted,
        make_inputs=_hidden_states_and_bias,
        flops=_linear_flops,
        bytes=_linear_bytes,
        sizes=LINEAR_SIZES,
    ),
)
