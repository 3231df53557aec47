"""`check_variant`: the checks in order, and what to make of their findings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from .. import _triton
from ..variants.base import Shape, Variant
from . import attention, bounds, gradients, process, twins
from .calls import SIZES, Call
from .calls import calls as make_calls
from .findings import Findings, Report
from .names import kernel_checks

ON_TORCH = "attention in PyTorch operations"


def check_variant(
    variant: Variant | Callable[[Shape], Variant],
    *,
    shapes: Sequence[tuple[int, int, int, int]] = SIZES,
    kernels: bool = True,
) -> Report:
    """Check that the parts of an attention variant agree with each other, as a test would.

    On small random problems: the torch twins give the right shapes and dtypes, for a tile what they
    give for the whole; bounds miss no key that the mask lets through; gradients are those of
    autograd; every kernel hook computes what its twin does; attention with the variant, forward and
    backward, is within the rounding of the reference.

    Kernel hooks run on the GPU if there is one, interpreted if TRITON_INTERPRET=1 is set, and
    otherwise interpreted in another process, which imports the module that defines the variant.

    Args:
        variant: a variant, or a function that makes one for a shape if its tensors depend on it:
            ``lambda shape: fa.bias(torch.randn(shape.seqlen_q, shape.seqlen_k))``.  The function
            gets an object with batch, num_heads, seqlen_q, seqlen_k and device, which is the CPU.
        shapes: (batch, heads, seqlen_q, seqlen_k) of the problems.
        kernels: False leaves out the kernel hooks, which take most of the time.

    Returns:
        a report of what was checked and what was not; ``print`` it.  A check that did not run is
        in ``unchecked``, and a warning, unless ``kernels`` is False.

    Raises:
        AssertionError: parts disagree; lists each disagreement with shape, place and numbers.
        TypeError, ValueError: there is no variant, or its own check refuses every shape.
    """
    made, refused = make_calls(variant, shapes)
    findings = Findings(unchecked=refused)
    kind = made[0].variant.type
    _check_torch(made, findings)
    where = ""
    if not kernels:
        findings.leave_out(kernel_checks(kind), "kernels=False")
    elif findings.problems:
        findings.leave_out(kernel_checks(kind), "what it is compared with is wrong")
    else:
        where = _check_kernels(made, findings)
    if findings.problems:
        raise AssertionError(findings.failure(kind.name))
    report = Report(kind.name, findings.checked, findings.unchecked, where)
    if kernels and findings.unchecked:
        warnings.warn(f"check_variant left something out\n{report}", stacklevel=2)
    return report


def _check_torch(made: list[Call], findings: Findings) -> None:
    """The checks that need PyTorch only; later ones rely on what earlier ones have checked."""
    steps = {
        "torch twins": twins.check,
        "bounds and gradients in PyTorch": _check_derived,
        ON_TORCH: _check_attention,
    }
    for name, step in steps.items():
        if findings.problems:
            findings.leave_out((name,), "what it relies on is wrong")
            continue
        for call in made:
            step(call, findings)


def _check_derived(call: Call, findings: Findings) -> None:
    bounds.check(call, findings)
    gradients.check(call, findings)


def _check_attention(call: Call, findings: Findings) -> None:
    with findings.check(ON_TORCH, call):
        attention.check(call, torch.device("cpu"), torch.float64, ON_TORCH, findings)


def _check_kernels(made: list[Call], findings: Findings) -> str:
    """Check the kernel hooks where they can run; returns where that was, or nothing."""
    kind = made[0].variant.type
    if not kernel_checks(kind):
        return ""
    if not _triton.AVAILABLE:
        findings.leave_out(kernel_checks(kind), "Triton is not installed")
        return ""
    if _triton.INTERPRETED or torch.cuda.is_available():
        from . import on_triton

        device = torch.device("cpu" if _triton.INTERPRETED else "cuda")
        on_triton.check(made, device, findings)
        return "interpreted" if _triton.INTERPRETED else "compiled"
    return "interpreted in another process" if process.check(made, findings) else ""
