"""Objectives and their batches, overfitting one batch with every model, initial parameters."""

import math

import pytest
import torch
import torch.nn.functional as F

from fused_attention import objectives
from fused_attention.models import BERT, GPT, Seq2Seq, TransformerXL, ViT
from fused_attention.objectives import (
    IGNORED,
    MaskedTokens,
    NextToken,
    SpanCorruption,
    masked_token_loss,
    next_token_loss,
    span_corruption_loss,
)

from .cases import config

SENTENCES = [
    torch.randint(2, 40, (n,), generator=torch.Generator().manual_seed(n)) for n in (13, 9, 12)
]


def gpt():
    batch = NextToken()(SENTENCES)
    return GPT(config(position="rotary")), lambda m: next_token_loss(m, **batch)


def transformer_xl():
    batch = NextToken()(SENTENCES)
    first, second = ({k: v[:, part] for k, v in batch.items()} for part in (slice(6), slice(6, 12)))

    def loss(model):
        before, memory = next_token_loss(model, **first, memory=())
        return (before + next_token_loss(model, **second, memory=memory)[0]) / 2

    return TransformerXL(config(position="xl", prenorm=False)), loss


def bert():
    batch = MaskedTokens(mask_id=1, vocab_size=50)(SENTENCES)
    model = BERT(config(prenorm=False, embedding_norm=True), mlm_head=True)
    return model, lambda m: masked_token_loss(m, **batch)


def seq2seq():
    batch = SpanCorruption(sentinel=49, density=0.3)(SENTENCES)
    model = Seq2Seq(config(position="t5", activation="swiglu", norm="rms"))
    return model, lambda m: span_corruption_loss(m, **batch)


def vit():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6)
    model = ViT(config(image_size=8, patch_size=4, num_classes=6))
    return model, lambda m: F.cross_entropy(m(images), labels)


@pytest.mark.parametrize("make", [gpt, transformer_xl, bert, seq2seq, vit])
def test_overfits_one_batch(make):
    torch.manual_seed(0)
    model, loss_of = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    start = loss_of(model).item()
    for _ in range(80):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert start > 1.5 and loss_of(model) < 0.02


@pytest.mark.parametrize("make", [gpt, bert, seq2seq])
def test_losses_against_logits(make, monkeypatch):
    """The fused loss equals that from logits, with the same gradients."""

    def unfused_loss(x, weight, target, bias=None):
        return F.cross_entropy(F.linear(x, weight, bias).flatten(0, -2), target.flatten())

    results = []
    for unfused in (False, True):
        torch.manual_seed(0)
        model, loss_of = make()
        if unfused:
            monkeypatch.setattr(objectives, "linear_cross_entropy", unfused_loss)
        model.double()
        loss = loss_of(model)
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_next_tokens():
    batch = NextToken(pad_id=7)([[1, 2, 3, 4], [5, 6]])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [5, 7, 7]]
    assert batch["labels"].tolist() == [[2, 3, 4], [6, IGNORED, IGNORED]]


def test_masked_tokens():
    """15 % of the tokens that are not special: 80 % masked, 10 % random, 10 % kept.

    Counts within five standard deviations.
    """
    vocab = 1000
    tokens = torch.randint(10, vocab, (400, 100), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 2, 3
    collate = MaskedTokens(mask_id=4, vocab_size=vocab, special_ids=(2, 3), seed=5)
    batch = collate(tokens)
    chosen = batch["labels"] != IGNORED
    assert (chosen.sum(1) == round(0.15 * 98)).all()
    assert not chosen[:, 0].any() and not chosen[:, -1].any()
    assert torch.equal(batch["labels"][chosen], tokens[chosen])
    assert torch.equal(batch["input_ids"][~chosen], tokens[~chosen])
    inputs, labels, total = batch["input_ids"][chosen], batch["labels"][chosen], chosen.sum()
    masked, kept = inputs == 4, inputs == labels
    for fate, p in ((masked, 0.8), (kept, 0.1 + 0.1 / vocab), (~masked & ~kept, 0.1)):
        assert abs(fate.sum() - p * total) < 5 * math.sqrt(p * (1 - p) * total)
    random = inputs[~masked & ~kept].double()
    assert abs(random.mean() - vocab / 2) < 5 * vocab / math.sqrt(12 * len(random))
    columns = chosen[:, 1:-1].double().mean(0)
    assert (columns - 15 / 98).abs().max() < 5 * math.sqrt(0.13 / 400)


def test_corrupted_spans():
    """Source and target interleave to the sequence; numbers of tokens and spans as published."""
    generator = torch.Generator().manual_seed(0)
    lengths = (2, 3, 20, 100, 333)
    sequences = [torch.randint(1, 900, (n,), generator=generator) for n in lengths]
    batch = SpanCorruption(sentinel=999, start_id=0, pad_id=0, seed=3)(sequences)
    for row, tokens in enumerate(sequences):
        source = batch["source_ids"][row, : batch["key_padding"][row]].tolist()
        target = [t for t in batch["labels"][row].tolist() if t != IGNORED]
        assert batch["target_ids"][row, : len(target)].tolist() == [0, *target[:-1]]
        spans, current = {}, None
        for token in target:
            if token >= 900:
                current = token
                spans[current] = []
            else:
                spans[current].append(token)
        names = [999 - i for i in range(len(spans))]
        assert list(spans) == names and not spans[names[-1]] and target[-1] == names[-1]
        assert [t for t in source if t >= 900] == names[:-1]
        restored = [x for t in source for x in (spans[t] if t >= 900 else [t])]
        assert restored == tokens.tolist()
        lost = max(1, round(0.15 * len(tokens)))
        assert sum(map(len, spans.values())) == lost and all(spans[n] for n in names[:-1])
        assert len(spans) - 1 == max(1, round(lost / 3))


@pytest.mark.parametrize(
    "make",
    [lambda seed: MaskedTokens(1, 50, seed=seed), lambda seed: SpanCorruption(49, seed=seed)],
)
def test_seeds(make):
    long = [torch.arange(2, 40)] * 3
    collators = [make(0), make(0), make(1)]
    first = [collate(long) for collate in collators]
    second = [collate(long) for collate in collators]

    def equal(a, b):
        return all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)

    assert equal(first[0], first[1]) and equal(second[0], second[1])
    assert not equal(first[0], first[2]) and not equal(first[0], second[0])


def test_initialization():
    """Standard deviations as published, within five of their own standard errors."""
    torch.manual_seed(0)
    options = {"dim": 64, "num_layers": 8, "hidden_dim": 128, "vocab_size": 500, "num_heads": 4}

    def close(x, std, kurtosis=3.0):
        assert abs(x.std() / std - 1) < 5 * math.sqrt((kurtosis - 1) / 4 / x.numel())

    block = GPT(config(**options)).stack.blocks[0]
    close(block.attention.qkv.weight, 0.02)
    close(block.attention.out.weight, 0.02 / 4)  # sqrt(2 * 8)
    close(block.mlp.down.weight, 0.02 / 4)
    assert not block.attention.qkv.bias.any()

    weight = BERT(config(**options)).stack.blocks[0].mlp.up.weight
    close(weight, 0.02 * 0.8796)  # of a normal truncated at two standard deviations
    assert weight.abs().max() <= 0.04

    model = Seq2Seq(config(**options))
    close(model.embedding.weight, 64**-0.5)
    attention = model.decoder.blocks[0].cross
    for part in attention.qkv.weight.chunk(3):
        close(part, math.sqrt(2 / (64 + 64)), kurtosis=1.8)
