"""Rotary embedding: what `test_ops` does not test of every op.

Seen failing on: half-split for interleaved and the reverse, the angle's sign, gradients rotated
forward, columns beyond rotary_dim zeroed, positions of the first sequence for all, k at q's head
offsets, heads of the last group left out, a position outside the tables read.
"""

import math

import pytest
import torch

import fused_attention as fa

from ...helpers.budget import distance, largest
from ...helpers.support import FLOATS, LEGS, every_leg, name_of, poisoned

on_triton = pytest.mark.parametrize("device", LEGS[1:])
conventions = pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])

BATCH, HEADS, KV_HEADS, SEQLEN, HEAD_DIM, LENGTH = 2, 11, 2, 19, 24, 64


def randn(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def queries_and_keys(dtype=torch.float32, device="cpu"):
    """q with heads inside the sequence dimension in memory, k with heads outside it."""
    q = randn(BATCH, SEQLEN, HEADS, HEAD_DIM, dtype=dtype, device=device).transpose(1, 2)
    k = randn(BATCH, KV_HEADS, SEQLEN, HEAD_DIM, dtype=dtype, device=device, seed=1)
    return q, k


def oracle(x, cos, sin, interleaved, positions):
    """Rotation as a product of complex numbers in fp64; ``positions``: (batch, seqlen)."""
    half = cos.shape[1]
    turning, rest = x.double()[..., : 2 * half], x[..., 2 * half :].double()
    pairs = turning.unflatten(-1, (half, 2) if interleaved else (2, half))
    if not interleaved:
        pairs = pairs.mT
    turned = torch.complex(pairs[..., 0], pairs[..., 1])
    turned = turned * torch.complex(cos.double(), sin.double())[positions][:, None]
    pairs = torch.view_as_real(turned)
    return torch.cat(((pairs if interleaved else pairs.mT).flatten(-2), rest), -1)


def within_rounding(found, exact, dtype):
    """Whether the error is within the rounding of the result and three roundings in fp32."""
    size = largest(exact.abs())
    band = torch.finfo(dtype).eps / 2 * size + 3 * 2.0**-24 * size * 2**0.5
    return distance(found, exact) <= band


POSITIONS = {
    "default": lambda device: None,
    "shared": lambda device: torch.arange(SEQLEN - 1, -1, -1, device=device),
    "each": lambda device: torch.randint(
        LENGTH, (BATCH, SEQLEN), generator=torch.Generator().manual_seed(3)
    ).to(device),
    "int32": lambda device: torch.arange(7, 7 + SEQLEN, device=device, dtype=torch.int32),
    "strided": lambda device: torch.arange(2 * SEQLEN, device=device)[::2].expand(BATCH, -1),
}


@every_leg
@conventions
@pytest.mark.parametrize("rotary_dim", [HEAD_DIM, 10, 2, 0])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_values_and_gradients(device, interleaved, rotary_dim, positions):
    dtype = FLOATS[(rotary_dim + interleaved) % 3]
    q, k = (x.requires_grad_() for x in queries_and_keys(dtype, device))
    tables = fa.rotary_tables(LENGTH, rotary_dim, device=device)
    positions = positions(device)
    with poisoned():
        found = fa.apply_rotary(q, k, *tables, interleaved=interleaved, positions=positions)
        upstream = [randn(*x.shape, dtype=dtype, device=device, seed=5) for x in found]
        gradients = torch.autograd.grad(found, (q, k), upstream)
    if positions is None:
        positions = torch.arange(SEQLEN, device=device)
    positions = positions.expand(BATCH, SEQLEN)
    cos, sin = tables
    for x, y, dx, dy in zip((q, k), found, gradients, upstream, strict=True):
        assert y.dtype == dx.dtype == dtype
        assert within_rounding(y, oracle(x, cos, sin, interleaved, positions), dtype)
        assert within_rounding(dx, oracle(dy, cos, -sin, interleaved, positions), dtype)
        assert torch.equal(y[..., rotary_dim:], x[..., rotary_dim:])


@every_leg
@conventions
def test_k_may_be_none(device, interleaved):
    q, k = queries_and_keys(device=device)
    tables = fa.rotary_tables(LENGTH, 10, device=device)
    both = fa.apply_rotary(q, k, *tables, interleaved=interleaved)
    alone, none = fa.apply_rotary(q, None, *tables, interleaved=interleaved)
    assert none is None and torch.equal(alone, both[0])


@every_leg
@conventions
def test_packed_sequences(device, interleaved):
    """Packed sequences (tokens, heads, head_dim), each starting at position 0."""
    q, k = (x.transpose(1, 2).flatten(0, 1) for x in queries_and_keys(device=device))
    tables = fa.rotary_tables(LENGTH, 10, device=device)
    positions = torch.arange(SEQLEN, device=device).repeat(BATCH)
    found = fa.apply_rotary(q, k, *tables, interleaved=interleaved, positions=positions)
    expected = fa.apply_rotary(*queries_and_keys(device=device), *tables, interleaved=interleaved)
    for ragged, padded in zip(found, expected, strict=True):
        assert torch.equal(ragged, padded.transpose(1, 2).flatten(0, 1))


@every_leg
@conventions
def test_packed_projection_is_read_in_place(device, interleaved):
    """q and k are slices of a packed projection (batch, seqlen, 3, heads, head_dim)."""
    qkv = randn(BATCH, SEQLEN, 3, HEADS, HEAD_DIM, device=device)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    tables = fa.rotary_tables(LENGTH, HEAD_DIM, device=device)
    found = fa.apply_rotary(q, k, *tables, interleaved=interleaved)
    expected = fa.apply_rotary(q.contiguous(), k.contiguous(), *tables, interleaved=interleaved)
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(x, y)


@every_leg
@conventions
@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64], ids=name_of)
def test_scores_depend_on_distances_alone(device, interleaved, dtype):
    """The property that defines the embedding: scores depend on relative positions."""
    q, k = queries_and_keys(dtype, device)
    tables = fa.rotary_tables(LENGTH, HEAD_DIM, device=device, dtype=torch.float64)
    scores = []
    for offset in (0, 40):
        positions = torch.arange(SEQLEN, device=device) + offset
        turned = fa.apply_rotary(q, k, *tables, interleaved=interleaved, positions=positions)
        scores.append(turned[0][:, :2].double() @ turned[1].double().mT)
    # Each product has two rounded factors, in each of two scores; the squared errors add.
    each = torch.finfo(dtype).eps / 2 + 3 * torch.finfo(torch.promote_types(dtype, q.dtype)).eps
    size = (q[:, :2].double().square() @ k.double().square().mT).sum(-1).max().sqrt()
    assert distance(scores[0], scores[1]) <= 4 * each * size


@on_triton
@conventions
def test_positions_outside_the_tables_read_nothing(device, interleaved):
    """Their results are NaN; the memory around the tables holds 1e9, which would show."""
    q, k = queries_and_keys(device=device)
    cos, sin = (
        torch.cat([torch.full((9, 5), 1e9), x, torch.full((9, 5), 1e9)]).to(device)[9:-9]
        for x in fa.rotary_tables(LENGTH, 10)
    )
    positions = torch.arange(SEQLEN, device=device).repeat(BATCH, 1)
    expected = torch.ops.fused_attention.rotary(q, k, cos, sin, positions, interleaved, False)
    outside = [(0, 3, -1), (0, 5, LENGTH), (1, 0, -9), (1, 18, LENGTH + 8), (1, 9, 2**40)]
    for b, s, position in outside:
        positions[b, s] = position
    found = torch.ops.fused_attention.rotary(q, k, cos, sin, positions, interleaved, False)
    for x, y, whole in zip((q, k), found, expected, strict=True):
        wrong = torch.zeros(BATCH, 1, SEQLEN, 1, dtype=torch.bool, device=device)
        for b, s, _ in outside:
            wrong[b, 0, s] = True
        turned = torch.where(wrong, torch.nan, whole)[..., :10]
        assert torch.equal(y[..., :10].isnan(), turned.isnan())
        assert torch.equal(y[..., :10].nan_to_num(), turned.nan_to_num())
        assert torch.equal(y[..., 10:], x[..., 10:])


def test_positions_outside_the_tables_raise_where_they_can_be_seen():
    q, k = queries_and_keys()
    tables = fa.rotary_tables(LENGTH, 10)
    for position in (-1, LENGTH):
        positions = torch.arange(SEQLEN)
        positions[4] = position
        with pytest.raises(ValueError, match="positions: expected 0 to 63") as raised:
            fa.apply_rotary(q, k, *tables, positions=positions)
        assert str(position) in str(raised.value)


@conventions
def test_every_derivative_on_the_cpu(interleaved):
    cos, sin = fa.rotary_tables(5, 4, dtype=torch.float64)
    q = randn(1, 2, 5, 6, dtype=torch.float64).requires_grad_()
    k = randn(1, 1, 5, 6, dtype=torch.float64, seed=1).requires_grad_()

    def turn(q, k):
        return fa.apply_rotary(q, k, cos, sin, interleaved=interleaved)

    assert torch.autograd.gradcheck(turn, (q, k), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(turn, (q, k))
    batch = torch.randn(3, *q.shape, dtype=q.dtype)
    mapped = torch.func.vmap(lambda x: turn(x, k)[0])(batch)
    assert torch.equal(mapped, torch.stack([turn(x, k)[0] for x in batch]))


@on_triton
def test_double_backward_on_triton(device):
    q, k = (x.requires_grad_() for x in queries_and_keys(device=device))
    tables = fa.rotary_tables(LENGTH, HEAD_DIM, device=device)
    turned, _ = fa.apply_rotary(q, k, *tables)
    (dq,) = torch.autograd.grad(turned.pow(3).sum(), q, create_graph=True)
    (found,) = torch.autograd.grad(dq.sum(), q)
    x = q.detach().double().requires_grad_()
    cube = fa.apply_rotary(x, None, *tables)[0].pow(3).sum()
    (dx,) = torch.autograd.grad(cube, x, create_graph=True)
    (expected,) = torch.autograd.grad(dx.sum(), x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 400, 2**18])
def test_chunks_change_nothing(chunk, monkeypatch):
    from fused_attention.ops.rotary.rotary import torch_backend as rotary_torch

    q, k = queries_and_keys()
    tables = fa.rotary_tables(LENGTH, 10)
    positions = POSITIONS["each"]("cpu")
    whole = fa.apply_rotary(q, k, *tables, positions=positions)
    monkeypatch.setattr(rotary_torch, "_CHUNK", chunk)
    parts = fa.apply_rotary(q, k, *tables, positions=positions)
    for x, y in zip(parts, whole, strict=True):
        assert torch.equal(x, y)


def test_tables():
    cos, sin = fa.rotary_tables(3, 4, 100.0)
    angles = torch.tensor([[0, 0], [1, 0.1], [2, 0.2]], dtype=torch.float64)
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos, angles.cos().float(), rtol=0, atol=2.0**-25)
    torch.testing.assert_close(sin, angles.sin().float(), rtol=0, atol=2.0**-25)


def test_tables_are_accurate_at_large_positions():
    """An angle in fp32 would err by half a unit in its last place, 0.004."""
    cos, sin = fa.rotary_tables(100_001, 128)
    angles = 100_000 * 10_000.0 ** -(torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    assert (cos[-1] - angles.cos()).abs().max() < 2.0**-24
    assert (sin[-1] - angles.sin()).abs().max() < 2.0**-24


def test_scaled_tables():
    """The scaling of Llama 3.1, for each wavelength by the cases of its published code."""
    scaling = fa.RotaryScaling(8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    cos, sin = fa.rotary_tables(2, 128, 500_000.0, scaling=scaling, dtype=torch.float64)
    found, kinds = torch.atan2(sin[1], cos[1]).tolist(), set()
    for i, angle in enumerate(found):
        frequency = 500_000.0 ** (-2 * i / 128)
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            kind, expected = "kept", frequency
        elif wavelength > 8192 / 1:
            kind, expected = "slowed", frequency / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            kind, expected = "mixed", (1 - smooth) * frequency / 8 + smooth * frequency
        kinds.add(kind)
        assert angle == pytest.approx(expected, rel=1e-12)
    assert len(kinds) == 3


def test_linearly_scaled_tables():
    """Linear scaling by 3: every third position has the angles of an unscaled one."""
    plain, scaled = (
        fa.rotary_tables(n, 8, scaling=s) for n, s in ((5, None), (13, fa.RotaryScaling(3.0)))
    )
    for x, y in zip(plain, scaled, strict=True):
        torch.testing.assert_close(x, y[::3], rtol=0, atol=2.0**-24)


Q, K = torch.zeros(2, 4, 6, 8), torch.zeros(2, 2, 6, 8)
COS = torch.ones(10, 3)
P = torch.arange(6)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"q": Q[0, 0]}, ValueError, ["q", "(batch, heads, seqlen, head_dim)", "(6, 8)"]),
        ({"q": Q.long()}, TypeError, ["q", "int64"]),
        ({"q": None}, TypeError, ["q", "NoneType"]),
        ({"k": K.half()}, TypeError, ["k", "dtype of q", "float32", "float16"]),
        ({"k": K[0]}, ValueError, ["k", "(2, 4, 6, 8)", "(2, 6, 8)"]),
        ({"k": K[:1]}, ValueError, ["k", "(1, 2, 6, 8)"]),
        ({"k": K[:, :, :5]}, ValueError, ["k", "(2, 2, 5, 8)"]),
        ({"k": K[..., :4]}, ValueError, ["k", "(2, 2, 6, 4)"]),
        ({"k": K.to("meta")}, ValueError, ["k", "cpu", "meta"]),
        ({"cos": COS[0]}, ValueError, ["cos", "max_positions", "(3,)"]),
        ({"cos": torch.ones(10, 5), "sin": torch.ones(10, 5)}, ValueError, ["cos", "8", "(10, 5)"]),
        ({"cos": COS[:5], "sin": COS[:5], "positions": None}, ValueError, ["cos", "6", "5"]),
        ({"cos": COS.long()}, TypeError, ["cos", "int64"]),
        ({"sin": COS[:9]}, ValueError, ["sin", "(10, 3)", "(9, 3)"]),
        ({"sin": COS.clone().requires_grad_()}, NotImplementedError, ["sin", "detach()"]),
        ({"positions": P.float()}, TypeError, ["positions", "int32", "float32"]),
        ({"positions": P.bool()}, TypeError, ["positions", "bool"]),
        ({"positions": [0] * 6}, TypeError, ["positions", "list"]),
        ({"positions": P[:5]}, ValueError, ["positions", "(6,) or (2, 6)", "(5,)"]),
        ({"positions": P.expand(3, 6)}, ValueError, ["positions", "(2, 6)", "(3, 6)"]),
        ({"positions": P.to("meta")}, ValueError, ["positions", "cpu", "meta"]),
    ],
)
def test_bad_input(change, error, words):
    given = {"q": Q, "k": K, "cos": COS, "sin": COS, "positions": P} | change
    positions = given.pop("positions")
    with pytest.raises(error) as raised:
        fa.apply_rotary(*given.values(), positions=positions)
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize(
    "arguments, word",
    [((-1, 4), "length"), ((4, 3), "rotary_dim"), ((4, -2), "rotary_dim"), ((4, 2, 0), "base")],
)
def test_bad_tables(arguments, word):
    with pytest.raises(ValueError, match=word):
        fa.rotary_tables(*arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0.5,), "factor: expected 1 or more, got 0.5"),
        ((math.nan,), "factor: expected 1 or more, got nan"),
        ((2.0, 0), "original_length: expected 1 or more, got 0"),
        ((2.0, 8, 4.0, 4.0), "high_freq_factor: expected more than low_freq_factor, 4.0, got 4.0"),
    ],
)
def test_bad_scalings(arguments, message):
    with pytest.raises(ValueError, match=message):
        fa.RotaryScaling(*arguments)
