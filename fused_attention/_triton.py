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
