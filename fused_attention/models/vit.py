"""Vision Transformer: Dosovitskiy et al. 2020, arXiv 2010.11929."""

from dataclasses import replace

import torch
from torch import nn

from ..integrations.hugging_face import Pretrained, families
from . import initialize
from .config import Config
from .model import Model
from .stack import TransformerStack


class ViT(Model, Pretrained):
    """Image classifier: patches from a convolution, a CLS token, an encoder, a linear head.

    Args:
        config: sizes and options; ``Config(dim=768, num_layers=12, num_heads=12,
            norm_eps=1e-6)`` is ViT-B/16, with 196 patches of an image of 224 x 224.
            ``max_seq_len`` is replaced by the number of patches plus one.
        attention: "fused", "naive" or "sdpa"; see `Model`.
    """

    hf_families = (families.VIT,)

    def __init__(self, config: Config, *, attention: str = "fused") -> None:
        config = replace(config, max_seq_len=config.num_patches + 1)
        super().__init__(config)
        size = config.patch_size
        self.patches = nn.Conv2d(config.channels, config.dim, size, stride=size)
        self.cls = nn.Parameter(torch.zeros(config.dim))
        self.stack = TransformerStack(config, causal=False)
        self.head = nn.Linear(config.dim, config.num_classes)
        self.attention = attention
        initialize.xavier(self)

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """The last hidden states, (batch, 1 + patches, dim): CLS, then the patches row by row."""
        size = (self.config.channels, self.config.image_size, self.config.image_size)
        if not isinstance(images, torch.Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise TypeError(f"images: expected a floating tensor, got {kind}")
        if images.ndim != 4 or tuple(images.shape[1:]) != size:
            expected = ", ".join(map(str, size))
            raise ValueError(
                f"images: expected shape (batch, {expected}), got {tuple(images.shape)}"
            )
        x = self.patches(images).flatten(2).mT  # (B, patches, dim)
        cls = self.cls.to(x.dtype).expand(len(x), 1, -1)
        return self.stack(torch.cat([cls, x], 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, num_classes) of images (batch, channels, image_size, image_size).

        Raises ValueError or TypeError for images of another shape or dtype.
        """
        return self.head(self.hidden(images)[:, 0])
