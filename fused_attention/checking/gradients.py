"""Checks of the gradients that torch twins give, against autograd, in fp64.

Two formulas of the same derivative agree in fp64 far better than to one rounding in fp32, which is
what is allowed.
"""

from __future__ import annotations

import torch

from . import twins
from .calls import Call
from .compare import EPS, difference, largest
from .findings import Findings

ADDITIVE = "additive"
SCORE_GRAD = "torch_score_grad"
ARG_GRAD = "torch_arg_grad"


def score_grad(call: Call, ds, s_in, s_out) -> torch.Tensor:
    return call.variant.type.torch_score_grad(ds, s_in, s_out, *call.at, call.variant.args)


def arg_grad(call: Call, ds, s_in) -> torch.Tensor:
    return call.variant.type.torch_arg_grad(ds, s_in, *call.at, call.variant.args)


def check(call: Call, findings: Findings) -> None:
    kind, call = call.variant.type, call.double()
    if kind.additive:
        with findings.check(ADDITIVE, call):
            _check_additive(call, findings)
    if kind.torch_score_grad is not None:
        with findings.check(SCORE_GRAD, call):
            _check_score_grad(call, findings)
    if kind.torch_arg_grad is not None:
        with findings.check(ARG_GRAD, call):
            _check_arg_grad(call, findings)


def _report(findings: Findings, check: str, call: Call, problem: str | None, what: str) -> None:
    if problem is not None:
        findings.add(check, f"{what} at {call}, {problem}")


def _check_additive(call: Call, findings: Findings) -> None:
    """What is added to two sets of scores, and to the single zero that stands for all of them."""
    first, second = (call.random(stream).double() for stream in (0, 1))
    results = [twins.score(call, s) for s in (first, second)]
    added = [_minus(out, s) for out, s in zip(results, (first, second), strict=True)]
    allowed = EPS * max(map(largest, (first, second, *results)))
    found = difference(added[1], added[0], allowed)
    _report(findings, ADDITIVE, call, found, "torch_score adds another number to other scores")
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    found = difference(twins.score(call, zero), added[0], allowed)
    what = "torch_score adds another number to a single score, (1, 1, 1, 1), that stands for all"
    _report(findings, ADDITIVE, call, found, what)


def _minus(out: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    return torch.where(out.isfinite(), out - s, out)


def _check_score_grad(call: Call, findings: Findings) -> None:
    s, ds = (call.random(stream).double() for stream in (0, 2))
    s.requires_grad_()
    out = twins.score(call, s)
    (expected,) = torch.autograd.grad(out, s, ds, allow_unused=True, materialize_grads=True)
    given = (s.detach().clone(), out.detach().clone())
    found = score_grad(call, ds.clone(), *given)
    if not all(map(torch.equal, given, (s, out))):
        findings.add(SCORE_GRAD, f"at {call}: it overwrites s_in or s_out, which are needed again")
        return
    if found.shape != expected.shape:
        findings.add(
            SCORE_GRAD,
            f"at {call}: expected shape {tuple(expected.shape)}, got {tuple(found.shape)}",
        )
        return
    problem = difference(found, expected, EPS * largest(expected))
    _report(findings, SCORE_GRAD, call, problem, "not the derivative of torch_score")


def _check_arg_grad(call: Call, findings: Findings) -> None:
    s, ds = (call.random(stream).double() for stream in (0, 2))
    leaf = call.variant.args[0].clone().requires_grad_()
    given = (leaf, *call.variant.args[1:])
    with torch.enable_grad():
        out = call.variant.type.torch_score(s, *call.at, given)
        (expected,) = torch.autograd.grad(out, leaf, ds, allow_unused=True, materialize_grads=True)
    operands = (ds.clone(), s.clone())
    contributions = arg_grad(call, *operands)
    if not all(map(torch.equal, operands, (ds, s))):
        findings.add(ARG_GRAD, f"at {call}: it overwrites ds or s_in, which are needed again")
        return
    if tuple(contributions.shape) != call.scores:
        findings.add(
            ARG_GRAD,
            f"at {call}: expected a contribution of every score, shape {call.scores}, "
            f"got {tuple(contributions.shape)}",
        )
        return
    found, size = (summed(call, x) for x in (contributions, contributions.abs()))
    problem = difference(found.flatten(), expected.flatten(), EPS * largest(size))
    if problem is not None:
        problem = problem.replace("batch", "entry", 1)
        _report(findings, ARG_GRAD, call, problem, "not the derivative of torch_score")


def summed(call: Call, contributions: torch.Tensor) -> torch.Tensor:
    """The gradient of the first argument from the contributions of all scores."""
    argument = call.variant.args[0]
    if call.variant.type.torch_arg_index is None:
        return contributions.sum_to_size(argument.shape)
    index = twins.index(call).expand(call.scores).flatten()
    flat = contributions.new_zeros(argument.numel())
    return flat.index_add(0, index, contributions.flatten()).view(argument.shape)
