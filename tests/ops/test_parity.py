"""Our functions and modules on PyTorch's own samples: OpInfo and ModuleInfo, values and errors.

Seen failing on: weight and bias swapped, tanh for erf, the reduction or the label smoothing
ignored, attention weights averaged over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.utils._pytree import tree_flatten, tree_unflatten

import fused_attention as fa
from fused_attention.testing import OpCase

from ..helpers import op_budget
from ..helpers.support import LEGS, name_of

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
# Samples are so small that torch may happen to be exact; exp and erf are series of about ten terms.
SERIES = 16


def first_of(function):
    """The function with only the first of its results: the output without the statistics."""
    return lambda *args, **kwargs: function(*args, **kwargs)[0]


@dataclass(frozen=True)
class Pair:
    """A function of ours, and the torch function whose samples it is tested on."""

    ours: object
    theirs: object


OPS = {
    "nn.functional.layer_norm": Pair(fa.layer_norm, F.layer_norm),
    "native_layer_norm": Pair(fa.layer_norm, first_of(torch.native_layer_norm)),
    "nn.functional.rms_norm": Pair(fa.rms_norm, F.rms_norm),
    "nn.functional.gelu": Pair(fa.gelu, F.gelu),
    "nn.functional.cross_entropy": Pair(fa.cross_entropy, F.cross_entropy),
}
MODULES = {
    "nn.LayerNorm": Pair(fa.LayerNorm, nn.LayerNorm),
    "nn.RMSNorm": Pair(fa.RMSNorm, nn.RMSNorm),
    "nn.GELU": Pair(fa.GELU, nn.GELU),
    "nn.CrossEntropyLoss": Pair(fa.CrossEntropyLoss, nn.CrossEntropyLoss),
    "nn.MultiheadAttention": Pair(fa.MultiheadAttention, nn.MultiheadAttention),
}
SOFTMAXES = ("nn.functional.cross_entropy", "nn.CrossEntropyLoss")
OP_INFO = {op.name: op for op in op_db if op.name in OPS and not op.variant_test_name}
MODULE_INFO = {module.name: module for module in module_db if module.name in MODULES}


def over(names):
    """Parametrize over leg, name and dtype; where Triton is interpreted, the first dtype only."""
    return pytest.mark.parametrize(
        "device, name, dtype",
        [
            pytest.param(
                *(leg.values[0], name, dtype),
                id=f"{leg.id}-{name.rpartition('.')[2]}-{name_of(dtype)}",
                marks=leg.marks,
            )
            for leg in LEGS
            for name in names
            for dtype in (DTYPES if leg.id != "interpreted" else DTYPES[:1])
        ],
    )


def drawn(samples, *args, **kwargs) -> list:
    """PyTorch's samples, the same in every run."""
    torch.manual_seed(0)
    found = list(samples(*args, **kwargs))
    assert len(found) >= 3
    return found


def compare(name, ours, theirs, arguments):
    """Assert that ours is within the budget of theirs in fp64, with gradients of ``arguments``."""
    leaves, structure = tree_flatten(arguments)
    where = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.requires_grad]

    def called(function):
        def call(*tensors):
            dtype = tensors[0].dtype
            filled = [
                x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
                for x in leaves
            ]
            for i, x in zip(where, tensors, strict=True):
                filled[i] = x
            args, kwargs = tree_unflatten(filled, structure)
            out = function(*args, **kwargs)
            return tuple(x for x in out if x is not None) if isinstance(out, tuple) else out

        return call

    inputs = tuple(leaves[i].detach() for i in where)
    outs = as_tuple(called(theirs)(*inputs))
    if any(out.isnan().all() for out in outs):  # a mean over no target
        for out, found in zip(outs, as_tuple(called(ours)(*inputs)), strict=True):
            assert torch.equal(out.isnan(), found.isnan())
        return
    upstream = tuple(
        torch.randn(out.shape, generator=torch.Generator().manual_seed(i)).to(out)
        for i, out in enumerate(outs)
    )
    case = OpCase(name, called(ours), called(theirs), None, None, None)
    op_budget.check(op_budget.Question(case, inputs, upstream), terms=SERIES)


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


@over(OPS)
def test_opinfo_samples(device, name, dtype):
    pair = OPS[name]
    for sample in drawn(OP_INFO[name].sample_inputs, device, dtype, requires_grad=True):
        arguments = ((sample.input, *sample.args), sample.kwargs)
        if refused(name, arguments):
            with pytest.raises(ValueError, match="eps: expected"):
                pair.ours(*arguments[0], **arguments[1])
        else:
            compare(name, pair.ours, pair.theirs, arguments)


def refused(name, arguments) -> bool:
    """Whether we reject the sample: eps is not positive, and torch gives NaN for constant rows."""
    (*_, last), kwargs = arguments
    eps = kwargs.get("eps", last if name == "native_layer_norm" else None)
    return isinstance(eps, float) and eps <= 0


@pytest.mark.parametrize("name", [n for n in OPS if n not in ("nn.functional.layer_norm",)])
def test_opinfo_errors(name):
    info = OP_INFO[name]
    errors = list(info.error_inputs("cpu")) if info.error_inputs_func else []
    if name in SOFTMAXES:
        assert not errors, "torch has error inputs now: compare them"
        return
    assert errors
    for error in errors:
        sample = error.sample_input
        with pytest.raises(error.error_type):
            OPS[name].ours(sample.input, *sample.args, **sample.kwargs)


def built(pair, constructor, device, dtype):
    """The two modules, each built after the same seed."""
    for kind in (pair.ours, pair.theirs):
        torch.manual_seed(0)
        yield kind(*constructor.args, **constructor.kwargs).to(device, dtype)


@over(MODULES)
def test_moduleinfo_inputs(device, name, dtype):
    info = MODULE_INFO[name]
    options = {"device": device, "dtype": dtype, "requires_grad": True, "training": True}
    for module_input in drawn(info.module_inputs_func, info, **options):
        ours, theirs = built(MODULES[name], module_input.constructor_input, device, dtype)
        assert repr(ours) == repr(theirs)
        assert {k: (*v.shape,) for k, v in ours.state_dict().items()} == {
            k: (*v.shape,) for k, v in theirs.state_dict().items()
        }
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key
        parameters = dict(theirs.named_parameters())
        forward = module_input.forward_input
        arguments = ((parameters, dict(theirs.named_buffers()), forward.args, forward.kwargs), {})
        compare(name, *(called_with(module) for module in (ours, theirs)), arguments)


def called_with(module):
    def call(parameters, buffers, args, kwargs):
        return functional_call(module, {**parameters, **buffers}, args, kwargs)

    return call


def test_moduleinfo_errors():
    seen = 0
    for name, pair in MODULES.items():
        info = MODULE_INFO[name]
        if info.module_error_inputs_func is None:
            continue
        for error in info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
        ):
            inputs = error.module_error_input
            with pytest.raises(error.error_type):
                module = pair.ours(
                    *inputs.constructor_input.args, **inputs.constructor_input.kwargs
                )
                if error.error_on is ModuleErrorEnum.FORWARD_ERROR:
                    module(*inputs.forward_input.args, **inputs.forward_input.kwargs)
            seen += 1
    if not seen:
        pytest.skip(f"torch {torch.__version__} has no wrong inputs for these modules")
