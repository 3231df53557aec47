"""LayerNorm: the public function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import backend
from ..checks import check_floating
from ..transforms import refuse_forward_mode
from . import checks, operators


def layer_norm(
    x: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """``torch.nn.functional.layer_norm``, one pass over memory.

    Computes ``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last dimensions.
    Layer Normalization (Ba et al. 2016, arXiv 1607.06450).

    Args:
        x: (..., *normalized_shape); fp16, bf16, fp32 or fp64.
        normalized_shape: the dimensions that are normalized together.
        weight, bias: of shape normalized_shape, in the dtype of x; or in fp32 where x is in half
            precision, a bias only together with a weight.
        eps: added to the variance; 0 or more.  With 0, a constant row is NaN, as in PyTorch.

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
    checks.check_affine(weight, bias, x, normalized_shape)
    checks.check_eps(eps)
    if not backend.uses_triton(x):
        return F.layer_norm(x, normalized_shape, weight, bias, eps)
    refuse_forward_mode("layer_norm", "torch.nn.functional.layer_norm", x, weight, bias)
    return operators.apply(x, len(normalized_shape), weight, bias, eps, centered=True)
