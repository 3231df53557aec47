"""What a model must offer to be generated from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from ..cache.paged_kv_cache import PagedKVCache, Step


class CausalLMConfig(Protocol):
    """Sizes of the vocabulary, and of the keys and values in the cache."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def window(self) -> int | None:
        """Keys before itself that a token sees; None if all."""


class CausalLM(Protocol):
    """A causal language model, an ``nn.Module``, as `fused_attention.models.GPT` is.

    A model that is not one of ours needs no base class, only these members.
    """

    @property
    def config(self) -> CausalLMConfig: ...

    @property
    def attention(self) -> str:
        """Which attention runs; a paged cache needs "fused"."""

    @property
    def max_positions(self) -> int | None:
        """Tokens of the longest sequence; None if there is no limit."""

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values without autocast."""

    @property
    def device(self) -> torch.device: ...

    def hidden(self, input_ids: torch.Tensor, *, cache: PagedKVCache, step: Step) -> torch.Tensor:
        """The last hidden states (tokens, dim) of a step's new tokens, (tokens,).

        Every layer calls ``cache.attend`` once, with the open step.
        """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, dim) to (rows, vocab_size), of the token after each."""

    def modules(self) -> Iterator[nn.Module]: ...

    def eval(self) -> nn.Module: ...
