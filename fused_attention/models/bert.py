"""Encoder-only: Devlin et al. 2018, arXiv 1810.04805."""

import torch
import torch.nn.functional as F
from torch import nn

from ..integrations.hugging_face import Pretrained, families
from ..modules import LayerNorm
from ..ops.activation.gelu import gelu
from ..ops.checks import check_index_range, check_index_type
from . import initialize
from .config import Config
from .model import TokenModel
from .stack import TransformerStack


class BERT(TokenModel, Pretrained):
    """Bidirectional encoder.

    Args:
        config: sizes and options; ``Config(dim=768, num_layers=12, num_heads=12, vocab_size=30522,
            max_seq_len=512, prenorm=False, norm_eps=1e-12, embedding_norm=True,
            num_token_types=2, dropout=0.1, attention_dropout=0.1)`` is the base model.
        pooler: whether to have the layer that `pool` needs.
        mlm_head: whether to have the layer that `predict` needs.
        attention: "fused", "naive" or "sdpa"; see `Model`.
    """

    hf_families = (families.BERT,)

    def __init__(
        self,
        config: Config,
        *,
        pooler: bool = False,
        mlm_head: bool = False,
        attention: str = "fused",
    ) -> None:
        super().__init__(config)
        types = config.num_token_types
        self.token_types = nn.Embedding(types, config.dim) if types else None
        self.stack = TransformerStack(config, causal=False)
        self.pooler = nn.Linear(config.dim, config.dim) if pooler else None
        self.mlm_head = MaskedTokenHead(config) if mlm_head else None
        self.attention = attention
        initialize.bert(self)

    def forward(self, input_ids, token_type_ids=None, key_padding=None) -> torch.Tensor:
        """The last hidden states, (batch, seqlen, dim).

        Args:
            input_ids: (batch, seqlen), int64 or int32.
            token_type_ids: (batch, seqlen), below num_token_types; all 0 by default.
            key_padding: (batch,) int, lengths; tokens beyond are not attended to.

        Raises ValueError or TypeError as for `GPT`.
        """
        x = self.embed(input_ids, self.stack)
        if token_type_ids is not None:
            check_index_type("token_type_ids", token_type_ids)
            check_index_range("token_type_ids", token_type_ids, self.config.num_token_types)
            if token_type_ids.shape != input_ids.shape:
                raise ValueError(
                    f"token_type_ids: expected the shape of input_ids, {tuple(input_ids.shape)}, "
                    f"got {tuple(token_type_ids.shape)}"
                )
        if self.token_types is not None:
            kinds = input_ids.new_zeros(1) if token_type_ids is None else token_type_ids
            x = x + self.token_types(kinds)
        return self.stack(x, lengths=key_padding)

    def pool(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, dim), of the first token: the input of sentence classifiers."""
        return torch.tanh(self.part("pooler")(hidden[:, 0]))

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., vocab_size) of masked tokens."""
        head = self.part("mlm_head")
        return F.linear(head(hidden), self.output_weight, head.bias)

    def part(self, name: str) -> nn.Module:
        """The pooler or the mlm_head; ValueError if the model has none."""
        if getattr(self, name) is None:
            raise ValueError(f"{name}: expected a BERT made with {name}=True")
        return getattr(self, name)


class MaskedTokenHead(nn.Module):
    """Layers before the output projection, and the bias of the projection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.dim, config.dim)
        self.norm = LayerNorm(config.dim, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.norm(gelu(self.dense(hidden)))
