"""torch.func's transforms, and batched gradients: right, or refused by NotImplementedError.

On PyTorch operations, where PyTorch's own autograd may serve, and through our operators.  Seen
failing on: an autograd function without a batching rule, a tangent that an operator drops.
"""

import pytest
import torch

import fused_attention as fa
from fused_attention.ops import backend
from fused_attention.testing import CASES, OpProblem


def attention(*variants, **options):
    def attend(q, k, v):
        return fa.attention(q, k, v, variants, **options)

    return attend


def qkv():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, n, 4, generator=generator) for n in (3, 5, 5)]


QKV = qkv()
RANDOM = ("add_layer_norm_dropout", "add_rms_norm_fp32_residual")  # they drop elements


def of_case(case):
    return case.op, case.make_inputs(OpProblem(3, 7, torch.float32, "cpu"))


FUNCTIONS = {
    "attention": (attention(), qkv()),
    "causal": (attention(fa.causal()), qkv()),
    "softcap": (attention(fa.softcap(2.0), fa.causal()), qkv()),
    "bias": (lambda b: fa.attention(*QKV, fa.bias(b)), [torch.ones(1, 2, 3, 5)]),
    "sink": (lambda x: fa.attention(*QKV, fa.sink(x)), [torch.ones(2)]),
    "lse": (attention(fa.causal(), return_lse=True), qkv()),
    "sdpa": (fa.scaled_dot_product_attention, qkv()),
    **{case.name: of_case(case) for case in CASES if 7 in case.sizes and case.name not in RANDOM},
}


@pytest.fixture(params=["aten", "operators"])
def route(request, monkeypatch):
    """Through PyTorch's own functions where they serve, or always through our operators."""
    if request.param == "operators":
        monkeypatch.setattr(backend, "uses_triton", lambda *tensors: True)
        monkeypatch.setattr(backend, "of", lambda family, *_: backend._module(family, "torch"))


@pytest.fixture(params=FUNCTIONS)
def function(request, route):
    """f(x), one tensor in and out, and x: of an op, as a function of its first floating input."""
    op, inputs = FUNCTIONS[request.param]
    at = next(i for i, x in enumerate(inputs) if x.is_floating_point())

    def f(x):
        out = op(*inputs[:at], x, *inputs[at + 1 :])
        parts = out if isinstance(out, tuple) else (out,)
        return torch.cat([part.flatten() for part in parts if part is not None])

    return f, inputs[at].detach()


def gradient(f, x, upstream):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, upstream)[0]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def upstreams(f, x, count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *f(x).shape, generator=generator)


def test_grad_and_vjp(function):
    f, x = function
    (upstream,) = upstreams(f, x, 1)
    close(torch.func.grad(lambda x: (f(x) * upstream).sum())(x), gradient(f, x, upstream))
    close(torch.func.vjp(f, x)[1](upstream)[0], gradient(f, x, upstream))


@pytest.mark.parametrize("dim", [0, 1])
def test_vmap(function, dim):
    f, x = function
    batch = torch.stack([x, x / 2, -x], dim)
    close(torch.vmap(f, in_dims=dim)(batch), torch.stack([f(x), f(x / 2), f(-x)]))


def test_gradients_of_each_sample(function):
    """vmap of grad: by the sample, as differential privacy wants them."""
    f, x = function
    batch, weights = torch.stack([x, x / 2]), upstreams(f, x, 2)
    found = torch.vmap(torch.func.grad(lambda x, w: (f(x) * w).sum()))(batch, weights)
    expected = [gradient(f, *pair) for pair in zip(batch, weights, strict=True)]
    close(found, torch.stack(expected))


def test_jacrev(function):
    f, x = function
    expected = [gradient(f, x, row) for row in torch.eye(f(x).numel())]
    close(torch.func.jacrev(f)(x), torch.stack(expected).view(-1, *x.shape))


def right_or_refused(call, expected):
    """What cannot be right is refused; nothing is dropped in silence."""
    try:
        found = call()
    except NotImplementedError as error:
        assert "not implemented; " in str(error)
        return
    torch.testing.assert_close(found, expected(), rtol=1e-2, atol=1e-2)


def along(f, x, tangent, step=1e-2):
    """The derivative of f along a tangent, by central differences."""
    return (f(x + step * tangent) - f(x - step * tangent)) / (2 * step)


def test_jvp(function):
    f, x = function
    tangent = torch.linspace(-1, 1, x.numel()).view(x.shape)
    right_or_refused(lambda: torch.func.jvp(f, (x,), (tangent,))[1], lambda: along(f, x, tangent))


def test_forward_over_reverse(function):
    """A Hessian-vector product: no tangent is dropped at an inner level."""
    f, x = function
    (upstream,) = upstreams(f, x, 1)
    tangent = torch.linspace(-1, 1, x.numel()).view(x.shape)

    def grad(x):
        return torch.func.grad(lambda x: (f(x) * upstream).sin().sum())(x)

    right_or_refused(
        lambda: torch.func.jvp(grad, (x,), (tangent,))[1], lambda: along(grad, x, tangent)
    )


def test_a_tangent_of_the_upstream_gradient(function):
    f, x = function
    upstream, tangent = upstreams(f, x, 2)
    right_or_refused(
        lambda: torch.func.jvp(lambda u: torch.func.vjp(f, x)[1](u)[0], (upstream,), (tangent,))[1],
        lambda: gradient(f, x, tangent),
    )


def test_batched_gradients(function):
    f, x = function
    rows = upstreams(f, x, 3)
    leaf = x.clone().requires_grad_()
    out = f(leaf)
    right_or_refused(
        lambda: torch.autograd.grad(out, leaf, rows, is_grads_batched=True)[0],
        lambda: torch.stack([gradient(f, x, row) for row in rows]),
    )


def test_vmap_of_what_writes_to_a_cache_is_refused():
    kv, x = torch.zeros(1, 2, 16, 1, 8), torch.randn(2, 3, 1, 8)
    with pytest.raises(NotImplementedError, match=r"paged_append: torch\.vmap is not implemented"):
        torch.vmap(lambda x: fa.paged_append(x, x, kv, torch.arange(3)))(x)
