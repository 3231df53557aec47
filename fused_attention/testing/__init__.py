"""Every fused op as a `Case`; a new one is added to its family's file, a new family here."""

from . import cross_entropy, gelu, glu, norms, rotary
from .op_case import SIZES, Case, Problem

CASES: tuple[Case, ...] = (
    *cross_entropy.CASES,
    *gelu.CASES,
    *glu.CASES,
    *norms.CASES,
    *rotary.CASES,
)

__all__ = ["CASES", "SIZES", "Case", "Problem"]
