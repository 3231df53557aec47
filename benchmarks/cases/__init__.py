"""Every fused op as a `Case`; a new one is added to its family's file, a new family here."""

from .case import Case, Problem

CASES: tuple[Case, ...] = ()

__all__ = ["CASES", "Case", "Problem"]
