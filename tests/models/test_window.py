"""A window limits how far back a causal model sees; `test_backends` covers its numbers."""

import pytest
import torch

import fused_attention as fa
from fused_attention.models import BERT, GPT

from .cases import config, ids


@pytest.mark.parametrize("attention", ["fused", "naive", "sdpa"])
def test_keys_outside_the_window_are_not_seen(attention):
    """One layer looks back 3 tokens, two layers 6."""
    torch.manual_seed(0)
    model = GPT(config(position="rotary", window=3), attention=attention).eval()
    before = ids(1, 12)
    after = before.clone()
    after[0, 2] = (after[0, 2] + 1) % 50
    changed = (model(before) != model(after)).any(-1)[0].tolist()
    assert changed == [2 <= i <= 8 for i in range(12)]


def test_misuse():
    with pytest.raises(ValueError, match="window: expected None, 0 or more, got -1"):
        config(window=-1)
    with pytest.raises(ValueError, match="window: expected None without a causal mask"):
        BERT(config(window=3))
    cache = fa.PagedKVCache(
        num_layers=2,
        num_kv_heads=4,
        head_dim=8,
        num_blocks=1,
        page_size=16,
        dtype=torch.float32,
        max_seqs=1,
        max_seq_len=16,
    )
    model = GPT(config(window=3))
    with (
        pytest.raises(ValueError, match="cache: expected window 3, the model's, got None"),
        cache.step([cache.new()], 2) as step,
    ):
        model(ids(2), cache=cache, step=step)
