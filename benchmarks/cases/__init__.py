"""Every fused op as a `Case`; a new one is added to its family's file, a new family here."""

from . import gelu, glu, norms, rotary
from .case import SIZES, Case, Problem

CASES: tuple[Case, ...] = (*gelu.CASES, *glu.CASES, *norms.CASES, *rotary.CASES)

__all__ = ["CASES", "SIZES", "Case", "Problem"]
