"""Triton if it is installed; stand-ins that let the package import if not (macOS, Windows).

Variant files decorate their kernel hooks with ``jit``.  Without Triton the decorator returns the
hook unchanged, and the torch backend, which never calls a hook, computes everything.
"""

import importlib.util

AVAILABLE = importlib.util.find_spec("triton") is not None

if AVAILABLE:
    import triton.language as tl
    from triton import jit, knobs

    # Read once, as Triton itself does: the mode is fixed when the first function is decorated.
    INTERPRETED = bool(knobs.runtime.interpret)
else:
    tl = None
    INTERPRETED = False

    def jit(function):
        return function


def expose_language(hook) -> None:
    """Put ``tl`` into the globals of a hook, where Triton's interpreter always looks it up."""
    if INTERPRETED and hasattr(hook, "fn"):
        hook.fn.__globals__.setdefault("tl", tl)
