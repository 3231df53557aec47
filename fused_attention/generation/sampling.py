"""From logits to the next token, and from a draft to what the target keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch


def distribution(logits, temperature: float, top_k: int | None, top_p: float | None):
    """Probabilities (rows, vocab), fp64, of what may follow; at temperature 0 of the best alone.

    ``top_k`` likeliest tokens (Fan et al. 2018, arXiv 1805.04833), of them the fewest that have
    ``top_p`` together (Holtzman et al. 2019, arXiv 1904.09751); of equals those of lower ids.
    """
    logits = logits.double()
    if bool(logits.isnan().any()):
        raise ValueError("logits: expected numbers, the model computed NaN")
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
    p = (logits / temperature).softmax(-1)
    if top_k is None and top_p is None:
        return p
    p, order = p.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        p[:, top_k:] = 0
    if top_p is not None:
        before = p.cumsum(-1) - p
        p = p.where(before < top_p * p.sum(-1, keepdim=True), 0)
    return torch.zeros_like(p).scatter_(-1, order, p / p.sum(-1, keepdim=True))


def pick(p: torch.Tensor, randoms: Sequence[Random]) -> list[int]:
    """A token of each row of p: where its running sum passes a random number of [0, 1)."""
    running = p.cumsum(-1)
    u = torch.tensor([random.random() for random in randoms], dtype=p.dtype, device=p.device)
    # Beyond the last token with a probability the quotient is 1, whatever was rounded.
    return (running / running[:, -1:] <= u[:, None]).sum(-1).tolist()


def verify(draft: list[int], q, p, random: Random) -> tuple[int, torch.Tensor]:
    """How many tokens of a draft to keep, and of what to sample the one that follows.

    So chosen, every token is distributed as p (Leviathan et al. 2023, arXiv 2211.17192, algorithm
    1): one is kept with probability min(1, p / q); the first that is not is replaced.

    Args:
        draft: sampled from the rows of q.
        q: (drafts, vocab), or the rows one by one.
        p: (drafts + 1, vocab), of the token in place of each draft and after the last.
        random: of the sequence.
    """
    for kept, (token, guess, row) in enumerate(zip(draft, q, p[:-1], strict=True)):
        if random.random() >= float(row[token] / guess[token]):
            rest = (row - guess).clamp(min=0)
            return kept, torch.where(rest.sum() > 0, rest, row)  # none is left if only rounded off
    return len(draft), p[-1]
