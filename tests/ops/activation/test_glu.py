"""Gated linear units: what `test_ops` does not test of every op.

Seen failing on: gate and up exchanged, halves copied before they are read, the gradient of up
without the activation, the derivative of one activation for another's, a second launch.
"""

import pytest
import torch

import fused_attention as fa
from fused_attention.ops import layout

from ...helpers.support import FLOATS, LEGS, every_leg, name_of

on_triton = pytest.mark.parametrize("device", LEGS[1:])
OPS = {"geglu": fa.geglu, "geglu_tanh": lambda g, u: fa.geglu(g, u, "tanh"), "swiglu": fa.swiglu}
ops = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


@every_leg
@ops
def test_the_first_argument_is_activated(device, op):
    low = torch.full((4, 8), -20.0, device=device)
    assert (op(low, low).abs() < 1e-5).all()
    assert torch.equal(op(-low, low), torch.full_like(low, -400))


@on_triton
@ops
@pytest.mark.parametrize("shape", [(6, 10), (2, 3, 10), (2, 1, 3, 10)])
def test_halves_of_a_projection_are_read_in_place(device, op, shape, monkeypatch):
    """For any batch dimensions, with one launch forward and one backward."""
    from fused_attention.kernels import glu

    launched, launch = [], glu._launch

    def watched(kernel, matrices, *rest):
        launched.append(matrices)
        launch(kernel, matrices, *rest)

    monkeypatch.setattr(glu, "_launch", watched)
    h = torch.randn(*shape[:-1], 2 * shape[-1], device=device).requires_grad_()
    gate, up = h.chunk(2, -1)
    y = op(gate, up)
    y.backward(torch.ones_like(y))
    assert len(launched) == 2
    for tensors in (launched[0][:2], launched[1][1:3]):
        assert [x.data_ptr() for x in tensors] == [gate.data_ptr(), up.data_ptr()]


def test_rows_that_are_not_evenly_spaced_are_copied():
    x = torch.randn(4, 3, 10)[:, :2, :5]
    rows = layout.as_rows(x)
    assert rows.data_ptr() != x.data_ptr() and torch.equal(rows, x.reshape(8, 5))


@every_leg
@ops
@pytest.mark.parametrize("gate_dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("up_dtype", FLOATS, ids=name_of)
def test_dtypes_are_promoted_as_torch_promotes_them(device, op, gate_dtype, up_dtype):
    generator = torch.Generator().manual_seed(0)
    gate = torch.randn(5, 12, generator=generator).to(device, gate_dtype).requires_grad_()
    up = torch.randn(5, 12, generator=generator).to(device, up_dtype).requires_grad_()
    y = op(gate, up)
    gradients = torch.autograd.grad(y.sum(), (gate, up))
    assert y.dtype == (gate * up).dtype
    assert [g.dtype for g in gradients] == [gate_dtype, up_dtype]


@every_leg
@ops
@pytest.mark.parametrize("shape", [(), (7,), (0, 4), (4, 0), (2, 1, 1)])
def test_shapes(device, op, shape):
    gate = torch.full(shape, 0.75, device=device).requires_grad_()
    up = torch.full(shape, -1.5, device=device).requires_grad_()
    y = op(gate, up)
    y.sum().backward()
    assert y.shape == gate.grad.shape == up.grad.shape == shape
    one = op(torch.tensor(0.75, device=device), torch.tensor(-1.5, device=device))
    torch.testing.assert_close(y.detach(), one.expand(shape))


X = torch.zeros(2, 3)


@ops
@pytest.mark.parametrize(
    "gate, up, error, words",
    [
        (X, X[:1], ValueError, ["up", "shape of gate", "(2, 3)", "(1, 3)"]),
        (X, X[0], ValueError, ["up", "(2, 3)", "(3,)"]),
        (X, X.to("meta"), ValueError, ["up", "device of gate", "cpu", "meta"]),
        (X.long(), X, TypeError, ["gate", "int64"]),
        (X, X.long(), TypeError, ["up", "int64"]),
        (None, X, TypeError, ["gate", "NoneType"]),
        (X, 1.0, TypeError, ["up", "float"]),
        (X, X.to_sparse(), NotImplementedError, ["up", "sparse"]),
    ],
)
def test_bad_input(op, gate, up, error, words):
    with pytest.raises(error) as raised:
        op(gate, up)
    assert all(word in str(raised.value) for word in words), str(raised.value)
