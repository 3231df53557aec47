"""Triton if it is installed; stand-ins that let the package import if not (macOS, Windows).

Variant files decorate their kernel hooks with ``jit``.  Without Triton the decorator returns the
hook unchanged, and the torch backend, which never calls a hook, computes everything.
"""

import importlib.util
import inspect

AVAILABLE = importlib.util.find_spec("triton") is not None

if AVAILABLE:
    import triton.language as tl
    from triton import jit, knobs

    # Read once, as Triton itself does: the mode is fixed when the first function is decorated.
    INTERPRETED = bool(knobs.runtime.interpret)
    if INTERPRETED:
        from triton.runtime.interpreter import InterpretedFunction as JitFunction
    else:
        from triton import JITFunction as JitFunction
else:
    tl = None
    INTERPRETED = False
    JitFunction = ()

    def jit(function):
        return function


def is_jit(function) -> bool:
    """Whether ``function`` is what ``triton.jit`` returns in this process's mode."""
    return isinstance(function, JitFunction)


def signature_of(function) -> inspect.Signature | None:
    """The signature of a function, decorated by ``jit`` or not; None if Python knows none."""
    try:
        return inspect.signature(function.fn if is_jit(function) else function)
    except ValueError:
        return None


def expose_language(hook) -> None:
    """Put ``tl`` into the globals of a hook, where Triton's interpreter always looks it up."""
    if INTERPRETED and hasattr(hook, "fn"):
        hook.fn.__globals__.setdefault("tl", tl)
