"""The attention operators in PyTorch: opcheck, compile, export, fake tensors, FLOPs, autocast.

Every test runs twice: on the torch backend and, marked ``interpreter``, on the Triton backend.
Seen failing on: a fake whose strides differ, a seed drawn inside the operator, a mutated input,
an unregistered backward, autocast ignored, or still on inside an operator.
"""

import io

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import fused_attention as fa

from ...helpers.custom_variants import RELATIVE

OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)

MODES = [
    pytest.param("torch", id="torch"),
    pytest.param("triton", id="triton", marks=pytest.mark.interpreter),
]
pytestmark = pytest.mark.parametrize("path", MODES)

STACKS = {
    "full": lambda: (),
    "causal": lambda: (fa.causal(),),
    "top_left": lambda: (fa.causal("top_left"),),
    "window": lambda: (fa.sliding_window(5, 2),),
    "padding": lambda: (fa.key_padding(torch.tensor([9, 4])),),
    "softcap": lambda: (fa.softcap(3.0), fa.causal()),
    "alibi": lambda: (fa.alibi(fa.alibi_slopes(4).requires_grad_()),),
    "document": lambda: (fa.document(torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])),),
    "mask": lambda: (fa.mask(torch.arange(63).reshape(7, 9) % 3 > 0),),
    "bias": lambda: (fa.bias(torch.linspace(-1, 1, 9).expand(4, 7, 9).clone().requires_grad_()),),
    "table": lambda: (RELATIVE(torch.linspace(-1, 1, 28).view(4, 7).mT.requires_grad_(), 3),),
}
stacks = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


def inputs(dtype=torch.float32, transposed=False):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 7, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    if transposed:
        made = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in made]
    return [x.requires_grad_() for x in made]


def operands(q, k, v, variants, dropout_p=0.0):
    """Arguments of torch.ops.fused_attention.attention."""
    from fused_attention.variants.base import encode

    seed = torch.tensor([7]) if dropout_p else None
    return (q, k, v, *encode(variants), 0.4, dropout_p, seed)


@stacks
def test_opcheck(path, stack):
    args = operands(*inputs(), stack())
    torch.library.opcheck(torch.ops.fused_attention.attention, args, test_utils=OPCHECKS)


@pytest.mark.parametrize("transposed", [False, True])
def test_opcheck_of_layouts_dropout_and_uneven_head_dims(path, transposed):
    q, k, v = inputs(transposed=transposed)
    args = operands(q, k, v[..., :6].detach(), (fa.causal(),), dropout_p=0.3)
    torch.library.opcheck(torch.ops.fused_attention.attention, args, test_utils=OPCHECKS)


@pytest.mark.parametrize("lse_used", [False, True])
@pytest.mark.parametrize("name", ["softcap", "bias", "table"])
def test_opcheck_of_backward(path, name, lse_used):
    q, k, v = (x.detach() for x in inputs())
    stack = STACKS[name]()
    variants = tuple(fa.Variant(v.type, tuple(_detached(a) for a in v.args)) for v in stack)
    args = operands(q, k, v, variants)
    out, lse, stats = torch.ops.fused_attention.attention(*args)
    dlse = torch.ones_like(lse) if lse_used else None
    wanted = [variant.type.arg_grad is not None for variant in variants]
    torch.library.opcheck(
        torch.ops.fused_attention.attention_backward,
        (torch.ones_like(out), dlse, q, k, v, out, stats, *args[3:], wanted),
        test_utils=("test_schema", "test_faketensor"),
    )


def _detached(arg):
    return arg.detach() if isinstance(arg, torch.Tensor) else arg


def gradients(function, tensors):
    out, lse = function(*tensors)
    loss = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() + lse.sum()
    return [out, lse, *torch.autograd.grad(loss, tensors)]


@pytest.mark.parametrize(
    "name, backend, dynamic",
    [
        ("causal", "aot_eager", False),
        ("softcap", "aot_eager", True),
        ("padding", "aot_eager", True),
        ("bias", "aot_eager", False),
        ("causal", "inductor", True),
        ("bias", "inductor", False),
        ("table", "aot_eager", True),
        ("table", "inductor", False),
    ],
)
def test_compile_without_graph_breaks(path, name, backend, dynamic):
    torch._dynamo.reset()
    variants = STACKS[name]()
    tensors = inputs()
    if name in ("bias", "table"):
        tensors.append(variants[0].args[0].detach().clone().requires_grad_())

    def attend(q, k, v, x=None):
        if x is None:
            stack = variants
        else:
            stack = (fa.bias(x) if name == "bias" else RELATIVE(x, 3), fa.causal())
        return fa.attention(q * 1.5, k, v, stack, return_lse=True)

    compiled = torch.compile(attend, fullgraph=True, backend=backend, dynamic=dynamic)
    with torch._inductor.config.patch(force_disable_caches=True):  # a cache ignores our changes
        found = gradients(compiled, tensors)
    for ours, eager in zip(found, gradients(attend, tensors), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


def test_compiled_dropout_draws_anew_and_follows_the_seed(path):
    torch._dynamo.reset()
    q, k, v = (x.detach() for x in inputs())
    attend = torch.compile(
        lambda: fa.attention(q, k, v, dropout_p=0.5), fullgraph=True, backend="aot_eager"
    )
    torch.manual_seed(1)
    first, second = attend(), attend()
    torch.manual_seed(1)
    assert torch.equal(attend(), first) and not torch.equal(first, second)


def test_compiled_sdpa(path):
    torch._dynamo.reset()
    tensors = inputs()

    def attend(q, k, v):
        out = fa.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out, out.sum(-1)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(gradients(compiled, tensors), gradients(attend, tensors), strict=True):
        torch.testing.assert_close(ours, eager)


class Attend(torch.nn.Module):
    def forward(self, q, k, v):
        return fa.attention(q, k, v, (fa.softcap(3.0), fa.causal()))


def test_export_with_a_dynamic_length_survives_saving(path):
    q, k, v = (x.detach() for x in inputs())
    length = torch.export.Dim("length", min=2, max=64)
    shapes = {"q": {2: length}, "k": {2: length}, "v": {2: length}}
    tensors = (q, k[:, :, :7].contiguous(), v[:, :, :7].contiguous())
    program = torch.export.export(Attend(), tensors, dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in (7, 3, 12):
        x = torch.randn(2, 4, n, 8)
        kv = torch.randn(2, 2, n, 8)
        torch.testing.assert_close(loaded(x, kv, kv), Attend()(x, kv, kv))


@stacks
@pytest.mark.parametrize("transposed", [False, True])
def test_fake_tensors_have_the_real_metadata(path, stack, transposed):
    tensors = inputs(torch.bfloat16, transposed)
    real = fa.attention(*tensors, stack(), return_lse=True)
    meta = [x.to("meta") for x in tensors]
    variants = tuple(
        fa.Variant(
            v.type, tuple(a.to("meta") if isinstance(a, torch.Tensor) else a for a in v.args)
        )
        for v in stack()
    )
    for fake, true in zip(fa.attention(*meta, variants, return_lse=True), real, strict=True):
        assert (fake.shape, fake.stride(), fake.dtype) == (true.shape, true.stride(), true.dtype)


def test_flops_are_counted_densely_as_torch_counts_sdpa(path):
    q, k, v = inputs()
    with FlopCounterMode(display=False) as forward:
        out = fa.attention(q, k, v, fa.causal())
    assert forward.get_total_flops() == 4 * 2 * 4 * 7 * 9 * 8
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2.5 * forward.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_active_dtype(path, dtype):
    q, k, v = inputs()
    with torch.autocast("cpu", dtype=dtype):
        out = fa.attention(q, k, v)
    assert out.dtype == dtype
    assert torch.equal(out, fa.attention(q.to(dtype), k.to(dtype), v.to(dtype)))
    (dq,) = torch.autograd.grad(out.float().sum(), q)
    assert dq.dtype == torch.float32


@stacks
def test_autocast_ends_at_the_operators(path, stack):
    """Autocast is off inside the operators, forward and backward: fp32 gives the same bits."""
    results = []
    for enabled in (False, True):
        q, k, v = inputs()
        args = operands(q, k, v, stack())
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out, lse, _ = torch.ops.fused_attention.attention(*args)
            gradients = torch.autograd.grad(out.sum() + lse.sum(), (q, k, v))
        results.append((out, lse, *gradients))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("attend", [fa.attention, fa.scaled_dot_product_attention])
def test_autocast_takes_mixed_dtypes_and_leaves_fp64_alone(path, attend):
    q, k, v = (x.detach() for x in inputs())
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attend(q, k.bfloat16(), v.half())
        double = attend(q.double(), k.double(), v.double())
    assert torch.equal(mixed, attend(*(x.bfloat16() for x in (q, k, v.half()))))
    assert torch.equal(double, attend(q.double(), k.double(), v.double()))
    with pytest.raises(TypeError, match="dtype"):
        attend(q, k.bfloat16(), v)


def test_a_second_backward_through_a_retained_graph(path):
    """Gradients of q and of one of two variant tensors; a second backward gives the same."""
    q, k, v = inputs()
    added = torch.linspace(-1, 1, 9).expand(1, 1, 1, 9).clone().requires_grad_()
    variants = (fa.alibi(fa.alibi_slopes(4)), fa.softcap(2.0), fa.bias(added), fa.causal())
    out = fa.attention(q, k, v, variants)
    first = torch.autograd.grad(out.sum(), (q, added), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(out.sum(), (q, added))))
    exact = fa.reference.attention(q, k, v, variants).out
    torch.testing.assert_close(first, torch.autograd.grad(exact.sum(), (q, added)))


def test_double_backward_and_forward_mode_are_refused(path):
    q, k, v = inputs()
    (dq,) = torch.autograd.grad(fa.attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        dq.sum().backward()
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: fa.attention(x, k, v), (q,), (q,))
