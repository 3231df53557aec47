"""The stack of blocks that is an encoder or a decoder: embeddings to hidden states."""

import torch
from torch import nn

from ..variants import causal, key_padding, sliding_window
from .block import Block, make_norm
from .config import Config
from .positions import Positions, make_positions


class TransformerStack(nn.Module):
    """Positions, blocks, and the final norm of a pre-norm model.

    Args:
        config: its sizes.
        causal: whether a token sees only the tokens before it.
        cross: whether blocks have cross-attention to a context.
        positions: those of ``config.position`` by default.
        block: the class of the blocks.
    """

    def __init__(
        self,
        config: Config,
        *,
        causal: bool,
        cross: bool = False,
        positions: Positions | None = None,
        block: type = Block,
    ) -> None:
        super().__init__()
        if config.window is not None and not causal:
            raise ValueError(f"window: expected None without a causal mask, got {config.window}")
        self.causal, self.window = causal, config.window
        self.positions = make_positions(config, causal) if positions is None else positions
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        dropout = config.embedding_dropout
        self.dropout = nn.Dropout(config.dropout if dropout is None else dropout)
        self.blocks = nn.ModuleList(block(config, i, cross) for i in range(config.num_layers))
        self.norm = make_norm(config) if config.prenorm else None

    def forward(
        self,
        x,
        *,
        lengths=None,
        context=None,
        context_lengths=None,
        cache=None,
        step=None,
        memory=None,
    ) -> torch.Tensor:
        """Hidden states of the shape of x.

        Args:
            x: embeddings (batch, seqlen, dim); with a step (tokens, dim).
            lengths: (batch,) int; tokens beyond are not seen.
            context: (batch, context_len, dim), for cross-attention.
            context_lengths: (batch,) int; tokens of the context beyond are not seen.
            cache, step: a `PagedKVCache` and its open step.
            memory: the `SegmentMemory` of `TransformerXL`, whose blocks alone take one.
        """
        if step is None:
            position_ids = torch.arange(x.shape[-2], device=x.device)
        else:
            position_ids = step.positions
        x = self.positions.embed(x, position_ids)
        x = x if self.embedding_norm is None else self.embedding_norm(x)[0]
        x, residual = self.dropout(x), None
        self_options = {
            "variants": self._variants(x, lengths) if step is None else self._paged_variants(cache),
            "positions": self.positions,
            "position_ids": position_ids,
        }
        if step is not None:
            self_options |= {"cache": cache, "step": step}
        if memory is not None:
            self_options["memory"] = memory
        cross_options = {"context": context, "variants": _padding(context_lengths)}
        for block in self.blocks:
            x, residual = block(x, residual, self_options, cross_options)
        return x if self.norm is None else self.norm(x, residual)[0]

    def _variants(self, x, lengths) -> tuple:
        masks = (causal(),) if self.causal else ()
        masks += () if self.window is None else (sliding_window(self.window),)
        return (*self.positions.variants(x.shape[1]), *masks, *_padding(lengths))

    def _paged_variants(self, cache) -> tuple:
        """Without masks: a paged cache is causal, and has a window of its own."""
        if self.window is not None and cache.window != self.window:
            raise ValueError(
                f"cache: expected window {self.window}, the model's, got {cache.window}"
            )
        return self.positions.paged_variants()


def _padding(lengths) -> tuple:
    return () if lengths is None else (key_padding(lengths),)
