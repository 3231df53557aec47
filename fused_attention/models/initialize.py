"""Initial parameters; those not named here keep the ones and zeros of their modules."""

import math

from torch import nn

from .attention_layer import AttentionLayer
from .block import Block
from .positions import T5, Learned


def gpt2(model) -> None:
    """N(0, 0.02), divided by sqrt(2 layers) before a residual sum: Radford et al. 2019, 2.3."""
    _each(model, lambda weight: nn.init.normal_(weight, std=0.02))
    std = 0.02 / math.sqrt(2 * model.config.num_layers)
    for block in (m for m in model.modules() if isinstance(m, Block)):
        nn.init.normal_(block.attention.out.weight, std=std)
        nn.init.normal_(block.mlp.down.weight, std=std)


def bert(model) -> None:
    """N(0, 0.02) truncated at two standard deviations: the published code of Devlin et al. 2018."""
    _each(model, lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04))


def xavier(model) -> None:
    """Glorot and Bengio 2010 for projections, as in tensor2tensor and the published code of ViT.

    Embeddings are N(0, 1 / dim), so that multiplied by sqrt(dim) they are N(0, 1).
    """
    _each(model, nn.init.xavier_uniform_, embedding_std=model.config.dim**-0.5)
    for attention in (m for m in model.modules() if isinstance(m, AttentionLayer)):
        # One weight holds three projections, each with its own fan-out.
        for weight in attention.qkv.weight.split([h * attention.head_dim for h in attention.heads]):
            nn.init.xavier_uniform_(weight)


def _each(model, fill, embedding_std: float = 0.02) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fill(module.weight.flatten(1))
            nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Embedding, Learned)):
            nn.init.normal_(module.weight, std=embedding_std)
        elif isinstance(module, T5):
            nn.init.normal_(module.weight, std=0.02)
