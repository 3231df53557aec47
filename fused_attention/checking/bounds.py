"""Bounds of a mask against the mask itself, for every range of queries, or of keys, that is tried.

Bounds may say that more is seen than is, and that less is seen wholly than is; never the reverse.
"""

from __future__ import annotations

import torch

from . import twins
from .calls import Call
from .findings import Findings

TORCH = "torch_key_bounds"


def ranges(length: int, places: int) -> list[tuple[int, int]]:
    """The first and the last of ranges of several lengths, at about ``places`` places each."""
    found = {
        (first, min(first + width, length) - 1)
        for width in (1, 5, 16, 64, length)
        for first in range(0, length, max(1, length // places))
    }
    return sorted(found)


def check(call: Call, findings: Findings) -> None:
    """Check ``torch_key_bounds``."""
    kind = call.variant.type
    if kind.torch_key_bounds is None:
        return
    with findings.check(TORCH, call):
        seen = twins.mask(call)
        shape = call.shape
        offset = shape.seqlen_k - shape.seqlen_q
        for b in range(shape.batch) if kind.batched_bounds else (None,):
            part = seen if b is None else seen[b : b + 1]
            for first, last in ranges(shape.seqlen_q, 24):
                lo, hi, full_lo, full_hi = kind.torch_key_bounds(
                    *(b, first + offset, last + offset, shape.seqlen_q, shape.seqlen_k),
                    call.variant.args,
                )
                found = (int(lo), int(hi), int(full_lo), int(full_hi))
                rows = part[:, :, first : last + 1].flatten(0, 2)
                problem = violation(found, rows, "key", "queries")
                if problem is not None:
                    where = f"queries {first} to {last}" + ("" if b is None else f" of batch {b}")
                    findings.add(TORCH, f"at {call}: for {where} {problem}")
                    return


def violation(bounds, seen: torch.Tensor, one: str, others: str) -> str | None:
    """What is wrong with lo, hi, full_lo, full_hi; ``seen`` is (of the range, of all ``one``)."""
    lo, hi, full_lo, full_hi = bounds
    position = torch.arange(seen.shape[1])
    some, every = seen.any(0), seen.all(0)
    missed = some & ((position < lo) | (position >= hi))
    if missed.any():
        return f"it gives {one}s [{lo}, {hi}), but {one} {_first(missed)} is seen too"
    wrong = ~every & (position >= full_lo) & (position < full_hi)
    if wrong.any():
        return (
            f"it says that all of the {others} see {one}s [{full_lo}, {full_hi}), "
            f"but one does not see {one} {_first(wrong)}"
        )
    return None


def _first(where: torch.Tensor) -> int:
    return int(where.nonzero()[0, 0])
