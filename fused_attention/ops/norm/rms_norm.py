"""RMSNorm: the public function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import backend
from ..checks import FLOATING, check_floating
from ..transforms import refuse_forward_mode
from . import checks, operators


def rms_norm(
    x: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """``torch.nn.functional.rms_norm``, one pass over memory.

    Computes ``x / sqrt(mean(x**2) + eps) * weight`` over the last dimensions.
    Root Mean Square Layer Normalization (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        x: (..., *normalized_shape); fp16, bf16, fp32 or fp64.
        normalized_shape: the dimensions that are normalized together.
        weight: of shape normalized_shape, of any of these dtypes.
        eps: added to the mean square; 0 or more.  With 0, a row of zeros is NaN, as in PyTorch.
            By default the spacing of numbers at one, in the dtype of the statistics: 1.2e-7, for
            fp64 2.2e-16.

    Returns:
        x's shape and dtype (fp32 under CUDA autocast, as PyTorch's).  Statistics are fp32 whatever
        the dtype.  The backward pass is deterministic.

    Raises:
        ValueError: a shape or device that does not fit, eps that is negative or not finite.  For
            shapes it is also a RuntimeError, as in PyTorch.
        TypeError: an argument of the wrong type or dtype.
        NotImplementedError: nested and sparse tensors; on a GPU, forward-mode derivatives and
            double backward.
    """
    check_floating("x", x)
    checks.check_normalized_shape(x, normalized_shape)
    checks.check_parameter("weight", weight, x, normalized_shape, FLOATING)
    if eps is not None:
        checks.check_eps(eps)
    if not backend.uses_triton(x):
        return F.rms_norm(x, normalized_shape, weight, eps)
    refuse_forward_mode("rms_norm", "torch.nn.functional.rms_norm", x, weight)
    eps = operators.default_eps(x.dtype) if eps is None else eps
    return operators.apply(x, len(normalized_shape), weight, None, eps, centered=False)
