"""Every fused op as a `Case`; a new one is added to its family's file, a new family here."""

from . import norms
from .case import SIZES, Case, Problem

CASES: tuple[Case, ...] = (*norms.CASES,)

__all__ = ["CASES", "SIZES", "Case", "Problem"]
