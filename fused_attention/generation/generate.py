"""Continue prompts: ragged batches on a paged cache, streaming, speculative with a draft model.

Each step feeds the tokens of a sequence that the cache lacks: the prompt at first, then the last
token, and with a draft model the tokens it proposes.  Rejected ones are truncated from the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import torch

from ..cache.paged_kv_cache import PagedKVCache
from ..evaluation import evaluating
from .causal_lm import CausalLM
from .decoder import Decoder
from .request import Request, check_options, check_sampling
from .sampling import distribution, sample, verify
from .sequence import GeneratedSequence, randoms


@torch.no_grad()
def generate(
    model: CausalLM,
    prompts: Sequence[Sequence[int] | torch.Tensor],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_return_sequences: int = 1,
    stop: int | Sequence[int] = (),
    seed: int | None = None,
    on_token: Callable[[int, int], None] | None = None,
    draft: CausalLM | None = None,
    num_draft_tokens: int = 4,
    cache: PagedKVCache | None = None,
) -> list[list[int]]:
    """Continue every prompt; return the new tokens of each sequence, prompt by prompt.

    Keys and values are on a paged cache: prompts of different lengths need no padding, a prompt is
    computed and stored once for all sequences that continue it, and a sequence that ends frees
    its pages.  Models are in evaluation mode meanwhile.

    Args:
        model: a `GPT`, or any other `CausalLM`.
        prompts: token ids of each, at least one.
        max_new_tokens: of each sequence, at most.
        temperature: divides the logits; at 0 the most likely token is taken every time.
        top_k: sample among this many most likely tokens; all by default.
        top_p: sample among the fewest tokens whose probabilities sum to this, at most 1.
        num_return_sequences: sequences that continue each prompt.
        stop: tokens that end a sequence; the one that did is its last.
        seed: of the random numbers.  Each sequence has its own, independent of the rest of the
            batch.  By default they follow ``torch.manual_seed``.
        on_token: called as ``on_token(sequence, token)`` for each new token once it is known.
        draft: a smaller model of the same vocabulary, for speculative decoding.  At temperature 0
            the tokens are the same as without it, otherwise their distribution is.
        num_draft_tokens: tokens proposed at a time, at most.
        cache: for the model's keys and values, such as one with a prefix cache; by default a new
            one that is just large enough.

    Raises:
        ValueError, TypeError: an empty prompt, a token outside the vocabulary, a sequence longer
            than the model's positions, a cache or a draft that does not fit, an argument out of
            range; nothing has been allocated.  While generating, ValueError naming sequence and
            position: logits with NaN, with several +inf, or all -inf.  A single +inf is certain.
        NotImplementedError: the model's ``attention`` is not "fused".
    """
    vocab_size = model.config.vocab_size
    request = Request.of(prompts, num_return_sequences, max_new_tokens, stop, vocab_size)
    check_sampling(temperature, top_k, top_p)
    check_options(seed, on_token, num_draft_tokens)
    request.check("model", model)
    if draft is not None:
        request.check_draft(draft, model)
    if cache is not None:
        request.check_cache(cache, model)
    if not request.prompts:
        return []

    seed = int(torch.randint(2**63 - 1, ())) if seed is None else seed
    groups = [
        [
            GeneratedSequence(i * request.copies + copy, list(prompt), Random(f"{seed} {i} {copy}"))
            for copy in range(request.copies)
        ]
        for i, prompt in enumerate(request.prompts)
    ]
    sequences = [sequence for group in groups for sequence in group]
    to_probabilities = partial(distribution, temperature=temperature, top_k=top_k, top_p=top_p)
    cache = request.new_cache(model) if cache is None else cache
    target, drafter = Decoder(model, cache, to_probabilities), None
    decoders = [target]
    if draft is not None:
        drafter = Decoder(draft, request.new_cache(draft), to_probabilities)
        decoders.append(drafter)

    def append(
        sequences: list[GeneratedSequence], new_tokens: list[list[int]]
    ) -> list[GeneratedSequence]:
        """Append new tokens to each sequence, up to its end; return the sequences that go on."""
        active = []
        for sequence, tokens in zip(sequences, new_tokens, strict=True):
            for token in tokens:
                sequence.tokens.append(token)
                if on_token is not None:
                    on_token(sequence.index, token)
                if token in request.stop or sequence.num_new_tokens == request.max_new_tokens:
                    break
            else:
                active.append(sequence)
        for decoder in decoders:
            decoder.trim(sequences, active)
        return active

    with contextlib.ExitStack() as stack:
        for decoder in decoders:
            stack.enter_context(evaluating(decoder.model))
            stack.callback(decoder.trim, sequences, [])
        if drafter is not None:
            drafter.prefill(groups)
        p = target.prefill(groups).repeat_interleave(request.copies, 0)
        active = append(sequences, [[token] for token in sample(p, randoms(sequences))])
        while active:
            drafts, q = [[] for _ in active], [[] for _ in active]
            if drafter is not None:
                # The target adds a token of its own, so the last one is never drafted.
                most = request.max_new_tokens - 1
                left = [most - sequence.num_new_tokens for sequence in active]
                drafts, q = drafter.draft(active, [min(num_draft_tokens, n) for n in left])
            p = target.predict_all(active, drafts)
            kept, rows = zip(*map(verify, drafts, q, p, randoms(active)), strict=True)
            tokens = sample(torch.stack(rows), randoms(active))
            new = [[*d[:n], token] for d, n, token in zip(drafts, kept, tokens, strict=True)]
            active = append(active, new)
    return [sequence.new_tokens for sequence in sequences]
