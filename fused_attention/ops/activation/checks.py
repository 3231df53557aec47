"""Checks of the arguments of the activations."""

from __future__ import annotations

from ..checks import ArgumentError


def check_approximate(approximate) -> None:
    """``approximate`` names one of the two GELUs."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(
            'approximate: approximate argument must be either "none" (exact, by erf) or "tanh", '
            f"got {approximate!r}"
        )
