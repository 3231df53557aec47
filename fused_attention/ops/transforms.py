"""Operators under the transforms of torch.func and under forward mode: mapped, or refused.

An operator is opaque to PyTorch, which would silently drop a tangent, and has no batching rule of
its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def refuse_forward_mode(name: str, instead: str, *tensors: torch.Tensor | None) -> None:
    """Raise NotImplementedError if a tensor carries a tangent, which operators would drop."""
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level < 0:
        return
    if any(x is not None and _has_tangent(x) for x in tensors):
        raise NotImplementedError(
            f"{name}: forward-mode derivatives (jvp) are not implemented; {instead} has them"
        )


def _has_tangent(x: torch.Tensor) -> bool:
    """Whether x carries a tangent, at any level of the transforms of torch.func."""
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        return True
    functorch = torch._C._functorch
    levels = {
        transform.level()
        for transform in functorch.get_interpreter_stack() or ()
        if transform.key() == functorch.TransformType.Jvp
    }
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.maybe_get_level(x) in levels:
            return True
        x = functorch.get_unwrapped(x)
    return False


def without_forward_mode(kernel: Callable, name: str, instead: str) -> Callable:
    """``kernel(keyset, *args)``, but it refuses tensors that carry a tangent."""
    op = name.removesuffix("_backward")

    def refusing(keyset, *args):
        if torch.autograd.forward_ad._current_level >= 0:
            refuse_forward_mode(op, instead, *(x for x in args if isinstance(x, torch.Tensor)))
        return kernel(keyset, *args)

    return refusing


def batching_rule(operator: torch._ops.OpOverload) -> Callable:
    """The rule of torch.vmap: one call for each entry of the mapped dimension."""

    def rule(info, in_dims, *args):
        def entry(x, dim, i: int):
            if isinstance(x, (tuple, list)):
                return [entry(*pair, i) for pair in zip(x, dim, strict=True)]
            return x.select(dim, i) if isinstance(x, torch.Tensor) and dim is not None else x

        results = [
            operator(*(entry(*pair, i) for pair in zip(args, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results), 0
        stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
        return type(results[0])(stacked), type(results[0])([0] * len(stacked))

    return rule


def no_batching(name: str) -> Callable:
    """The rule of torch.vmap for an operator that writes to its arguments: it refuses."""

    def rule(info, in_dims, *args):
        raise NotImplementedError(f"{name}: torch.vmap is not implemented; call it in a loop")

    return rule


def no_batched_gradients(name: str) -> Callable:
    """The kernel for ``is_grads_batched``, which predates torch.func: it refuses."""
    op = name.removesuffix("_backward")

    def refuse(*args):
        raise NotImplementedError(
            f"{op}: is_grads_batched is not implemented; torch.func.vmap of torch.func.vjp has it"
        )

    return refuse
