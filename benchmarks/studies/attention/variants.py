"""The attention variants of the command line: one table entry each.

A spec is `name[:arg[:arg...]]`, joined by `+` for composition: `causal+softcap:30`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

import fused_attention as fa

from .point import AttentionPoint


@dataclass(frozen=True)
class AttentionShape:
    batch: int
    heads: int
    kv_heads: int
    seq_q: int
    seq_k: int
    head_dim: int

    @classmethod
    def of(cls, point: AttentionPoint) -> "AttentionShape":
        n = point.seq_len
        return cls(point.batch, point.heads, point.kv_heads, n, n, point.head_dim)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(f"expected a count of tokens, got {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"expected a positive integer, got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"expected a positive number, got {text}")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"expected a fraction between 0 and 1, got {text}")
    return value


def _everything(q, b, shape, *args):
    return np.zeros_like(q), np.full_like(q, shape.seq_k)


@dataclass(frozen=True)
class VariantKind:
    """What the studies must know of a variant.

    build(device, shape, *args) makes the variant's value.
    visible(q, b, shape, *args) gives the keys [first, last) that queries q (in key coordinates)
    of batch entry b may see; every mask here is an interval, so compositions intersect.
    """

    help: str
    build: Callable
    parameters: tuple[tuple[str, Callable, object], ...] = ()
    visible: Callable = _everything


REQUIRED = object()


def _document_ids(shape: AttentionShape, count: int | None) -> np.ndarray:
    count = count or max(1, shape.seq_k // 1024)
    return np.arange(shape.seq_k) * count // shape.seq_k


def _visible_documents(q, b, shape, count):
    ids = _document_ids(shape, count)
    own = ids[np.clip(q, 0, shape.seq_k - 1)]
    return np.searchsorted(ids, own, "left"), np.searchsorted(ids, own, "right")


def _lengths(shape: AttentionShape, even: float, odd: float | None) -> list[int]:
    fractions = (even, even if odd is None else odd)
    return [round(fractions[b % 2] * shape.seq_k) for b in range(shape.batch)]


KINDS = {
    "full": VariantKind(
        help="every query sees every key",
        build=lambda device, shape: (),
    ),
    "causal": VariantKind(
        help="keys up to the query's own position",
        build=lambda device, shape: fa.causal(),
        visible=lambda q, b, shape: (np.zeros_like(q), q + 1),
    ),
    "sliding_window": VariantKind(
        help="LEFT keys before the query, its own, and RIGHT after it (default 0)",
        parameters=(("LEFT", _count, REQUIRED), ("RIGHT", _count, 0)),
        build=lambda device, shape, left, right: fa.sliding_window(left, right),
        visible=lambda q, b, shape, left, right: (q - left, q + right + 1),
    ),
    "key_padding": VariantKind(
        help="the first F of the keys exist (F2 in every second batch entry; fractions)",
        parameters=(("F", _fraction, REQUIRED), ("F2", _fraction, None)),
        build=lambda device, shape, even, odd: fa.key_padding(
            torch.tensor(_lengths(shape, even, odd), device=device, dtype=torch.int32)
        ),
        visible=lambda q, b, shape, even, odd: (
            np.zeros_like(q),
            np.full_like(q, _lengths(shape, even, odd)[b]),
        ),
    ),
    "softcap": VariantKind(
        help="scores become CAP * tanh(score / CAP)",
        parameters=(("CAP", _positive, REQUIRED),),
        build=lambda device, shape, cap: fa.softcap(cap),
    ),
    "alibi": VariantKind(
        help="scores fall with distance, by the paper's slopes",
        build=lambda device, shape: fa.alibi(fa.alibi_slopes(shape.heads, device)),
    ),
    "document": VariantKind(
        help="N equal documents that do not see each other (default: 1024 tokens each)",
        parameters=(("N", _positive_int, None),),
        build=lambda device, shape, count: fa.document(
            torch.from_numpy(_document_ids(shape, count)).to(device)
        ),
        visible=_visible_documents,
    ),
}


@dataclass(frozen=True)
class Term:
    """One parsed part of a spec."""

    name: str
    args: tuple = field(default=())

    @property
    def kind(self) -> VariantKind:
        return KINDS[self.name]


def usage(name: str) -> str:
    parts = [name]
    for label, _, default in KINDS[name].parameters:
        parts.append(f":{label}" if default is REQUIRED else f"[:{label}]")
    return "".join(parts)


def parse(spec: str) -> tuple[Term, ...]:
    """Parses a spec; ValueError says what is wrong with it. `full` is the empty composition."""
    terms = tuple(_parse_term(part.strip()) for part in spec.split("+"))
    return tuple(term for term in terms if term.name != "full")


def _parse_term(text: str) -> Term:
    name, *words = text.split(":")
    if name not in KINDS:
        raise ValueError(f"unknown variant '{name}'; known: {', '.join(map(usage, KINDS))}")
    parameters = KINDS[name].parameters
    required = sum(default is REQUIRED for _, _, default in parameters)
    if not required <= len(words) <= len(parameters):
        raise ValueError(f"'{text}' does not match {usage(name)}")
    args = []
    for i, (label, convert, default) in enumerate(parameters):
        try:
            args.append(convert(words[i]) if i < len(words) else default)
        except ValueError as error:
            raise ValueError(f"'{text}': {label}: {error}") from None
    return Term(name, tuple(args))


def build(terms: tuple[Term, ...], shape: AttentionShape, device: str) -> tuple:
    """The composition as variants of fused_attention."""
    return tuple(term.kind.build(device, shape, *term.args) for term in terms)


def visible_pairs(terms: tuple[Term, ...], shape: AttentionShape) -> int:
    """The number of (query, key) pairs that a head computes, summed over the batch."""
    q = np.arange(shape.seq_q) + shape.seq_k - shape.seq_q
    total = 0
    for b in range(shape.batch):
        first, last = np.zeros_like(q), np.full_like(q, shape.seq_k)
        for term in terms:
            lo, hi = term.kind.visible(q, b, shape, *term.args)
            first, last = np.maximum(first, lo), np.minimum(last, hi)
        total += int(np.maximum(last - first, 0).sum())
    return total
