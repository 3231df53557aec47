"""The floating-point operations of an attention call, by convention."""

from .variants import AttentionShape, Term, visible_pairs

CONVENTION = (
    "4*D operations per visible (query, key) pair and head forward, 2.5 times that backward; "
    "without a mask that is 4*B*H*Lq*Lk*D, and a causal mask counts half of it"
)
FACTOR = {"forward": 1.0, "backward": 2.5, "forward+backward": 3.5}


def attention_flops(terms: tuple[Term, ...], shape: AttentionShape, mode: str) -> float:
    return FACTOR[mode] * 4.0 * visible_pairs(terms, shape) * shape.heads * shape.head_dim
