"""Small models to generate from, caches for them, and greedy generation without a cache."""

import torch

import fused_attention as fa
from fused_attention.models import GPT

from ..models.cases import config


def make(seed=0, spread=0.3, **options) -> GPT:
    """A GPT with parameters spread so far that it does not repeat one token."""
    torch.manual_seed(seed)
    model = GPT(config(**options)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += spread * torch.randn(p.shape, generator=generator)
    return model


@torch.no_grad()
def recomputed(model, prompt, count, stop=()):
    """Greedy tokens without a cache: each step computes the whole sequence, naively."""
    before, model.attention = model.attention, "naive"
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(model(torch.tensor([tokens]))[0, -1].argmax().item())
        if tokens[-1] in stop:
            break
    model.attention = before
    return tokens[len(prompt) :]


def cache_of(model, num_blocks, max_seqs, page_size=16, **options):
    c = model.config
    return fa.PagedKVCache(
        num_layers=c.num_layers,
        num_kv_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        num_blocks=num_blocks,
        page_size=page_size,
        dtype=torch.float32,
        window=c.window,
        max_seqs=max_seqs,
        max_seq_len=100,
        **options,
    )
