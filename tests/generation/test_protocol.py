"""`generate` needs nothing of a model but the members of `CausalLM`."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

import fused_attention as fa
from fused_attention.generation import generate

HEADS, HEAD_DIM, VOCAB, DIM = 2, 8, 50, 16


class MinimalModel(nn.Module):
    """Embeddings, one layer of causal attention and a projection; no part of `fa.models`."""

    attention = "fused"
    max_positions = None
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            vocab_size=VOCAB, num_layers=1, num_kv_heads=HEADS, head_dim=HEAD_DIM, window=None
        )
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(VOCAB, DIM, generator=generator))
        self.qkv = nn.Parameter(torch.randn(3 * HEADS * HEAD_DIM, DIM, generator=generator))
        self.head = nn.Parameter(torch.randn(VOCAB, DIM, generator=generator))

    def project(self, input_ids):
        """q, k and v, (..., heads, head_dim) each."""
        return F.linear(self.table[input_ids], self.qkv).unflatten(-1, (-1, HEAD_DIM)).chunk(3, -2)

    def hidden(self, input_ids, *, cache, step):
        q, k, v = self.project(input_ids)
        return self.table[input_ids] + cache.attend(0, q, k, v, step).flatten(-2)

    def logits(self, hidden):
        return F.linear(hidden, self.head)

    def recomputed(self, prompt, count):
        """Greedy tokens without a cache."""
        tokens = list(prompt)
        for _ in range(count):
            ids = torch.tensor([tokens])
            q, k, v = (t.transpose(1, 2) for t in self.project(ids))
            out = fa.reference.attention(q, k, v, (fa.causal(),)).out.transpose(1, 2).flatten(-2)
            tokens.append(self.logits(self.table[ids] + out)[0, -1].argmax().item())
        return tokens[len(prompt) :]


def test_a_model_that_is_not_a_gpt():
    model, draft = MinimalModel(0), MinimalModel(1)
    prompts = [[3, 1, 4], [1] * 70]
    expected = [model.recomputed(prompt, 9) for prompt in prompts]
    assert len({token for tokens in expected for token in tokens}) > 4
    assert generate(model, prompts, 9, temperature=0) == expected
    assert generate(model, prompts, 9, temperature=0, draft=draft) == expected
    sampled = generate(model, [[5]], 9, temperature=5.0, num_return_sequences=3, seed=0)
    assert len(set(map(tuple, sampled))) == 3
