"""Rotary position embedding on the Triton kernel."""

from __future__ import annotations

from ... import tuning
from ...kernels import rotary as kernels


def rotary(q, k, q_out, k_out, cos, sin, positions, interleaved: bool, inverse: bool) -> None:
    """Fill ``q_out`` and ``k_out``."""
    if positions is not None:
        positions = positions.expand(q.shape[0], q.shape[2])
    q, k, cos, sin = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, cos, sin))
    config = tuning.rotary()
    kernels.rotary(q, k, q_out, k_out, cos, sin, positions, interleaved, inverse, config)
