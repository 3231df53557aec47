"""What is asked of `generate`, whether a model can do it, and the size of the cache it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch

from ..cache.block_pool import check_int
from ..cache.paged_kv_cache import PagedKVCache
from .causal_lm import CausalLM

_PAGE_SIZE = 64


@dataclass
class Request:
    """Which prompts to continue, and how far.

    Args:
        prompts: token ids of each.
        copies: sequences that continue each prompt.
        max_new_tokens: of each sequence.
        stop: tokens that end a sequence.
    """

    prompts: list[list[int]]
    copies: int
    max_new_tokens: int
    stop: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, prompts, copies, max_new_tokens, stop, vocab_size: int) -> Request:
        """Check the arguments of `generate`; raises ValueError or TypeError."""
        prompts = [to_token_ids("prompts", prompt, vocab_size) for prompt in prompts]
        if not all(prompts):
            raise ValueError(
                f"prompts: expected a token at least, number {prompts.index([])} is empty"
            )
        stop = to_token_ids("stop", [stop] if isinstance(stop, Integral) else stop, vocab_size)
        max_new_tokens = check_int("max_new_tokens", max_new_tokens, 1)
        copies = check_int("num_return_sequences", copies, 1)
        return cls(prompts, copies, max_new_tokens, stop)

    @property
    def num_seqs(self) -> int:
        return len(self.prompts) * self.copies

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt included."""
        return max(map(len, self.prompts), default=0) + self.max_new_tokens

    def blocks(self, page_size: int) -> int:
        """Pages that are enough for all sequences; the last token of each is never stored."""
        blocks = 0
        for prompt in self.prompts:
            shared = len(prompt) // page_size
            pages = -(-(len(prompt) + self.max_new_tokens - 1) // page_size)
            # The last page of the prompt is copied for each sequence, while the original remains.
            blocks += shared + self.copies * (pages - shared) + 1
        return blocks

    def check(self, name: str, model: CausalLM) -> None:
        """Check that the model reads a paged cache, and has enough positions."""
        if model.attention != "fused":
            raise NotImplementedError(
                f"{name}: a paged cache needs attention 'fused', not {model.attention!r}"
            )
        limit, prompt = model.max_positions, self.longest - self.max_new_tokens
        if limit is None or self.longest <= limit:
            return
        if prompt >= limit:
            raise ValueError(
                f"prompts: the {name} has {limit} positions, expected at most {limit - 1} tokens "
                f"in a prompt, got {prompt}"
            )
        raise ValueError(
            f"max_new_tokens: the {name} has {limit} positions, expected at most "
            f"{limit - prompt} beside the longest prompt, got {self.max_new_tokens}"
        )

    def check_draft(self, draft: CausalLM, model: CausalLM) -> None:
        """Check that a draft has the model's vocabulary, and can serve the request too."""
        ours, theirs = model.config.vocab_size, draft.config.vocab_size
        if theirs != ours:
            raise ValueError(f"draft: expected the model's vocab_size, {ours}, got {theirs}")
        self.check("draft", draft)

    def new_cache(self, model: CausalLM) -> PagedKVCache:
        """A cache of the model with exactly the room that the request needs."""
        return PagedKVCache(
            **_sizes(model),
            num_blocks=self.blocks(_PAGE_SIZE),
            page_size=_PAGE_SIZE,
            max_seqs=self.num_seqs,
            max_seq_len=self.longest,
        )

    def check_cache(self, cache: PagedKVCache, model: CausalLM) -> None:
        """Check that a cache fits the model, and has room."""
        if not isinstance(cache, PagedKVCache):
            raise TypeError(f"cache: expected a PagedKVCache, got {type(cache).__name__}")
        for name, value in _sizes(model).items():
            if getattr(cache, name) != value:
                raise ValueError(
                    f"cache: expected {name} {value}, the model's, got {getattr(cache, name)}"
                )
        for name, room, needed in (
            ("max_seqs", cache.max_seqs, self.num_seqs),
            ("max_seq_len", cache.max_seq_len, self.longest),
            ("free blocks", cache.pool.num_free, self.blocks(cache.page_size)),
        ):
            if room < needed:
                raise ValueError(f"cache: expected at least {needed} {name}, got {room}")


def _sizes(model: CausalLM) -> dict:
    """The options of a cache that the model determines."""
    config, device = model.config, model.device.type
    autocast = torch.is_autocast_enabled(device)
    return {
        "num_layers": config.num_layers,
        "num_kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "window": config.window,
        "dtype": torch.get_autocast_dtype(device) if autocast else model.dtype,
        "device": model.device,
    }


def to_token_ids(name: str, ids, vocab_size: int) -> list[int]:
    """A list of token ids, from a list or a tensor of one dimension."""
    if isinstance(ids, torch.Tensor):
        if ids.ndim != 1 or ids.is_floating_point():
            raise TypeError(f"{name}: expected ints of one dimension, got {ids.dtype} {ids.ndim}-d")
        ids = ids.tolist()
    if isinstance(ids, (str, bytes)) or not hasattr(ids, "__iter__"):
        raise TypeError(f"{name}: expected token ids, got {type(ids).__name__}")
    return [check_int(name, token, 0, vocab_size - 1) for token in ids]


def check_options(seed, on_token, num_draft_tokens) -> None:
    if seed is not None:
        check_int("seed", seed, 0)
    if on_token is not None and not callable(on_token):
        raise TypeError(f"on_token: expected a function, got {type(on_token).__name__}")
    check_int("num_draft_tokens", num_draft_tokens, 1)


def check_sampling(temperature, top_k, top_p) -> None:
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if temperature is None or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature: expected 0 or a positive number, got {temperature}")
    if top_k is not None:
        check_int("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected more than 0 and at most 1, got {top_p}")
