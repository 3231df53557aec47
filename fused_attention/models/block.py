"""The transformer block: attention and feed-forward, each with its norm and residual sum.

Shapes: x is (batch, seqlen, dim), or (tokens, dim) where sequences of different lengths are laid
end to end and their keys are in a paged cache.
"""

from torch import nn

from ..modules import MLP, AddLayerNorm, AddRMSNorm
from .attention_layer import AttentionLayer
from .config import Config


def make_norm(config: Config) -> nn.Module:
    """A norm of (x, residual), which returns (norm(sum), sum).

    The sum is ``residual + dropout(x)``, or x where there is no residual.
    """
    if config.norm == "rms":
        return AddRMSNorm(config.dim, eps=config.norm_eps, dropout=config.dropout)
    return AddLayerNorm(config.dim, eps=config.norm_eps, bias=config.bias, dropout=config.dropout)


class Block(nn.Module):
    """Self-attention, cross-attention if there is a context, feed-forward; each with its norm.

    Blocks take and return ``x`` and ``residual``.  Pre-norm: ``x`` is the output of the last
    layer, not yet added to the residual, so that sum, dropout and norm are one fused pass.
    Post-norm: ``x`` is all there is, and the residual None.
    """

    attention_type = AttentionLayer

    def __init__(self, config: Config, layer: int, cross: bool) -> None:
        super().__init__()
        self.prenorm = config.prenorm
        self.attention_norm, self.attention = make_norm(config), self.attention_type(config, layer)
        self.cross_norm = make_norm(config) if cross else None
        self.cross = AttentionLayer(config, layer) if cross else None
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config.dim, config.hidden_dim, config.activation, config.bias)

    def forward(self, x, residual, self_options: dict, cross_options: dict):
        """The next x and residual; the options are keyword arguments of the attention layers."""
        x, residual = self._self_attention(x, residual, **self_options)
        if self.cross is not None:
            x, residual = self._layer(self.cross_norm, self.cross, x, residual, cross_options)
        return self._layer(self.mlp_norm, self.mlp, x, residual, {})

    def _self_attention(self, x, residual, **options):
        return self._layer(self.attention_norm, self.attention, x, residual, options)

    def _layer(self, norm, layer, x, residual, options):
        if self.prenorm:
            x, residual = norm(x, residual)
            return layer(x, **options), residual
        return norm(layer(x, **options), x)[0], None
