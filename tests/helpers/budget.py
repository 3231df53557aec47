"""The error budget of attention.

    max |x - exact|  <=  2 * max |naive - exact|  +  max(band)

for the output, the LSE and every gradient.  ``exact`` is the reference on the same values in fp64,
``naive`` the reference in the dtype of the inputs; `rounding` derives the band.
"""

import math

import torch

import fused_attention as fa

from . import stacks
from .inputs import Inputs
from .rounding import ATEN_HALF_EXP, band
from .support import poisoned, runs_triton


def fused(*args, **options):
    return fa.attention(*args, **options, return_lse=True)


def naive(*args, **options):
    return fa.reference.attention(*args, **options)[:2]


def evaluate(attention, inputs: Inputs, *, seed: int = 0, **options) -> dict[str, torch.Tensor]:
    """Output, LSE and all gradients by name; ``attention`` returns (output, LSE)."""
    leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in "qkv"}
    tensors = [x if x is None else x.detach() for x in inputs.tensors]
    for name, tensor in stacks.with_gradient(inputs.stack, tensors).items():
        leaves[name] = tensor.requires_grad_()
    torch.manual_seed(seed)
    variants = stacks.build(inputs.stack, tensors)
    back = [inputs.do] if inputs.dlse is None else [inputs.do, inputs.dlse]
    with poisoned():
        results = attention(leaves["q"], leaves["k"], leaves["v"], variants, **options)
        gradients = torch.autograd.grad(results[: len(back)], list(leaves.values()), back)
    named = zip(leaves, gradients, strict=True)
    return {
        "out": results[0].detach(),
        "lse": results[1].detach(),
        **{f"d{name}": gradient for name, gradient in named},
    }


def check(inputs: Inputs, *, attention=fused, **options) -> dict[str, torch.Tensor]:
    """Assert that every result of ``attention`` is within its budget; returns the results."""
    exact = evaluate(naive, inputs.double(), **options)
    plain = evaluate(naive, inputs, **options)
    bands = band(inputs, exact, **options)
    if inputs.q.dtype.itemsize == 2 and not runs_triton(inputs.q.device.type):
        bands["lse"] += ATEN_HALF_EXP
    found = evaluate(attention, inputs, **options)
    wrong = []
    for name, x in found.items():
        assert x.shape == exact[name].shape, f"{name}: {x.shape}"
        assert x.dtype == plain[name].dtype, f"{name}: {x.dtype}"
        allowed, slack = distance(plain[name], exact[name]), largest(bands[name])
        assert math.isfinite(allowed + slack), f"{name}: too extreme to judge, naive overflows"
        error = distance(x, exact[name])
        if not error <= 2 * allowed + slack:
            wrong.append(f"{name}: error {error:.3g}, naive {allowed:.3g}, band {slack:.3g}")
    assert not wrong, "; ".join(wrong)
    return found


def distance(x, exact) -> float:
    """max |x - exact|; inf where NaN or infinities differ."""
    apart = torch.where(x.double() == exact, 0.0, (x.double() - exact).abs())
    return largest(apart.nan_to_num(nan=torch.inf))


def largest(x) -> float:
    return x.max().item() if x.numel() else 0.0
