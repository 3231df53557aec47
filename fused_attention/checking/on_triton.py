"""Checks of kernel hooks: each called by itself for every score, and attention on the kernels.

Imported only where Triton runs: in its interpreter or on a GPU.
"""

from __future__ import annotations

import contextlib
import math

import torch

from ..kernels import probe
from ..ops.attention.triton_backend import variant_stack
from . import attention, bounds, compare, gradients, twins
from .calls import Call
from .findings import Findings
from .names import ATTENTION, KERNEL_HOOKS, kernel_checks

_CALLED = {
    "rows": "",
    "keys": " when called on a tile (keys, rows)",
    "heads": " when called on a tile whose rows are of several heads",
}


def check(calls: list[Call], device: torch.device, findings: Findings) -> None:
    """Check the kernel hooks at every call, and if they are right attention at the largest."""
    for call in calls:
        _Hooks(call, device, findings).check_all()
    if any(name in findings.problems for name in KERNEL_HOOKS):
        findings.leave_out((ATTENTION,), "a hook is wrong")
        return
    with _full_precision():
        for call in sorted(calls, key=lambda call: math.prod(call.scores))[-3:]:
            with findings.check(ATTENTION, call):
                attention.check(call, device, torch.float32, ATTENTION, findings)


@contextlib.contextmanager
def _full_precision():
    """Products in fp32, whatever the user has set: the reference knows no TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Hooks:
    """The kernel hooks of one call."""

    def __init__(self, call: Call, device: torch.device, findings: Findings):
        self.call, self.device, self.findings = call, device, findings
        self.stack = variant_stack([call.to(device).variant])

    def check_all(self) -> None:
        run = {
            "mask": self._mask,
            "score": self._score,
            "score_grad": self._score_grad,
            "arg_grad": self._arg_grad,
            "key_bounds": self._key_bounds,
            "query_bounds": self._query_bounds,
        }
        for name in kernel_checks(self.call.variant.type):
            if name != ATTENTION:
                with self.findings.check(name, self.call):
                    run[name]()

    def _mask(self) -> None:
        expected = twins.mask(self.call)
        hook, args = self.stack.masks[0], self.stack.mask_args[0]
        self._compare("mask", hook, args, (None, None, None), expected, 0.0)

    def _score(self) -> None:
        s = self.call.random(0)
        exact, allowed = compare.rounding(self.call, twins.score, s)
        hook, args = self.stack.scores[0], self.stack.score_args[0]
        self._compare("score", hook, args, (None, s, None), exact, allowed)

    def _score_grad(self) -> None:
        s, ds = (self.call.random(stream) for stream in (0, 2))
        s_out = twins.score(self.call.double(), s.double()).float()
        exact, allowed = compare.rounding(self.call, _copying(gradients.score_grad), ds, s, s_out)
        hook, args = self.stack.score_grads[0], self.stack.score_args[0]
        self._compare("score_grad", hook, args, (ds, s, s_out), exact, allowed)

    def _arg_grad(self) -> None:
        s, ds = (self.call.random(stream) for stream in (0, 2))
        exact, allowed = compare.rounding(self.call, _copying(gradients.arg_grad), ds, s)
        hook, args = self.stack.arg_grads[0], self.stack.score_args[0]
        self._compare("arg_grad", hook, args, (ds, s, None), exact, allowed)

    def _compare(self, kind, hook, args, operands, expected, allowed: float) -> None:
        operands = [x if x is None else x.to(self.device) for x in operands]
        for layout in probe.LAYOUTS:
            result = torch.full(self.call.scores, torch.nan, device=self.device)
            probe.probe(kind, hook, args, operands, result, layout)
            problem = compare.difference(result, expected, allowed)
            if problem is not None:
                called = _CALLED[layout]
                self.findings.add(
                    kind, f"disagrees with torch_{kind}{called} at {self.call}, {problem}"
                )
                return

    def _key_bounds(self) -> None:
        shape = self.call.shape
        first = shape.seqlen_k - shape.seqlen_q
        self._bounds("key_bounds", self.stack.key_bounds[0], twins.mask(self.call), first, 0)

    def _query_bounds(self) -> None:
        shape = self.call.shape
        first = shape.seqlen_k - shape.seqlen_q
        seen = twins.mask(self.call).mT
        self._bounds("query_bounds", self.stack.query_bounds[0], seen, 0, first)

    def _bounds(self, name: str, hook, seen: torch.Tensor, first: int, first_seen: int) -> None:
        """``seen``: (B, H, positions that ranges are of, positions that bounds are of)."""
        # Interpreted, every range of every head takes a millisecond.
        places = bounds.ranges(seen.shape[2], max(4, 24 // (seen.shape[0] * seen.shape[1])))
        ranges = torch.tensor(places, dtype=torch.int32, device=self.device) + first
        size = (*seen.shape[:2], len(places), 4)
        result = torch.zeros(size, dtype=torch.int64, device=self.device)
        probe.probe_bounds(
            *(hook, self.stack.mask_args[0], ranges, result),
            *(self.call.shape.seqlen_q, self.call.shape.seqlen_k),
        )
        one, others = ("key", "queries") if name == "key_bounds" else ("query", "keys")
        found = (result.cpu() - first_seen).tolist()
        for b, h in ((b, h) for b in range(size[0]) for h in range(size[1])):
            for i, (start, last) in enumerate(places):
                part = seen[b, h, start : last + 1]
                problem = bounds.violation(found[b][h][i], part, one, others)
                if problem is not None:
                    where = f"batch {b}, head {h}, {others} {start} to {last}"
                    self.findings.add(name, f"at {self.call}: for {where} {problem}")
                    return


def _copying(twin):
    """``twin`` on copies of its operands, which a twin of a gradient may overwrite."""
    return lambda call, *operands: twin(call, *(x.clone() for x in operands))
