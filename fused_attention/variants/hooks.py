"""The hooks of a variant: their parameters, and the mistakes that can be seen when one is defined.

`fused_attention.check_variant` finds those that show only when hooks are called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .._triton import AVAILABLE, is_jit, signature_of

_AT = "b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args"
# The hooks that kernels call.
KERNEL_HOOKS = {
    "mask": _AT,
    "score": f"s, {_AT}",
    "score_grad": f"ds, s_in, s_out, {_AT}",
    "arg_grad": f"ds, s_in, {_AT}",
    "key_bounds": "b, h, q_first, q_last, seqlen_q, seqlen_k, args",
    "query_bounds": "b, h, kv_first, kv_last, seqlen_q, seqlen_k, args",
}
# Their twins, and the other functions of PyTorch and Python.
TORCH_HOOKS = {
    **{f"torch_{name}": KERNEL_HOOKS[name] for name in ("mask", "score", "score_grad", "arg_grad")},
    "torch_key_bounds": "b, q_first, q_last, seqlen_q, seqlen_k, args",
    "torch_arg_index": _AT,
    "sink_logit": "args",
    "check": "args, shape",
}
FLAGS = ("additive", "batched_bounds")
# What each hook is given for.
_NEEDS = (
    ("score_grad", "score"),
    ("arg_grad", "score"),
    ("additive", "score"),
    ("torch_arg_index", "arg_grad"),
    ("key_bounds", "mask"),
    ("batched_bounds", "key_bounds"),
)


def check_definition(name: str, hooks: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError, with variant and hook, if a definition cannot be right."""
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if not name or any(c.isspace() or c == ":" for c in name):
        raise ValueError(f"name: expected a str without spaces and colons, got {name!r}")
    for hook, value in hooks.items():
        if hook in FLAGS:
            if not isinstance(value, bool):
                _refuse(name, hook, "True or False", repr(value))
        elif hook not in KERNEL_HOOKS and hook not in TORCH_HOOKS:
            known = ", ".join((*KERNEL_HOOKS, *TORCH_HOOKS, *FLAGS))
            raise TypeError(f"variant {name!r}: {hook}: no such hook; expected {known}")
        elif value is not None:
            _check_function(name, hook, value)
    _check_together(name, {hook: value for hook, value in hooks.items() if value})


def _check_function(name: str, hook: str, function: Callable) -> None:
    if hook in KERNEL_HOOKS:
        if AVAILABLE and not is_jit(function):
            _refuse(name, hook, "a @triton.jit function", _shown(function))
        parameters = KERNEL_HOOKS[hook]
    else:
        if is_jit(function):
            _refuse(name, hook, "a function of PyTorch, which is not @triton.jit", _shown(function))
        parameters = TORCH_HOOKS[hook]
    if not callable(function):
        _refuse(name, hook, "a function", _shown(function))
    signature = signature_of(function)
    if signature is None:
        return
    try:
        signature.bind(*parameters.split(", "))
    except TypeError:
        _refuse(name, hook, f"the parameters ({parameters})", str(signature))


def _check_together(name: str, given: Mapping[str, Any]) -> None:
    for hook in ("mask", "score", "score_grad", "arg_grad", "key_bounds"):
        if (hook in given) != (f"torch_{hook}" in given):
            missing = f"torch_{hook}" if hook in given else hook
            raise ValueError(f"variant {name!r}: {missing} is missing beside its twin")
    if "sink_logit" in given:
        beside = sorted(given.keys() - {"sink_logit", "check"})
        if beside:
            raise ValueError(
                f"variant {name!r}: expected a mask or a score, or a sink_logit alone, "
                f"got sink_logit beside {', '.join(beside)}"
            )
        return
    for hook, needed in _NEEDS:
        if hook in given and needed not in given:
            raise ValueError(f"variant {name!r}: {hook} needs {needed} beside it")
    if "mask" not in given and "score" not in given:
        raise ValueError(f"variant {name!r}: expected a mask or a score, or a sink_logit alone")
    if "score" in given and ("additive" in given) == ("score_grad" in given):
        raise ValueError(
            f"variant {name!r}: a score needs either additive=True or a score_grad, not both"
        )
    if ("key_bounds" in given) != ("query_bounds" in given):
        raise ValueError(f"variant {name!r}: key_bounds and query_bounds must be given together")


def _refuse(name: str, hook: str, expected: str, got: str):
    raise TypeError(f"variant {name!r}: {hook}: expected {expected}, got {got}")


def _shown(value) -> str:
    if inspect.isfunction(value):
        return f"the Python function {value.__qualname__}"
    return type(value).__name__
