"""Attention with a variant, forward and backward, against the reference.

    max |x - exact|  <=  2 * max |naive - exact|  +  max(band)

for the output, the LSE and every gradient.  ``exact`` is the reference in fp64, ``naive`` in fp32.
The band is the first-order error of attention in fp32: a rounding u in every number that is
computed, and in a sum of n terms u * sqrt(n) times the terms without their signs.
"""

from __future__ import annotations

import math

import torch

from .. import reference
from ..ops.attention.attention import attention
from ..variants.base import Variant
from . import gradients, twins
from .calls import Call
from .compare import EPS, largest
from .findings import Findings

HEAD_DIM = 8
_NAMES = ("q", "k", "v")


def check(call: Call, device: torch.device, dtype: torch.dtype, name: str, findings: Findings):
    """Check attention on ``device`` in ``dtype``.

    In fp64 also with neither gradients of the LSE nor of arguments: ATen's kernel then computes it,
    if the variant is additive.
    """
    inputs = _Inputs(call)
    band = _band(inputs, inputs.evaluate(reference.attention, torch.float64))
    for lse in (True, False) if dtype == torch.float64 else (True,):
        exact = inputs.evaluate(reference.attention, torch.float64, lse=lse)
        naive = inputs.evaluate(reference.attention, torch.float32, lse=lse)
        found = inputs.evaluate(attention, dtype, device, lse=lse, return_lse=True)
        for result, x in found.items():
            allowed = 2 * _distance(naive[result], exact[result]) + largest(band[result])
            error = _distance(x, exact[result])
            if not error <= allowed:
                findings.add(
                    name,
                    f"at {call}: {result} is {error:.2g} from the reference's, "
                    f"allowed {allowed:.2g}",
                )
                return


def _distance(x: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest error; inf where NaN or infinities differ."""
    x, exact = x.cpu().double(), exact.double()
    apart = torch.where(x == exact, 0.0, (x - exact).abs()).nan_to_num(nan=torch.inf)
    return apart.max().item() if apart.numel() else 0.0


class _Inputs:
    """Random q, k, v and upstream gradients in fp64 with the values of fp32, and the variant."""

    def __init__(self, call: Call):
        self.call = call
        batch, heads, rows, keys = call.scores
        kv_size = (batch, call.kv_heads, keys, HEAD_DIM)
        size = (batch, heads, rows, HEAD_DIM)
        drawn = (call.random(3 + i, *n) for i, n in enumerate((size, kv_size, kv_size, size)))
        self.q, self.k, self.v, self.do = (x.double() for x in drawn)
        self.dlse = call.random(7, *size[:3]).double()

    def evaluate(self, function, dtype, device="cpu", *, lse=True, **options):
        """Output, LSE, gradients; without ``lse`` those of q, k and v through the output alone."""
        call = self.call.double() if dtype == torch.float64 else self.call
        call = call.to(torch.device(device))
        leaves = {name: getattr(self, name).to(device, dtype).requires_grad_() for name in _NAMES}
        variant = call.variant
        if lse:
            call, arguments = _with_gradients(call)
            variant = call.variant
            leaves |= arguments
        results = function(*(leaves[name] for name in _NAMES), variant, **options)[:2]
        upstream = [self.do.to(device, dtype)]
        if lse:
            upstream.append(self.dlse.to(device, results[1].dtype))
        grads = torch.autograd.grad(
            results[: len(upstream)],
            list(leaves.values()),
            upstream,
            allow_unused=True,
            materialize_grads=True,
        )
        named = {f"the gradient of {name}": x for name, x in zip(leaves, grads, strict=True)}
        return {"the output": results[0].detach(), "the LSE": results[1].detach(), **named}


def _with_gradients(call: Call) -> tuple[Call, dict[str, torch.Tensor]]:
    """The call with leaves for the arguments that receive a gradient, and the leaves by name."""
    kind, leaves = call.variant.type, {}
    args = list(call.variant.args)
    for i, x in enumerate(args):
        differentiable = kind.sink_logit is not None or (kind.arg_grad is not None and i == 0)
        if isinstance(x, torch.Tensor) and x.is_floating_point() and differentiable:
            args[i] = leaves[f"argument {i}"] = x.detach().clone().requires_grad_()
    return Call(Variant(kind, tuple(args)), call.shape), leaves


def _band(inputs: _Inputs, exact: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The band of each result; the terms of sums without their signs."""
    call, kind = inputs.call.double(), inputs.call.variant.type
    _, heads, rows, keys = call.scores
    group, scale = heads // call.kv_heads, HEAD_DIM**-0.5
    q, do, dlse = inputs.q.abs(), inputs.do.abs(), inputs.dlse.abs()[..., None]
    k, v = (x.abs().repeat_interleave(group, 1) for x in (inputs.k, inputs.v))
    weights = reference.attention(
        *(inputs.q, inputs.k, inputs.v, call.variant), return_weights=True
    ).weights
    root = math.sqrt(max(rows, keys, HEAD_DIM))

    raw = scale * inputs.q @ inputs.k.repeat_interleave(group, 1).mT
    error, derivative = root * scale * q @ k.mT + raw.abs(), torch.ones_like(raw)
    if kind.score is not None:
        s = twins.score(call, raw)
        if not kind.additive:
            derivative = gradients.score_grad(call, torch.ones_like(raw), raw.clone(), s.clone())
            derivative = derivative.abs() + largest(derivative) / root
        error = (error * derivative + s.abs()).nan_to_num(nan=0, posinf=0)
    lse, out = (exact[x].abs().nan_to_num(posinf=0) for x in ("the LSE", "the output"))
    of_lse = (weights * error).sum(-1, keepdim=True) + root + lse[..., None]
    of_weight = weights * (error + of_lse + root)
    ds = of_weight * (do @ v.mT + (do * out).sum(-1, keepdim=True) + dlse)
    raw_ds = ds * derivative

    def over_group(x):
        return x.unflatten(1, (call.kv_heads, group)).sum(2)

    bands = {
        "the output": of_weight @ v + of_lse * out,
        "the LSE": of_lse,
        "the gradient of q": scale * raw_ds @ k,
        "the gradient of k": over_group(scale * raw_ds.mT @ q),
        "the gradient of v": over_group(of_weight.mT @ do),
    }
    if kind.arg_grad is not None:
        terms = gradients.arg_grad(call, ds.clone(), raw).abs()
        bands["the gradient of argument 0"] = root * gradients.summed(call, terms)
    if kind.sink_logit is not None:
        of_row = of_lse * ((do * out).sum(-1, keepdim=True) + dlse)
        names = (name for name in exact if name.startswith("the gradient of argument"))
        bands |= {name: root * of_row.sum((0, 2)) for name in names}
    return {name: EPS * x for name, x in bands.items()}
