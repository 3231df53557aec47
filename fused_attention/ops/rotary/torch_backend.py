"""Rotary position embedding in PyTorch operations."""

from __future__ import annotations

import torch

# Elements of a chunk of positions, few enough that the temporaries stay in the CPU's cache.
_CHUNK = 2**20


def rotary(q, k, q_out, k_out, cos, sin, positions, interleaved: bool, inverse: bool) -> None:
    """Fill ``q_out`` and ``k_out``."""
    cos, sin = rows(cos, sin, positions, q.shape[2])
    sin = -sin if inverse else sin
    q_out.copy_(rotated(q, cos, sin, interleaved))
    k_out.copy_(rotated(k, cos, sin, interleaved))


def rows(cos, sin, positions, seqlen: int):
    """The rows of both tables at the positions, (batch or 1, 1, seqlen, rotary_dim // 2)."""
    if positions is None:
        return cos[None, None, :seqlen], sin[None, None, :seqlen]
    batch = positions.shape[0] if positions.ndim == 2 else 1
    shape = (batch, 1, seqlen, cos.shape[1])
    return tuple(x.index_select(0, positions.flatten()).view(shape) for x in (cos, sin))


def rotated(x, cos, sin, interleaved: bool):
    """``x``, (batch, heads, seqlen, head_dim), rotated by tables from `rows`, in fp32 or fp64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    cos, sin = cos.to(dtype), sin.to(dtype)
    half = cos.shape[-1]
    turning, rest = x[..., : 2 * half].to(dtype), x[..., 2 * half :]
    if interleaved:
        x1, x2 = turning[..., 0::2], turning[..., 1::2]
    else:
        x1, x2 = turning[..., :half], turning[..., half:]
    y1 = torch.addcmul(x1 * cos, x2, sin, value=-1).to(x.dtype)
    y2 = torch.addcmul(x2 * cos, x1, sin).to(x.dtype)
    if interleaved:
        return torch.cat((torch.stack((y1, y2), -1).flatten(-2), rest), -1)
    return torch.cat((y1, y2, rest), -1)


def rotate(x, cos, sin, interleaved: bool):
    """`rotated` in chunks; the gradient is rotated back, in half the time of autograd's."""
    if torch.compiler.is_compiling():
        return rotated(x, cos, sin, interleaved)
    if not torch.is_grad_enabled():  # skip the 60 us that apply() takes
        return _Rotation.forward(x, cos, sin, interleaved)
    return _Rotation.apply(x, cos, sin, interleaved)


class _Rotation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, cos, sin, interleaved):
        batch, heads, _, head_dim = x.shape
        positions = max(1, _CHUNK // max(1, batch * heads * head_dim))
        chunks = zip(*(tensor.split(positions, 2) for tensor in (x, cos, sin)), strict=True)
        turned = [rotated(*chunk, interleaved) for chunk in chunks]
        return turned[0] if len(turned) == 1 else torch.cat(turned, 2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, cos, sin, ctx.interleaved = inputs
        ctx.save_for_backward(cos, sin)
        ctx.save_for_forward(cos, sin)

    @staticmethod
    def backward(ctx, dy):
        if torch._C._functorch.is_legacy_batchedtensor(dy):
            raise NotImplementedError(
                "apply_rotary: is_grads_batched is not implemented; "
                "torch.func.vmap of torch.func.vjp has it"
            )
        cos, sin = ctx.saved_tensors
        return _Rotation.apply(dy, cos, -sin, ctx.interleaved), None, None, None

    @staticmethod
    def jvp(ctx, dx, *_):
        return _Rotation.apply(dx, *ctx.saved_tensors, ctx.interleaved)
