"""Speculative decoding saves steps and changes nothing else."""

from random import Random

import pytest
import torch

from fused_attention.generation.decoder import Decoder
from fused_attention.generation.sampling import sample, verify

from .chi_square import check_counts
from .models import make, recomputed


def test_a_good_draft_saves_steps(monkeypatch):
    """12 tokens after the first, 4 per step: 3 that were drafted, and the one after them."""
    steps = []
    predict_all = Decoder.predict_all

    def counted(self, sequences, drafts):
        steps.append([len(draft) for draft in drafts])
        return predict_all(self, sequences, drafts)

    monkeypatch.setattr(Decoder, "predict_all", counted)
    model = make(max_seq_len=64)
    model.generate([[1, 2, 3]], 13, temperature=0, draft=model, num_draft_tokens=3)
    assert steps == [[3], [3], [3]]
    steps.clear()
    model.generate([[1, 2, 3]], 3, temperature=0, draft=model, num_draft_tokens=3)
    assert steps == [[1]], "a draft is no longer than what may be used of it"


@pytest.mark.parametrize("window", [0, 3])
def test_a_wrong_draft_starts_over_behind_its_window(window):
    """Pages of 64 leave the window while it drafts; when it was wrong, it has to start over."""
    model = make(max_seq_len=150, num_layers=1)
    draft = make(3, max_seq_len=150, num_layers=1, window=window)
    prompts = [[i % 50 for i in range(length)] for length in range(56, 66)]
    found = model.generate(prompts, 12, temperature=0, draft=draft, num_draft_tokens=6)
    assert found == [recomputed(model, prompt, 12) for prompt in prompts]


@pytest.mark.parametrize("drafts", [0, 1, 2])
def test_verify_keeps_the_distribution_of_the_target(drafts):
    """Whatever the draft, the first token is distributed as p."""
    generator = torch.Generator().manual_seed(drafts)
    p = torch.rand(3, 4, generator=generator, dtype=torch.float64).pow(2)
    q = torch.rand(2, 4, generator=generator, dtype=torch.float64).pow(2)
    p[0, 1] = q[0, 2] = 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    rng, first, kept = Random(0), [], []
    for _ in range(4000):
        draft = [sample(q[i : i + 1], [rng])[0] for i in range(drafts)]
        count, row = verify(draft, q[:drafts], p[: drafts + 1], rng)
        first.append([*draft[:count], *sample(row[None], [rng])][0])
        kept.append(count)
    check_counts(first, {t: x for t, x in enumerate(p[0].tolist()) if x})
    if drafts:  # Leviathan et al. 2023, theorem 3.5: the overlap of p and q
        overlap = torch.minimum(p[0], q[0]).sum().item()
        check_counts([count > 0 for count in kept], {True: overlap, False: 1 - overlap})
