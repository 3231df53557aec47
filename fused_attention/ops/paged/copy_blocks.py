"""Copy whole blocks of a KV cache, as copy-on-write does before writing to a shared block."""

from __future__ import annotations

import torch

from ...plain import check_plain
from .. import backend
from ..registration import define
from . import checks
from .quantization import FLOATS, LARGEST


def copy_blocks(kv: torch.Tensor, pairs: torch.Tensor) -> None:
    """Copy blocks of ``kv`` to others, in place.

    Args:
        kv: (num_blocks, ...), contiguous: the cache of a layer, or its scales per token.
        pairs: (n, 2), int64, on the device of kv: source and destination of every copy.  A
            destination occurs only once and is not a source.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; on the CPU also
            blocks outside the pool and pairs that overlap.  On a GPU the pairs are not read back:
            check them on the host.
        NotImplementedError: kv requires a gradient; the op has none.
    """
    check_plain("kv", kv)
    if kv.dtype not in (*FLOATS, *LARGEST):
        raise TypeError(f"kv: expected a dtype that is stored, got {kv.dtype}")
    if kv.ndim < 2:
        raise ValueError(f"kv: expected shape (num_blocks, ...), got {tuple(kv.shape)}")
    checks.check_contiguous("kv", kv, "dimensions")
    checks.check_tensor("pairs", pairs, (torch.int64,), "(n, 2)", kv)
    if pairs.shape[1] != 2:
        raise ValueError(f"pairs: expected shape (n, 2), got {tuple(pairs.shape)}")
    checks.check_no_gradient("copy_blocks", kv=kv)
    _copy_blocks(kv, pairs)


def _copy(kv, pairs):
    if kv.device.type == "cpu":
        checks.check_pairs(pairs, kv.shape[0])
    if pairs.shape[0] > 0 and kv.numel() > 0:
        backend.of("paged", kv).copy_blocks(
            kv.view(torch.uint8) if kv.dtype in LARGEST else kv, pairs
        )


_copy_blocks = define(
    "copy_blocks(Tensor(a!) kv, Tensor pairs) -> ()", _copy, lambda kv, pairs: None
)
