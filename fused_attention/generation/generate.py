"""Continue prompts: ragged batches on a paged cache, streaming, with a draft model if there is one.

A step feeds each sequence's tokens that the model has not seen: the prompt at first, then the last
token, and with a draft model its guesses.  What those were wrong about is cut off again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random

import torch

from ..evaluation import evaluating
from ..paged_kv_cache import PagedKVCache
from .decoder import Text, Writer, randoms
from .request import Request, check_options, check_sampling
from .sampling import pick, verify


@torch.no_grad()
def generate(
    model,
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
    draft=None,
    num_draft_tokens: int = 4,
    cache: PagedKVCache | None = None,
) -> list[list[int]]:
    """Continue every prompt: the new tokens of each sequence, those of one prompt side by side.

    Keys and values are in pages: prompts of different lengths need no padding, one is computed
    and stored once for all sequences that continue it, and a sequence that ends gives its back.
    Dropout is off meanwhile.

    Args:
        prompts: token ids of each, at least one.
        max_new_tokens: of each sequence, at most.
        temperature: divides the logits; 0 takes the likeliest token every time.
        top_k: sample among so many tokens; all by default.
        top_p: sample among the fewest that have this probability together, at most 1.
        num_return_sequences: for each prompt.
        stop: tokens that end a sequence; the one that did is its last.
        seed: of the random numbers.  A sequence has its own, whatever else is in the batch.  By
            default they follow ``torch.manual_seed``.
        on_token: called as ``on_token(sequence, token)`` with each new token once it is known.
        draft: a smaller model of the same vocabulary, whose guesses are checked several at a time.
            What is sampled is distributed as without it; at temperature 0 it is the same.
        num_draft_tokens: guesses at a time, at most.
        cache: where the model keeps keys and values, such as one with a prefix cache; by default
            one is made that is just large enough.

    Raises:
        ValueError, TypeError: an empty prompt, a token outside the vocabulary, a sequence longer
            than the model's positions, a cache or a draft that does not fit, an argument out of
            range; nothing has been allocated.
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
            Text(i * request.copies + copy, list(prompt), Random(f"{seed} {i} {copy}"))
            for copy in range(request.copies)
        ]
        for i, prompt in enumerate(request.prompts)
    ]
    texts = [text for group in groups for text in group]
    sampling = (temperature, top_k, top_p)
    target = Writer(model, request.new_cache(model) if cache is None else cache, sampling)
    guide = None if draft is None else Writer(draft, request.new_cache(draft), sampling)
    writers = [target] if guide is None else [target, guide]

    def extend(texts: list[Text], new: list[list[int]]) -> list[Text]:
        """Add the new tokens of each text, up to its end; returns the texts that go on."""
        going = []
        for text, tokens in zip(texts, new, strict=True):
            for token in tokens:
                text.tokens.append(token)
                if on_token is not None:
                    on_token(text.index, token)
                if token in request.stop or text.count == max_new_tokens:
                    break
            else:
                going.append(text)
        for writer in writers:
            writer.settle(texts, going)
        return going

    with contextlib.ExitStack() as stack:
        for writer in writers:
            stack.enter_context(evaluating(writer.model))
            stack.callback(writer.settle, texts, [])
        for writer in reversed(writers):
            p = writer.begin(groups)
        p = p.repeat_interleave(request.copies, 0)
        going = extend(texts, [[token] for token in pick(p, randoms(texts))])
        while going:
            drafts, q = [[] for _ in going], [[] for _ in going]
            if guide is not None:
                left = [max_new_tokens - text.count - 1 for text in going]
                drafts, q = guide.guess(going, [min(num_draft_tokens, n) for n in left])
            p = target.every(going, drafts)
            kept, rows = zip(*map(verify, drafts, q, p, randoms(going)), strict=True)
            tokens = pick(torch.stack(rows), randoms(going))
            new = [[*d[:n], token] for d, n, token in zip(drafts, kept, tokens, strict=True)]
            going = extend(going, new)
    return [text.tokens[text.given :] for text in texts]
