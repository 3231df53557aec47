"""Cross-entropy of a language model: of logits, and of hidden states with the layer before it.

``hidden`` is the size of the vocabulary.  The hidden states of `linear_cross_entropy` have
1/64 as many channels, as in GPT-2: 784 for its vocabulary of 50,257, where GPT-2 has 768.
"""

import torch
import torch.nn.functional as F

import fused_attention as fa

from .op_case import OpCase, OpProblem, operations

IGNORED = -100


def _targets(problem: OpProblem) -> torch.Tensor:
    """Random classes; one row in five is ignored."""
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    shape, device = (problem.rows,), problem.device
    target = torch.randint(problem.hidden, shape, generator=generator, device=device)
    target[3::5] = IGNORED
    return target


def _logits(problem: OpProblem):
    return problem.normal(problem.rows, problem.hidden), _targets(problem)


def dim_of(vocabulary: int) -> int:
    return max(8, vocabulary // 512 * 8)


def _hidden_states(problem: OpProblem):
    dim = dim_of(problem.hidden)
    weight = problem.normal(problem.hidden, dim, stream=1) / dim**0.5
    return problem.normal(problem.rows, dim), weight, _targets(problem)


def _hidden_states_and_bias(problem: OpProblem):
    return *_hidden_states(problem), problem.normal(problem.hidden, stream=2)


def _class_weights(x: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Weights from 1/4 to 1, exact in every dtype."""
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


def _bytes(problem: OpProblem, backward: bool) -> int:
    """Forward reads the logits; backward reads them and writes their gradient."""
    return (2 if backward else 1) * problem.rows * problem.hidden * problem.dtype.itemsize


def _linear_flops(problem: OpProblem, backward: bool) -> int:
    """One product of all tokens with the vocabulary forward, two backward."""
    return (4 if backward else 2) * problem.rows * problem.hidden * dim_of(problem.hidden)


def _linear_bytes(problem: OpProblem, backward: bool) -> int:
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
    OpCase(
        name="cross_entropy",
        op=fa.cross_entropy,
        reference=F.cross_entropy,
        make_inputs=_logits,
        flops=operations(4, 4),
        bytes=_bytes,
        liger=_liger("liger_cross_entropy"),
    ),
    OpCase(
        name="cross_entropy_weighted_smoothed",
        op=_weighted(fa.cross_entropy),
        reference=_weighted(F.cross_entropy),
        make_inputs=_logits,
        flops=operations(7, 6),
        bytes=_bytes,
    ),
    OpCase(
        name="linear_cross_entropy",
        op=fa.linear_cross_entropy,
        reference=_pair,
        make_inputs=_hidden_states,
        flops=_linear_flops,
        bytes=_linear_bytes,
        liger=_liger("liger_fused_linear_cross_entropy"),
        sizes=LINEAR_SIZES,
    ),
    OpCase(
        name="linear_cross_entropy_weighted_smoothed",
        op=_linear_weighted,
        reference=_pair_weighted,
        make_inputs=_hidden_states_and_bias,
        flops=_linear_flops,
        bytes=_linear_bytes,
        sizes=LINEAR_SIZES,
    ),
)
