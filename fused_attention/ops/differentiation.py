"""How gradients flow through an operator: a kernel for the dispatch key Autograd.

``torch.library.register_autograd`` means the same, but flattens the arguments of every call with
pytree, which takes longer than all else that a small call does.  Here the place of the one list of
tensors that an operator may take is known from its schema.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_LIST_OF_TENSORS = "List[Tensor]"


def autograd_kernel(
    operator: torch._ops.OpOverload, setup_context: Callable | None, formula: Callable
) -> Callable:
    """``kernel(keyset, *args)`` runs the operator and remembers how to differentiate it.

    ``setup_context(ctx, inputs, output)`` saves what ``formula(ctx, *grads)`` needs, which returns
    a gradient for each argument, and for a list of tensors a list of them.
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

    class Differentiable(torch.autograd.Function):
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
        output = Differentiable.apply(keyset, 0 if at is None else len(args[at]), *flat(args))
        return list(output) if gives_list else output

    return kernel
