"""The tensors of a decoding step, and the memory traffic that it needs at least."""

from dataclasses import dataclass

import torch

from .point import DecodePoint

SCALE_BYTES = 4
QUANTIZED = ("int8", "float8_e4m3fn")
BYTES = (
    "the memory traffic that every implementation has at least: the keys and values of all tokens, "
    "in the dtype they are stored in, and their scales, read once; q read and the output written "
    "once"
)


@dataclass(frozen=True)
class DecodeProblem:
    """q, k and v in the dtype of the model; the last token of each sequence is the new one."""

    point: DecodePoint
    q: torch.Tensor  # (batch, heads, context + 1, head_dim)
    k: torch.Tensor  # (batch, kv_heads, context + 1, head_dim)
    v: torch.Tensor

    @property
    def new(self) -> tuple[torch.Tensor, ...]:
        """q, k and v of the new tokens, (batch, heads, 1, head_dim)."""
        return tuple(x[:, :, -1:] for x in (self.q, self.k, self.v))


def make_problem(point: DecodePoint) -> DecodeProblem:
    """Standard normal tensors. Zeros would not do: some hardware multiplies them faster."""
    generator = torch.Generator(point.device).manual_seed(point.seed)
    dtype = getattr(torch, point.dtype)

    def normal(heads):
        size = (point.batch, heads, point.context + 1, point.head_dim)
        return torch.randn(size, generator=generator, dtype=dtype, device=point.device)

    return DecodeProblem(point, normal(point.heads), normal(point.kv_heads), normal(point.kv_heads))


def least_bytes(point: DecodePoint) -> int:
    stored = getattr(torch, point.kv_dtype).itemsize * point.head_dim
    stored += SCALE_BYTES if point.kv_dtype in QUANTIZED else 0
    tokens = point.batch * (point.context + 1)
    model = getattr(torch, point.dtype).itemsize
    return 2 * tokens * point.kv_heads * stored + 2 * point.batch * point.heads * (
        point.head_dim * model
    )
