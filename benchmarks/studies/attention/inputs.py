"""The inputs of attention, and the evaluation of a provider on them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .variants import AttentionShape


@dataclass(frozen=True)
class AttentionInputs:
    """q (B, H, Lq, D), k and v (B, Hkv, Lk, D), and the gradient of the output."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    d_out: torch.Tensor

    @property
    def leaves(self) -> tuple[torch.Tensor, ...]:
        return (self.q, self.k, self.v)

    def last_rows(self, count: int) -> "AttentionInputs":
        """The inputs with the last queries alone. Masks are aligned with the last key."""
        return AttentionInputs(self.q[:, :, -count:], self.k, self.v, self.d_out[:, :, -count:])

    def to(self, dtype: torch.dtype) -> "AttentionInputs":
        return AttentionInputs(*(t.to(dtype) for t in (*self.leaves, self.d_out)))


def make_inputs(
    shape: AttentionShape, dtype: torch.dtype, device: str, seed: int
) -> AttentionInputs:
    """Standard normal inputs. Zeros would not do: some hardware multiplies them faster."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(heads, length):
        size = (shape.batch, heads, length, shape.head_dim)
        return torch.randn(size, generator=generator, dtype=dtype, device=device)

    return AttentionInputs(
        q=normal(shape.heads, shape.seq_q),
        k=normal(shape.kv_heads, shape.seq_k),
        v=normal(shape.kv_heads, shape.seq_k),
        d_out=normal(shape.heads, shape.seq_q),
    )


def evaluate(call: Callable, inputs: AttentionInputs, gradients: bool) -> tuple[torch.Tensor, ...]:
    """The output, and with `gradients` also those of q, k and v."""
    if not gradients:
        with torch.no_grad():
            return (call(*inputs.leaves),)
    leaves = tuple(t.detach().requires_grad_() for t in inputs.leaves)
    out = call(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, inputs.d_out))
