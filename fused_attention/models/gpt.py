"""Decoder-only: Radford et al. 2019 (GPT-2); with other options Llama and its successors."""

import torch

from ..generation import generate
from ..integrations.hugging_face import Pretrained, families
from . import initialize
from .config import Config
from .model import TokenModel
from .stack import TransformerStack


class GPT(TokenModel, Pretrained):
    """Causal language model.

    Args:
        config: sizes and options; ``Config(dim=768, num_layers=12, num_heads=12, vocab_size=50257,
            activation="gelu_tanh")`` is the small GPT-2.
        attention: "fused", "naive" or "sdpa"; see `Model`.
    """

    hf_families = (families.GPT2, families.LLAMA)

    def __init__(self, config: Config, *, attention: str = "fused") -> None:
        super().__init__(config)
        self.stack = TransformerStack(config, causal=True)
        self.attention = attention
        initialize.gpt2(self)

    generate = generate

    @property
    def max_positions(self) -> int | None:
        """Tokens of the longest sequence; None if the positions have no limit."""
        return self.stack.positions.max_positions

    @property
    def dtype(self) -> torch.dtype:
        """Of the embedding."""
        return self.embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the embedding."""
        return self.embedding.weight.device

    def hidden(self, input_ids, *, key_padding=None, cache=None, step=None) -> torch.Tensor:
        """The last hidden states (..., dim), the input of `logits`; arguments as for a call."""
        x = self.embed(input_ids, self.stack, step)
        return self.stack(x, lengths=key_padding, cache=cache, step=step)

    def forward(self, input_ids, *, key_padding=None, cache=None, step=None) -> torch.Tensor:
        """Logits (batch, seqlen, vocab_size); those at i predict the token at i + 1.

        Args:
            input_ids: (batch, seqlen), int64 or int32.
            key_padding: (batch,) int, lengths; tokens beyond are not attended to.
            cache, step: a `PagedKVCache` of num_layers layers, and its open step.  Then input_ids
                are the step's new tokens, (tokens,), the logits (tokens, vocab_size), and there
                is no gradient.

        Raises:
            ValueError, TypeError: input_ids of the wrong shape or dtype, outside the vocabulary
                (checked on the CPU, unless compiled) or longer than max_positions.
            NotImplementedError: a step where ``attention`` is not "fused".
        """
        hidden = self.hidden(input_ids, key_padding=key_padding, cache=cache, step=step)
        return self.logits(hidden)
