"""From logits to the next token, and from a draft to the tokens of it that the target accepts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import torch


def distribution(
    logits,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    place: Callable[[int], str] = "row {}".format,
):
    """Probabilities (rows, vocab), fp64, of the next token; at temperature 0 one-hot at the argmax.

    A single logit of +inf has probability 1.  Keeps the ``top_k`` most likely tokens (Fan et al.
    2018, arXiv 1805.04833), and of those the fewest whose probabilities sum to ``top_p`` (Holtzman
    et al. 2019, arXiv 1904.09751).  Among equally likely tokens the lower ids are kept.

    Raises ValueError if a row has no distribution, which ``place(row)`` names: it has NaN, more
    than one +inf, or only -inf.
    """
    logits = logits.double()
    top = logits.amax(-1, keepdim=True)
    certain = logits == math.inf
    unusable = top.isnan() | top.isneginf() | (certain.sum(-1, keepdim=True) > 1)
    # One wait for the device, for both answers.
    wrong, infinite = torch.stack((unusable.any(), top.isposinf().any())).tolist()
    if wrong:
        row = int(unusable.flatten().nonzero()[0])
        raise ValueError(f"logits: {_why(logits[row])} at {place(row)}")
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
    if infinite:
        logits = torch.where(top.isposinf(), certain.double().log(), logits)
        top = top.where(top.isfinite(), 0)
    # Relative to the largest: a quotient by a small temperature overflows to -inf alone.
    p = ((logits - top) / temperature).softmax(-1)
    if top_k is None and top_p is None:
        return p
    p, order = p.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        p[:, top_k:] = 0
    if top_p is not None:
        before = p.cumsum(-1) - p
        p = p.where(before < top_p * p.sum(-1, keepdim=True), 0)
    return torch.zeros_like(p).scatter_(-1, order, p / p.sum(-1, keepdim=True))


def _why(logits) -> str:
    if logits.isnan().any():
        return "expected numbers, the model computed NaN"
    if logits.isneginf().all():
        return "expected a possible token, the model computed -inf for all"
    return "expected at most one +inf, the model computed several"


def sample(p: torch.Tensor, randoms: Sequence[Random]) -> list[int]:
    """Sample a token from each row of p: the first whose cumulative probability exceeds u.

    u is uniform on [0, 1), from the row's own random numbers.
    """
    cumulative = p.cumsum(-1)
    u = torch.tensor([random.random() for random in randoms], dtype=p.dtype, device=p.device)
    # From the last possible token on the quotient is exactly 1, so u never passes it.
    return (cumulative / cumulative[:, -1:] <= u[:, None]).sum(-1).tolist()


def verify(draft: list[int], q, p, random: Random) -> tuple[int, torch.Tensor]:
    """How many tokens of a draft are accepted, and the weights to sample the one after them from.

    Every token is then distributed as p (Leviathan et al. 2023, arXiv 2211.17192, algorithm 1): a
    drafted token is accepted with probability min(1, p / q); the first rejected one is replaced by
    a sample of max(0, p - q).

    Args:
        draft: tokens sampled from the rows of q.
        q: (drafts, vocab), or the rows one by one.
        p: (drafts + 1, vocab), the target's: for each drafted token, and for the one after them.
        random: the random numbers of the sequence.
    """
    for accepted, (token, q_row, p_row) in enumerate(zip(draft, q, p[:-1], strict=True)):
        if random.random() >= float(p_row[token] / q_row[token]):
            rest = (p_row - q_row).clamp(min=0)
            # p and q may differ by rounding alone, and then the rest is all zero.
            return accepted, torch.where(rest.sum() > 0, rest, p_row)
    return len(draft), p[-1]
