"""Rotary position embedding: the public functions and their registered operator."""

from __future__ import annotations

import torch

from .. import backend
from ..checks import check_floating, check_index_range, check_index_type, check_same_device
from ..layout import empty_like
from ..registration import define
from ..transforms import refuse_forward_mode
from . import torch_backend
from .scaling import RotaryScaling


def rotary_tables(
    length: int,
    rotary_dim: int,
    base: float = 10000.0,
    *,
    scaling: RotaryScaling | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for `apply_rotary`, (length, rotary_dim // 2) each.

    At position p, pair i is rotated by the angle ``p / base ** (2 i / rotary_dim)``, in radians; a
    ``scaling`` makes angles smaller.  Angles are computed in fp64: in fp32, an angle at position
    100,000 would be wrong by up to 0.004.

    Raises:
        ValueError: ``length`` is negative, ``rotary_dim`` negative or odd, ``base`` not positive.
    """
    if length < 0:
        raise ValueError(f"length: expected 0 or more, got {length}")
    if rotary_dim < 0 or rotary_dim % 2:
        raise ValueError(f"rotary_dim: expected an even number, 0 or more, got {rotary_dim}")
    if not base > 0:
        raise ValueError(f"base: expected a positive number, got {base}")
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float64, device="cpu") / rotary_dim
    positions = torch.arange(length, dtype=torch.float64, device="cpu")
    frequencies = base**-exponents
    frequencies = frequencies if scaling is None else scaling.slowed(frequencies)
    angles = torch.outer(positions, frequencies)
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def apply_rotary(
    q: torch.Tensor,
    k: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    interleaved: bool = False,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rotate pairs of columns of ``q`` and ``k`` by the angles of their positions, in one pass.

    ``(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)``, computed in fp32.  Su et al. 2021,
    arXiv 2104.09864.

    Args:
        q: (batch, heads, seqlen, head_dim), or (tokens, heads, head_dim) for packed sequences;
            fp16, bf16, fp32 or fp64.  Any strides with a contiguous last dimension are read in
            place.
        k: as q, with any number of heads, or None.
        cos, sin: (max_positions, rotary_dim // 2), as from `rotary_tables`.  The columns of
            head_dim beyond rotary_dim pass through unchanged.
        interleaved: which columns form a pair.  False: i and i + rotary_dim // 2 (GPT-NeoX, Llama,
            Hugging Face).  True: 2 i and 2 i + 1 (GPT-J, the paper).
        positions: rows of the tables, int32 or int64; (seqlen,) or (batch, seqlen), or (tokens,)
            for packed sequences.  0, 1, 2, ... by default.

    Returns:
        ``q`` and ``k`` rotated, new tensors; None for a ``k`` of None.

    The backward pass rotates the gradients back; it saves only the tables and positions.

    Positions outside the tables raise ValueError on the CPU, except under ``torch.compile``.  On a
    GPU, where a check would wait for the device, they read no memory and the rotated columns are
    NaN.

    Raises:
        ValueError: shapes or devices that do not fit, positions outside the tables.
        TypeError: dtypes that do not fit, an argument that is no tensor.
        NotImplementedError: tables that require gradients; on a GPU, forward-mode derivatives.
    """
    _check(q, k, cos, sin, positions)
    if q.ndim == 3:
        q, k = (x if x is None else x.transpose(0, 1)[None] for x in (q, k))
        rotated = _apply(q, k, cos, sin, interleaved, positions)
        return tuple(x if x is None else x[0].transpose(0, 1) for x in rotated)
    return _apply(q, k, cos, sin, interleaved, positions)


def _apply(q, k, cos, sin, interleaved, positions):
    if not backend.uses_triton(q):
        cos, sin = torch_backend.rows(cos, sin, positions, q.shape[2])
        return tuple(
            x if x is None else torch_backend.rotate(x, cos, sin, interleaved) for x in (q, k)
        )
    refuse_forward_mode("apply_rotary", "the same on the CPU", q, k)
    rotated = _rotary(q, q[:, :0] if k is None else k, cos, sin, positions, interleaved, False)
    return rotated[0], None if k is None else rotated[1]


def _check(q, k, cos, sin, positions):
    named = {"q": q, "cos": cos, "sin": sin} | ({} if k is None else {"k": k})
    for name, x in named.items():
        check_floating(name, x)
        check_same_device(name, x, "q", q)
    if q.ndim not in (3, 4):
        raise ValueError(
            "q: expected 4 dimensions (batch, heads, seqlen, head_dim) or 3 (tokens, heads, "
            f"head_dim), got shape {tuple(q.shape)}"
        )
    if k is not None:
        _check_keys(q, k)
    if cos.ndim != 2 or 2 * cos.shape[1] > q.shape[-1]:
        raise ValueError(
            "cos: expected 2 dimensions (max_positions, rotary_dim // 2) with rotary_dim up to the "
            f"head_dim of q, {q.shape[-1]}, got shape {tuple(cos.shape)}"
        )
    if sin.shape != cos.shape:
        raise ValueError(
            f"sin: expected the shape of cos, {tuple(cos.shape)}, got {tuple(sin.shape)}"
        )
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        raise NotImplementedError(
            "cos, sin: gradients for the tables are not implemented; detach() them"
        )
    batch, seqlen = (q.shape[0], q.shape[2]) if q.ndim == 4 else (None, q.shape[0])
    _check_positions(positions, batch, seqlen, cos)


def _check_keys(q, k):
    if k.dtype != q.dtype:
        raise TypeError(f"k: expected the dtype of q, {q.dtype}, got {k.dtype}")
    want = list(q.shape)
    if k.ndim == q.ndim:
        want[1] = k.shape[1]  # heads, in either layout
    if list(k.shape) != want:
        raise ValueError(
            f"k: expected the shape of q, {tuple(q.shape)}, but for the number of heads, "
            f"got {tuple(k.shape)}"
        )


def _check_positions(positions, batch, seqlen, cos):
    length = cos.shape[0]
    if positions is None:
        if seqlen > length:
            raise ValueError(
                f"cos: expected at least as many rows as q has positions, {seqlen}, got {length}"
            )
        return
    check_index_type("positions", positions)
    shapes = [(seqlen,)] if batch is None else [(seqlen,), (batch, seqlen)]
    if tuple(positions.shape) not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"positions: expected shape {expected}, got {tuple(positions.shape)}")
    if positions.device != cos.device:
        raise ValueError(
            f"positions: expected the device of q, {cos.device}, got {positions.device}"
        )
    check_index_range("positions", positions, length, ", rows of cos")


def _forward(q, k, cos, sin, positions, interleaved, inverse):
    q_out, k_out = _fake(q, k, cos, sin, positions, interleaved, inverse)
    if cos.shape[1] == 0:
        return q_out.copy_(q), k_out.copy_(k)
    backend.of("rotary", q).rotary(q, k, q_out, k_out, cos, sin, positions, interleaved, inverse)
    return q_out, k_out


def _fake(q, k, cos, sin, positions, interleaved, inverse):
    return empty_like(q, q.shape[3]), empty_like(k, k.shape[3])


def _setup_context(ctx, inputs, output):
    *_, cos, sin, positions, ctx.interleaved, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin, positions)


def _autograd(ctx, dq, dk):
    turned = _rotary(dq, dk, *ctx.saved_tensors, ctx.interleaved, not ctx.inverse)
    return *turned, None, None, None, None, None


_rotary = define(
    "rotary(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? positions, bool interleaved, "
    "bool inverse) -> (Tensor q_out, Tensor k_out)",
    _forward,
    _fake,
    autograd=_autograd,
    setup_context=_setup_context,
)
