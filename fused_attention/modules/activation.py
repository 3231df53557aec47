"""GELU on the fused op."""

import torch
from torch import nn

from ..ops.activation.gelu import gelu


class GELU(nn.GELU):
    """``torch.nn.GELU`` on `fused_attention.gelu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return gelu(input, self.approximate)
