"""LayerNorm and RMSNorm on the fused ops, alone and after a residual sum."""

from __future__ import annotations

import torch
from torch import nn

from ..ops.norm.add_norm import add_layer_norm, add_rms_norm
from ..ops.norm.layer_norm import layer_norm
from ..ops.norm.rms_norm import rms_norm
from .called import always_called


@always_called
class LayerNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm`` on `fused_attention.layer_norm`.

    torch computes that of a nested tensor, such as its ``TransformerEncoder`` makes of a padded
    batch.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if type(input) is torch.Tensor and input.is_nested:
            return super().forward(input)
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


@always_called
class RMSNorm(nn.RMSNorm):
    """``torch.nn.RMSNorm`` on `fused_attention.rms_norm`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class _AfterSum(nn.Module):
    """Mixin for a norm after a residual sum: its options ``dropout`` and ``prenorm``."""

    def __init__(self, *args, dropout: float = 0.0, prenorm: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout
        self.prenorm = prenorm

    @property
    def _options(self) -> dict:
        return {"dropout_p": self.dropout if self.training else 0.0, "prenorm": self.prenorm}

    def _begun(self, x, normed):
        return (normed, x) if self.prenorm else normed

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}, prenorm={self.prenorm}"


@always_called
class AddLayerNorm(_AfterSum, nn.LayerNorm):
    """``normed, residual = layer_norm(residual + dropout(x))``: `fused_attention.add_layer_norm`.

    Without a residual, x itself is the sum, as at the start of a residual stream; dropout does not
    apply then.  The state dict is that of ``torch.nn.LayerNorm``; the constructor has two more
    arguments.

    Args:
        dropout: probability of dropping an element of x, in training only.
        prenorm: return (normed, sum); if False, return normed alone.
    """

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None):
        affine = self.normalized_shape, self.weight, self.bias, self.eps
        if residual is None:
            return self._begun(x, layer_norm(x, *affine))
        return add_layer_norm(x, residual, *affine, **self._options)


@always_called
class AddRMSNorm(_AfterSum, nn.RMSNorm):
    """``normed, residual = rms_norm(residual + dropout(x))``: `fused_attention.add_rms_norm`.

    The state dict is that of ``torch.nn.RMSNorm``; the constructor also takes ``dropout`` and
    ``prenorm``, as for `AddLayerNorm`.
    """

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None):
        affine = self.normalized_shape, self.weight, self.eps
        if residual is None:
            return self._begun(x, rms_norm(x, *affine))
        return add_rms_norm(x, residual, *affine, **self._options)
