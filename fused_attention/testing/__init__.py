"""Cases and oracles of the fused ops, which tests, ahead-of-time compilation and benchmarks share.

Every op is one `OpCase` or more. Add a case to the file of its family, and a new family here.
`import fused_attention` does not import this folder.
"""

from . import cross_entropy, gelu, glu, norms, rotary
from .op_case import SIZES, OpCase, OpProblem

CASES: tuple[OpCase, ...] = (
    *cross_entropy.CASES,
    *gelu.CASES,
    *glu.CASES,
    *norms.CASES,
    *rotary.CASES,
)

__all__ = ["CASES", "SIZES", "OpCase", "OpProblem"]
