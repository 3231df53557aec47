"""GELU on the fused op."""

import torch
from torch import nn

from ..ops.activation.gelu import gelu
from .called import always_called


@always_called
class GELU(nn.GELU):
    """``torch.nn.GELU`` on `fused_attention.gelu`; torch computes that of a nested tensor."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if type(input) is torch.Tensor and input.is_nested:
            return super().forward(input)
        return gelu(input, self.approximate)
