"""The attention sink `fa.sink`: its meaning; test_attention.py checks its error budget."""

import pytest
import torch

import fused_attention as fa

from ...helpers.support import every_leg


def tensors(device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8), (4,))
    return [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]


@every_leg
def test_a_sink_is_a_key_whose_value_is_zero(device):
    """A sink equals one more key of zeros, with the logit as its bias and a value of zero."""
    q, k, v, logits = tensors(device)
    out, lse = fa.attention(q, k, v, fa.sink(logits), return_lse=True)
    longer = [torch.cat([x, torch.zeros_like(x[:, :, :1])], 2) for x in (k, v)]
    bias = torch.zeros(1, 4, 1, 8, device=device)
    bias[0, :, 0, 7] = logits
    expected = fa.attention(q, *longer, fa.bias(bias), return_lse=True)
    torch.testing.assert_close(out, expected[0])
    torch.testing.assert_close(lse, expected[1])


@every_leg
def test_a_row_that_sees_no_key_sees_its_sink(device):
    q, k, v, logits = (x.requires_grad_() for x in tensors(device))
    variants = (fa.causal(), fa.sink(logits))
    out, lse = fa.attention(q, k[:, :, :2], v[:, :, :2], variants, return_lse=True)
    assert not out[:, :, :3].any()
    assert torch.equal(lse[:, :, :3], logits[:, None].expand(2, 4, 3))
    gradients = torch.autograd.grad(out.sum() + lse.sum(), (q, k, v, logits))
    assert all(x.isfinite().all() for x in gradients)
    assert not gradients[0][:, :, :3].any()


def test_gradcheck():
    q, k, v, logits = (x.requires_grad_() for x in tensors(dtype=torch.float64))
    bias = torch.randn(1, 4, 5, 7, dtype=torch.float64, requires_grad=True)

    def attend(q, k, v, logits, bias):
        variants = (fa.bias(bias), fa.sink(logits), fa.causal())
        return fa.attention(q, k, v, variants, return_lse=True)

    torch.autograd.gradcheck(attend, (q, k, v, logits, bias))


@every_leg
def test_two_sinks_are_one_with_the_sum_of_their_weights(device):
    q, k, v, logits = tensors(device)
    both = torch.logaddexp(logits, -logits)
    found = fa.attention(q, k, v, (fa.sink(logits), fa.sink(-logits)), return_lse=True)
    for x, y in zip(found, fa.attention(q, k, v, fa.sink(both), return_lse=True), strict=True):
        torch.testing.assert_close(x, y)


def test_weights_of_the_reference_leave_room_for_the_sink():
    q, k, v, logits = tensors()
    found = fa.reference.attention(q, k, v, fa.sink(logits), return_weights=True)
    assert found.weights.shape == (2, 4, 5, 7)
    rest = torch.exp(logits[:, None] - found.lse)
    torch.testing.assert_close(found.weights.sum(-1) + rest, torch.ones(2, 4, 5))


def test_compile():
    torch._dynamo.reset()
    q, k, v, logits = tensors()

    def attend(logits):
        return fa.attention(q, k, v, (fa.sink(logits), fa.causal()))

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits), attend(logits))


def test_bad_logits():
    q, k, v, logits = tensors()
    with pytest.raises(TypeError, match="logits: expected a tensor, got list"):
        fa.sink([0.5])
    with pytest.raises(TypeError, match=r"logits: expected a floating dtype, got torch\.int64"):
        fa.sink(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"logits: expected shape \(heads,\), got \(4, 1\)"):
        fa.sink(logits[:, None])
    with pytest.raises(ValueError, match=r"logits: expected shape \(4,\).*got \(3,\)"):
        fa.attention(q, k, v, fa.sink(logits[:3]))
    with pytest.raises(ValueError, match="logits: expected device cpu, got meta"):
        fa.attention(q, k, v, fa.sink(logits.to("meta")))
