"""The kernels of `check_variant` compile for GPUs that need not be here, in every layout.

Seen failing on: a layout that leaves a position undefined.
"""

import pytest
import torch

import fused_attention as fa

from . import compiler

pytestmark = pytest.mark.aot


def launches(kind: str):
    """The launches that compare a hook of kind ``kind`` with its twin."""
    from fused_attention.kernels import probe
    from fused_attention.ops.attention.triton_backend import variant_stack

    variants = (fa.key_padding(torch.empty(2, dtype=torch.int64, device="meta")), fa.softcap(3.0))
    stack = variant_stack([*variants, fa.alibi(torch.empty(4, device="meta"))])
    hooks = {
        "mask": (stack.masks[0], stack.mask_args[0]),
        "score": (stack.scores[1], stack.score_args[1]),
        "score_grad": (stack.score_grads[0], stack.score_args[0]),
        "arg_grad": (stack.arg_grads[1], stack.score_args[1]),
        "key_bounds": (stack.key_bounds[0], stack.mask_args[0]),
        "query_bounds": (stack.query_bounds[0], stack.mask_args[0]),
    }
    scores = torch.empty(2, 4, 40, 150, device="meta")
    with compiler.recorded_launches() as recorded:
        if kind.endswith("bounds"):
            ranges = torch.empty(9, 2, dtype=torch.int32, device="meta")
            result = torch.empty(2, 4, 9, 4, dtype=torch.int64, device="meta")
            probe.probe_bounds(*hooks[kind], ranges, result, 40, 150)
        else:
            operands = [None if kind == "mask" else scores] * 3
            for layout in probe.LAYOUTS:
                probe.probe(kind, *hooks[kind], operands, scores, layout)
    return recorded


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize(
    "kind", ["mask", "score", "score_grad", "arg_grad", "key_bounds", "query_bounds"]
)
def test_hooks_compile_by_themselves(kind, target):
    found = launches(kind)
    assert len(found) == (1 if kind.endswith("bounds") else 3)
    for launch in found:
        assert compiler.compiled(launch, target).asm
