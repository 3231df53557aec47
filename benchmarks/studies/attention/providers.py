"""The implementations of attention that are compared: one function each.

A provider takes a `Workload` and returns what to call, or raises `Unsupported` with the reason. The
command line takes a user's own provider as `module:function`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import fused_attention as fa
from fused_attention.ops.attention.sdpa_mask import sdpa_mask
from fused_attention.variants.base import Shape

from ...harness.isolate import Unsupported
from ...harness.lookup import lookup
from .variants import AttentionShape, Term, build

CUDA_ONLY = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)


@dataclass(frozen=True)
class Workload:
    """One attention problem as a provider sees it."""

    shape: AttentionShape
    terms: tuple[Term, ...]
    mode: str
    dtype: torch.dtype
    device: str

    @property
    def variants(self) -> tuple:
        return build(self.terms, self.shape, self.device)


@dataclass(frozen=True)
class PreparedCall:
    """call(q, k, v) -> output. `tensors`, such as masks, count as memory of the provider."""

    call: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    tensors: tuple[torch.Tensor, ...] = ()
    compiled: bool = False


def naive(workload: Workload) -> PreparedCall:
    variants = workload.variants
    return PreparedCall(lambda q, k, v: fa.reference.attention(q, k, v, variants).out)


def fused(workload: Workload) -> PreparedCall:
    variants = workload.variants
    return PreparedCall(lambda q, k, v: fa.attention(q, k, v, variants))


def sdpa(workload: Workload, backend: SDPBackend | None = None) -> PreparedCall:
    """torch's scaled_dot_product_attention, with the backend of its choice or one pinned."""
    if backend in CUDA_ONLY and workload.device != "cuda":
        raise Unsupported(f"SDPA's {backend.name} backend needs CUDA")
    shape = workload.shape
    is_causal = [term.name for term in workload.terms] == ["causal"] and shape.seq_q == shape.seq_k
    mask = None if is_causal else _sdpa_mask(workload)
    options = {
        "attn_mask": mask,
        "is_causal": is_causal,
        "enable_gqa": shape.heads != shape.kv_heads,
    }

    def pinned(q, k, v):
        with sdpa_kernel([backend]):
            try:
                return F.scaled_dot_product_attention(q, k, v, **options)
            except RuntimeError as error:
                if "no available kernel" in str(error).lower():
                    raise Unsupported(f"SDPA's {backend.name} backend cannot do this") from error
                raise

    call = pinned if backend else partial(F.scaled_dot_product_attention, **options)
    return PreparedCall(call, () if mask is None else (mask,))


def _sdpa_mask(workload: Workload) -> torch.Tensor | None:
    shape = workload.shape
    call = Shape(shape.batch, shape.heads, shape.seq_q, shape.seq_k, workload.device)
    try:
        return sdpa_mask(call, workload.variants, workload.dtype)
    except NotImplementedError as error:
        raise Unsupported(str(error)) from error


def flex(workload: Workload) -> PreparedCall:
    """FlexAttention, compiled: its eager form would hold every score."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if workload.device == "cpu" and workload.mode != "forward":
        raise Unsupported("FlexAttention has no backward on CPU")
    shape, variants = workload.shape, workload.variants
    masks = [variant for variant in variants if variant.type.mask is not None]
    scores = [variant for variant in variants if variant.type.score is not None]
    lengths, offset = (shape.seq_q, shape.seq_k), shape.seq_k - shape.seq_q

    def mask_mod(b, h, q_idx, kv_idx):
        seen = True
        for variant in masks:
            args = _at(variant.args, b, h, q_idx, kv_idx)
            seen = seen & variant.type.torch_mask(b, h, q_idx + offset, kv_idx, *lengths, args)
        return seen

    def score_mod(score, b, h, q_idx, kv_idx):
        for variant in scores:
            args = _at(variant.args, b, h, q_idx, kv_idx)
            where = (b, h, q_idx + offset, kv_idx, *lengths)
            score = variant.type.torch_score(score, *where, args)
        return score

    block_mask = None
    if masks:
        batch = shape.batch if any(variant.type.batched_bounds for variant in masks) else None
        block_mask = create_block_mask(mask_mod, batch, None, *lengths, device=workload.device)
    call = partial(
        torch.compile(flex_attention, dynamic=False),
        score_mod=score_mod if scores else None,
        block_mask=block_mask,
        enable_gqa=shape.heads != shape.kv_heads,
    )
    tables = block_mask.as_tuple() if masks else ()
    return PreparedCall(call, tuple(t for t in tables if torch.is_tensor(t)), compiled=True)


def _at(args: tuple, *where) -> tuple:
    """Arguments with 4-D tensors read at one score: the mods of FlexAttention take scalars."""
    return tuple(
        arg[tuple(i if n > 1 else 0 for i, n in zip(where, arg.shape, strict=True))]
        if isinstance(arg, torch.Tensor) and arg.ndim == 4
        else arg
        for arg in args
    )


PROVIDERS: dict[str, Callable[[Workload], PreparedCall]] = {
    "naive": naive,
    "sdpa": sdpa,
    "sdpa:math": partial(sdpa, backend=SDPBackend.MATH),
    "sdpa:flash": partial(sdpa, backend=SDPBackend.FLASH_ATTENTION),
    "sdpa:efficient": partial(sdpa, backend=SDPBackend.EFFICIENT_ATTENTION),
    "sdpa:cudnn": partial(sdpa, backend=SDPBackend.CUDNN_ATTENTION),
    "flex": flex,
    "fused": fused,
}


def find(name: str) -> Callable[[Workload], PreparedCall]:
    """A provider by name; ValueError if there is none."""
    return lookup("provider", name, PROVIDERS)
