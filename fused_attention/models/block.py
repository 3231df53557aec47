"""The block that every model is a stack of: attention, feed-forward, and a residual stream.

Shapes: x is (batch, seqlen, dim), or (tokens, dim) where sequences of different lengths are laid
end to end and their keys are in a paged cache.
"""

from torch import nn

from ..modules import MLP, AddLayerNorm, AddRMSNorm
from .attention_layer import Attention
from .config import Config


def norm_of(config: Config) -> nn.Module:
    """(norm(sum), sum), where sum is ``stream + dropout(x)``, or x where there is no stream."""
    sizes, dropout = (config.dim, config.norm_eps), config.dropout
    if config.norm == "rms":
        return AddRMSNorm(*sizes, dropout=dropout)
    return AddLayerNorm(*sizes, bias=config.bias, dropout=dropout)


class Block(nn.Module):
    """Self-attention, cross-attention if there is a context, feed-forward; each with its norm.

    Between blocks travel ``x`` and ``stream``.  Pre-norm: ``x`` is what the last layer has to add
    to the stream, so that sum, dropout and norm are one pass; post-norm needs no stream.
    """

    attention_type = Attention

    def __init__(self, config: Config, layer: int, cross: bool) -> None:
        super().__init__()
        self.prenorm = config.prenorm
        self.attention_norm, self.attention = norm_of(config), self.attention_type(config, layer)
        self.cross_norm = norm_of(config) if cross else None
        self.cross = Attention(config, layer) if cross else None
        self.mlp_norm = norm_of(config)
        self.mlp = MLP(config.dim, config.hidden_dim, config.activation, config.bias)

    def forward(self, x, stream, attend: dict, cross: dict):
        x, stream = self._layer(self.attention_norm, self.attention, x, stream, attend)
        if self.cross is not None:
            x, stream = self._layer(self.cross_norm, self.cross, x, stream, cross)
        return self._layer(self.mlp_norm, self.mlp, x, stream, {})

    def _layer(self, norm, layer, x, stream, options):
        if self.prenorm:
            x, stream = norm(x, stream)
            return layer(x, **options), stream
        return norm(layer(x, **options), x)[0], None
