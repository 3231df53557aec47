"""Registering operators with PyTorch, so that autograd, compile, export and fake tensors know them.

Every fused op is two operators, itself and its gradient, each opaque to tracing: `define` says
what one computes, what it would return for fake tensors, and how gradients flow through it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch.utils.flop_counter import register_flop_formula

from .differentiation import autograd_kernel

_NAMESPACE = "fused_attention"
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")


def define(
    schema: str,
    implementation: Callable,
    fake: Callable,
    *,
    autograd: Callable | None = None,
    setup_context: Callable | None = None,
    flops: Callable | None = None,
    instead: str = "the PyTorch operation it replaces",
):
    """Register an operator, ``torch.ops.fused_attention.<name of the schema>``, and return it.

    Args:
        schema: in PyTorch's notation, ``"gelu(Tensor x, str approximate) -> Tensor"``.
        implementation: for every device; chooses between the kernel and PyTorch.
        fake: returns uninitialised results with the shapes, strides and dtypes of the real ones.
        autograd: ``autograd(ctx, *grads)`` returns a gradient for each argument.  Without one the
            operator is a gradient itself, and differentiating it raises NotImplementedError.
        setup_context: ``setup_context(ctx, inputs, output)`` saves what ``autograd`` needs; see
            `autograd_kernel`.
        flops: takes shapes in place of tensors, and ``out_shape``; for torch's FLOP counter.
        instead: what has the derivatives that this has not.
    """
    name = schema.partition("(")[0]
    qualified = f"{_NAMESPACE}::{name}"
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, _without_autocast(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    operator = getattr(torch.ops.fused_attention, name)
    if "!" not in schema:  # what mutates its arguments can have no gradient
        formula = autograd or _refusal(name, instead)
        kernel = autograd_kernel(operator.default, setup_context, formula)
        _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)
    if flops is not None:
        register_flop_formula(operator)(flops)
    return operator


def refuse_forward_mode(name: str, instead: str, *tensors: torch.Tensor | None) -> None:
    """Raise if a tensor carries a tangent: operators would silently return a zero one."""
    forward_ad = torch.autograd.forward_ad
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            f"{name}: forward-mode derivatives (jvp) are not implemented; {instead} has them"
        )


def _without_autocast(implementation: Callable) -> Callable:
    """Autocast ends at the operator: inside, a product of fp32 tensors is one in fp32."""

    @functools.wraps(implementation)
    def run(*args):
        with torch._C._DisableAutocast():
            return implementation(*args)

    return run


def _refusal(name: str, instead: str) -> Callable:
    op = name.removesuffix("_backward")

    def no_double_backward(ctx, *grads):
        raise NotImplementedError(f"{op}: double backward is not implemented; {instead} has it")

    return no_double_backward
