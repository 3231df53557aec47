"""Triton where it is installed; elsewhere (macOS, Windows) just enough for the package to import.

Variant files decorate their kernel hooks with ``jit``.  Without Triton the decorator leaves the
hook alone and every device is served by the torch path, which never calls it.
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
    """The interpreter wants ``triton.language`` among a function's globals, needed or not."""
    if INTERPRETED and hasattr(hook, "fn"):
        hook.fn.__globals__.setdefault("tl", tl)
