"""A stack of blocks: embeddings to hidden states."""

import torch
from torch import nn

from ..variants import causal, key_padding, sliding_window
from .block import Block, norm_of
from .config import Config
from .positions import Positions, positions


class Stack(nn.Module):
    """Positions, blocks, and the last norm of a pre-norm model: embeddings to hidden states."""

    def __init__(
        self,
        config: Config,
        *,
        causal: bool,
        cross: bool = False,
        at: Positions | None = None,
        block: type = Block,
    ) -> None:
        super().__init__()
        if config.window is not None and not causal:
            raise ValueError(f"window: expected None without a causal mask, got {config.window}")
        self.causal, self.window = causal, config.window
        self.positions = positions(config, causal) if at is None else at
        self.embedding_norm = norm_of(config) if config.embedding_norm else None
        dropout = config.embedding_dropout
        self.dropout = nn.Dropout(config.dropout if dropout is None else dropout)
        self.blocks = nn.ModuleList(block(config, i, cross) for i in range(config.num_layers))
        self.norm = norm_of(config) if config.prenorm else None

    def forward(
        self, x, *, lengths=None, context=None, context_lengths=None, cache=None, step=None
    ) -> torch.Tensor:
        at = torch.arange(x.shape[-2], device=x.device) if step is None else step.positions
        x = self.positions.embed(x, at)
        x = x if self.embedding_norm is None else self.embedding_norm(x)[0]
        x, stream = self.dropout(x), None
        attend = {"positions": self.positions, "at": at, "cache": cache, "step": step}
        attend["variants"] = self._variants(x, lengths, cache if step is not None else None)
        cross = {"context": context, "variants": _padding(context_lengths)}
        for block in self.blocks:
            x, stream = block(x, stream, attend, cross)
        return x if self.norm is None else self.norm(x, stream)[0]

    def _variants(self, x, lengths, paged) -> tuple:
        if paged is not None:
            if self.window is not None and paged.window != self.window:
                raise ValueError(
                    f"cache: expected window {self.window}, the model's, got {paged.window}"
                )
            return self.positions.paged_variants()  # the cache is causal by itself
        masks = (causal(),) if self.causal else ()
        masks += () if self.window is None else (sliding_window(self.window),)
        return (*self.positions.variants(x.shape[1]), *masks, *_padding(lengths))


def _padding(lengths) -> tuple:
    return () if lengths is None else (key_padding(lengths),)
