"""Register operators with PyTorch, for autograd, torch.compile, torch.export and fake tensors.

Every fused op is two operators, the op and its gradient, each opaque to tracing.  `define` takes
what an operator computes, what it returns for fake tensors, and its backward formula.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.utils.flop_counter import register_flop_formula

from . import transforms

_NAMESPACE = "fused_attention"
_LIST_OF_TENSORS = "List[Tensor]"
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
        implementation: the computation, for every device.
        fake: returns uninitialized results with the shapes, strides and dtypes of the real ones.
        autograd: the backward formula, ``autograd(ctx, *grads)``: a gradient for each argument.
            Without one, differentiating the operator raises NotImplementedError.
        setup_context: ``setup_context(ctx, inputs, output)`` saves what ``autograd`` needs.
        flops: formula for torch's FLOP counter; takes shapes in place of tensors, and
            ``out_shape``.
        instead: named in the error: what has the derivatives that this operator lacks.
    """
    name = schema.partition("(")[0]
    qualified = f"{_NAMESPACE}::{name}"
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, _isolated(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    operator = getattr(torch.ops.fused_attention, name)
    if "!" not in schema:  # what mutates its arguments can have no gradient
        formula = autograd or _refusal(name, instead)
        kernel = _autograd_kernel(operator.default, setup_context, formula)
        kernel = transforms.without_forward_mode(kernel, name, instead)
        _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)
        torch.library.register_vmap(
            qualified, transforms.batching_rule(operator.default), lib=_LIBRARY
        )
    else:
        torch.library.register_vmap(qualified, transforms.no_batching(name), lib=_LIBRARY)
    _LIBRARY.impl(name, transforms.no_batched_gradients(name), "Batched")
    if flops is not None:
        register_flop_formula(operator)(flops)
    return operator


def _autograd_kernel(
    operator: torch._ops.OpOverload, setup_context: Callable | None, formula: Callable
) -> Callable:
    """The operator's kernel for the dispatch key Autograd: ``kernel(keyset, *args)``.

    ``setup_context(ctx, inputs, output)`` saves what ``formula(ctx, *grads)`` needs, which returns
    a gradient for each argument, and for a list of tensors a list of gradients.

    ``torch.library.register_autograd`` does the same, but flattens the arguments of every call
    with pytree, which takes longer than all other host work of a small call.  Here the schema
    tells which argument, if any, is a list of tensors.
    """
    arguments, returns = operator._schema.arguments, operator._schema.returns
    places = [i for i, arg in enumerate(arguments) if str(arg.type) == _LIST_OF_TENSORS]
    gives_list = str(returns[0].type) == _LIST_OF_TENSORS
    assert len(places) <= 1 and not any(arg.has_default_value() for arg in arguments)
    at = places[0] if places else None

    def flat(args: tuple) -> tuple:
        return args if at is None else (*args[:at], *args[at], *args[at + 1 :])

    def nested(args: tuple, count: int) -> tuple:
        return (
            args if at is None else (*args[:at], list(args[at : at + count]), *args[at + count :])
        )

    def run(keyset, args):
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    class Differentiable(torch.autograd.function._SingleLevelFunction):
        @staticmethod
        def forward(ctx, keyset, count, *args):
            args = nested(args, count)
            output = run(keyset, args)
            if setup_context is not None:
                setup_context(ctx, args, output)
            ctx.count = count
            return tuple(output) if gives_list else output

        @staticmethod
        def backward(ctx, *grads):
            needed = ctx.needs_input_grad
            try:
                ctx.needs_input_grad = nested(needed[2:], ctx.count)
                return None, None, *flat(formula(ctx, *grads))
            finally:
                ctx.needs_input_grad = needed

    Differentiable.__name__ = Differentiable.__qualname__ = operator._opname

    def kernel(keyset, *args):
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*args)):
            return run(keyset, args)
        count = 0 if at is None else len(args[at])
        if torch._C._are_functorch_transforms_active():  # the dispatcher takes level after level
            with enable_single_level_autograd_function():
                output = Differentiable.apply(keyset, count, *flat(args))
        else:
            output = Differentiable.apply(keyset, count, *flat(args))
        return list(output) if gives_list else output

    return kernel


_NO_GUARD = contextlib.nullcontext()


def _device_of(x: torch.Tensor):
    return torch.cuda.device_of(x) if x.is_cuda else _NO_GUARD


def _isolated(implementation: Callable) -> Callable:
    """Run with autocast off, and on the GPU of the first argument, a tensor in every schema.

    A product of fp32 tensors stays in fp32, and kernels are launched where the tensors are, not on
    the current device: as in PyTorch's own operators.
    """

    @functools.wraps(implementation)
    def run(first, *args):
        with torch._C._DisableAutocast(), _device_of(first):
            return implementation(first, *args)

    return run


def _refusal(name: str, instead: str) -> Callable:
    op = name.removesuffix("_backward")

    def no_double_backward(ctx, *grads):
        raise NotImplementedError(f"{op}: double backward is not implemented; {instead} has it")

    return no_double_backward
