"""Encoder-decoder: Vaswani et al. 2017, arXiv 1706.03762."""

import torch

from . import initialize
from .config import Config
from .model import TokenModel
from .stack import TransformerStack


class Seq2Seq(TokenModel):
    """Encoder, and causal decoder that attends to it; one embedding for both (section 3.4).

    Args:
        config: sizes and options; ``Config(dim=512, num_layers=6, num_heads=8, vocab_size=37000,
            position="sinusoidal", prenorm=False, activation="relu", scale_embeddings=True,
            dropout=0.1)`` is the original base model.
        attention: "fused", "naive" or "sdpa"; see `Model`.
    """

    def __init__(self, config: Config, *, attention: str = "fused") -> None:
        super().__init__(config)
        self.encoder = TransformerStack(config, causal=False)
        self.decoder = TransformerStack(config, causal=True, cross=True)
        self.attention = attention
        initialize.xavier(self)

    def encode(self, source_ids, key_padding=None) -> torch.Tensor:
        """The encoder's hidden states, (batch, source_len, dim)."""
        x = self.embed(source_ids, self.encoder, name="source_ids")
        return self.encoder(x, lengths=key_padding)

    def hidden(self, source_ids, target_ids, key_padding=None) -> torch.Tensor:
        """The decoder's last hidden states; arguments as for a call."""
        return self.decode(target_ids, self.encode(source_ids, key_padding), key_padding)

    def decode(self, target_ids, context, key_padding=None) -> torch.Tensor:
        """The decoder's last hidden states, (batch, target_len, dim); context is from `encode`."""
        x = self.embed(target_ids, self.decoder, name="target_ids")
        return self.decoder(x, context=context, context_lengths=key_padding)

    def forward(self, source_ids, target_ids, key_padding=None) -> torch.Tensor:
        """Logits (batch, target_len, vocab_size), those at i predict the target at i + 1.

        Args:
            source_ids, target_ids: (batch, source_len) and (batch, target_len), int64 or int32;
                targets are padded on the right, where the causal mask hides them.
            key_padding: (batch,) int, lengths of the sources.

        Raises ValueError or TypeError as for `GPT`.
        """
        return self.logits(self.hidden(source_ids, target_ids, key_padding))
