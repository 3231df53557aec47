"""Checks of the torch twins of a mask and a score: shape, dtype, and tiles."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .calls import Call
from .compare import EPS, difference, largest
from .findings import Findings

MASK, SCORE = "torch_mask", "torch_score"
INDEX = "torch_arg_index"
SINK = "sink_logit"


def mask(call: Call) -> torch.Tensor:
    """All of the mask, (B, H, M, N)."""
    return call.variant.torch_mask(*call.at).expand(call.scores)


def score(call: Call, s: torch.Tensor) -> torch.Tensor:
    return call.variant.torch_score(s, *call.at)


def index(call: Call) -> torch.Tensor:
    return call.variant.type.torch_arg_index(*call.at, call.variant.args)


def check(call: Call, findings: Findings) -> None:
    kind = call.variant.type
    if kind.mask is not None:
        with findings.check(MASK, call):
            found = call.variant.torch_mask(*call.at)
            _report(findings, MASK, call, _mask_problem(call, found))
    if kind.score is not None:
        with findings.check(SCORE, call):
            _report(findings, SCORE, call, _score_problem(call.double()))
    if kind.torch_arg_index is not None:
        with findings.check(INDEX, call):
            _report(findings, INDEX, call, _index_problem(call, index(call)))
    if kind.sink_logit is not None:
        with findings.check(SINK, call):
            _report(findings, SINK, call, _sink_problem(call, kind.sink_logit(call.variant.args)))


def _report(findings: Findings, check: str, call: Call, problem: str | None) -> None:
    if problem is not None:
        findings.add(check, f"at {call}: {problem}")


def _shape_problem(call: Call, found, dtype: torch.dtype) -> str | None:
    if not isinstance(found, torch.Tensor):
        return f"expected a tensor, got {type(found).__name__}"
    if found.dtype != dtype:
        return f"expected dtype {dtype}, got {found.dtype}"
    sizes = (1,) * (4 - found.ndim) + tuple(found.shape)
    if len(sizes) > 4 or any(n not in (1, m) for n, m in zip(sizes, call.scores, strict=True)):
        return f"expected a shape broadcastable to {call.scores}, got {tuple(found.shape)}"
    return None


def _mask_problem(call: Call, found) -> str | None:
    problem = _shape_problem(call, found, torch.bool)
    if problem is not None:
        return problem
    whole = found.expand(call.scores)
    for tile, where in _tiles(call):
        cut = call.variant.tile(*tile).torch_mask(*call.shape.indices(*tile))
        try:
            problem = difference(cut.expand(where.of(whole).shape), where.of(whole))
        except RuntimeError:
            problem = f"got shape {tuple(cut.shape)}"
        if problem is not None:
            return f"not a slice of the whole mask when called on the tile of {where}: {problem}"
    return None


def _score_problem(call: Call) -> str | None:
    """Of a call in fp64: that of an additive variant may be called with any scores."""
    s = call.random(0).double()
    given = s.clone()
    whole = score(call, given)
    if not torch.equal(given, s):
        return "it overwrites the scores that it is given, which are needed again"
    problem = _shape_problem(call, whole, torch.float64)
    if problem is None and tuple(whole.shape) != call.scores:
        problem = f"expected the shape of the scores, {call.scores}, got {tuple(whole.shape)}"
    if problem is not None:
        return problem
    allowed = EPS * max(largest(s), largest(whole))
    for tile, where in _tiles(call):
        cut = call.variant.tile(*tile).torch_score(where.of(s), *call.shape.indices(*tile))
        if cut.shape != where.of(s).shape:
            problem = f"got shape {tuple(cut.shape)}"
        else:
            problem = difference(cut, where.of(whole), allowed)
        if problem is not None:
            return f"not a slice of all scores when called on the tile of {where}: {problem}"
    return None


def _index_problem(call: Call, found) -> str | None:
    problem = _shape_problem(call, found, torch.int64)
    if problem is not None:
        return problem
    entries = call.variant.args[0].numel()
    outside = (found < 0) | (found >= entries)
    if outside.any():
        return f"expected indices from 0 to {entries - 1}, got {int(found[outside][0])}"
    whole = found.expand(call.scores)
    for tile, where in _tiles(call):
        cut = call.variant.tile(*tile)
        part = cut.type.torch_arg_index(*call.shape.indices(*tile), cut.args)
        problem = difference(part.expand(where.of(whole).shape), where.of(whole))
        if problem is not None:
            return f"not a slice of the whole index when called on the tile of {where}: {problem}"
    return None


def _sink_problem(call: Call, logits) -> str | None:
    heads = call.shape.num_heads
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        return f"expected a floating tensor, got {got}"
    if tuple(logits.shape) != (heads,):
        return f"expected shape ({heads},), a logit per query head, got {tuple(logits.shape)}"
    return None


class _Where:
    """A tile in words, and as an index."""

    def __init__(self, batch: slice, rows: slice, keys: slice):
        self.parts = batch, rows, keys

    def of(self, x: torch.Tensor) -> torch.Tensor:
        batch, rows, keys = self.parts
        return x[batch, :, rows, keys]

    def __str__(self) -> str:
        names = ("batches", "queries", "keys")
        words = (f"{n} {x.start} to {x.stop - 1}" for n, x in zip(names, self.parts, strict=True))
        return ", ".join(words)


def _tiles(call: Call) -> Iterator[tuple[tuple[slice, slice, slice], _Where]]:
    """Tiles that do not begin at 0, of every sequence and of all sequences."""
    batch, _, rows, keys = call.scores
    batches = [slice(b, b + 1) for b in range(batch)] + [slice(0, batch)]
    for part in batches:
        for r in _halves(rows):
            for k in _halves(keys):
                yield (part, r, k), _Where(part, r, k)


def _halves(n: int) -> list[slice]:
    middle = (n + 2) // 3
    return [slice(start, stop) for start, stop in ((0, middle), (middle, n)) if start < stop]
