"""The error budget of a fused op, for any `OpCase`.

    max |x - exact|  <=  2 * max |naive - exact|  +  max(band)

for every output and every gradient.  ``exact`` is the case's reference on the same values in fp64,
``naive`` the reference in the dtype of the inputs.  The band is the rounding error that every
algorithm has:

1. storing the result: half a unit in its last place;
2. summing n terms in fp32 blocks (fp64 for fp64 inputs): 1 + log2(n) roundings, each of a unit in
   the last place of the result;
3. the change of the result when inputs and upstream gradients change by the error of 2.  It is
   measured in fp64, as the maximum over a few draws of random signs.

With fp64 inputs ``exact`` has the same rounding errors, so the band is doubled.

Where ``exact`` is NaN or infinite, x must be NaN or infinite too: then it counts as exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from fused_attention.testing import OpCase, OpProblem

from . import budget
from .support import poisoned

DRAWS = 4
UPSTREAM = 900  # OpProblem.normal draws the gradient of output i from stream 900 + i


class Question(NamedTuple):
    """A case with values: its inputs, and the upstream gradient of each output."""

    case: OpCase
    inputs: tuple
    upstream: tuple

    def double(self) -> Question:
        return self.map(lambda x: x.double())

    def map(self, change) -> Question:
        """``change`` applied to every floating tensor."""
        inputs, upstream = (
            tuple(change(x) if _floating(x) else x for x in tensors)
            for tensors in (self.inputs, self.upstream)
        )
        return Question(self.case, inputs, upstream)


def ask(case: OpCase, problem: OpProblem, bend=None) -> Question:
    """Draw the values of a problem; ``bend`` is applied to floating inputs of 2 or more dims."""
    inputs = case.make_inputs(problem)
    if bend is not None:
        inputs = tuple(bend(x) if _floating(x) and x.ndim > 1 else x for x in inputs)
    torch.manual_seed(0)
    outputs = _tuple(case.reference(*inputs))
    upstream = tuple(
        problem.normal(*out.shape, stream=UPSTREAM + i, dtype=out.dtype)
        for i, out in enumerate(outputs)
    )
    return Question(case, inputs, upstream)


def evaluate(function, question: Question) -> dict[str, torch.Tensor]:
    """Outputs (out0, ...) and gradients of the inputs (d0, ...), always with the same seed."""
    inputs = [x.detach().requires_grad_() if _floating(x) else x for x in question.inputs]
    torch.manual_seed(0)
    with poisoned():
        outputs = _tuple(function(*inputs))
        leaves = [x for x in inputs if _floating(x)]
        gradients = iter(torch.autograd.grad(outputs, leaves, question.upstream))
    named = {f"out{i}": out.detach() for i, out in enumerate(outputs)}
    return named | {f"d{i}": next(gradients) for i, x in enumerate(inputs) if _floating(x)}


def check(question: Question, where: str = "", terms: int = 1) -> dict[str, torch.Tensor]:
    """Assert that every result of the op is within its budget; returns the results.

    ``terms``: the least number of summed terms to assume, where the shapes suggest fewer.
    """
    case = question.case
    exact = evaluate(case.reference, question.double())
    naive = evaluate(case.reference, question)
    found = evaluate(case.op, question)
    bands = band(question, exact, naive, terms)
    assert found.keys() == exact.keys()
    wrong = []
    for name, x in found.items():
        assert x.shape == exact[name].shape, f"{where} {name}: {x.shape}"
        assert x.dtype == naive[name].dtype, f"{where} {name}: {x.dtype}"
        allowed = distance(naive[name], exact[name])
        assert math.isfinite(allowed + bands[name]), f"{where} {name}: too extreme to judge"
        error = distance(x, exact[name])
        if not error <= 2 * allowed + bands[name]:
            wrong.append(f"{name}: error {error:.3g}, naive {allowed:.3g}, band {bands[name]:.3g}")
    assert not wrong, f"{case.name} {where}: " + "; ".join(wrong)
    return found


def band(question: Question, exact, naive, terms: int = 1) -> dict[str, float]:
    """The rounding band of each result."""
    dtype = next(x.dtype for x in question.inputs if _floating(x))
    terms = max(terms, *(max(x.shape, default=1) for x in question.inputs if _floating(x)))
    roundings = 1 + math.log2(terms)
    size = roundings * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    generator = torch.Generator(question.inputs[0].device)

    def err(x):
        signs = torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x.dtype)
        return x * (1 + size * (2 * signs - 1))

    effect = dict.fromkeys(exact, 0.0)
    for draw in range(DRAWS):
        generator.manual_seed(draw)
        moved = evaluate(question.case.reference, question.double().map(err))
        effect = {name: max(effect[name], distance(moved[name], x)) for name, x in exact.items()}
    once = 2 if dtype == torch.float64 else 1
    return {
        name: once * (effect[name] + (half_ulp(naive[name]) + size) * largest(x.abs()))
        for name, x in exact.items()
    }


def distance(x, exact) -> float:
    """max |x - exact|; inf where one is NaN or infinite and the other is not."""
    lost = ~x.isfinite() & ~exact.isfinite()
    return budget.distance(x.masked_fill(lost, 0), exact.masked_fill(lost, 0))


def largest(x) -> float:
    """The largest finite number of ``x``, 0 or more."""
    return budget.largest(x.where(x.isfinite(), 0))


def half_ulp(x) -> float:
    return torch.finfo(x.dtype).eps / 2


def _floating(x) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _tuple(outputs) -> tuple:
    return outputs if isinstance(outputs, tuple) else (outputs,)
