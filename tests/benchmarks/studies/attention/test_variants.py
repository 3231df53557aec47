import pytest
import torch

from benchmarks.studies.attention import variants
from benchmarks.studies.attention.flops import attention_flops
from benchmarks.studies.attention.providers import Workload
from benchmarks.studies.attention.variants import AttentionShape, parse, visible_pairs
from fused_attention.ops.attention.sdpa_mask import sdpa_mask
from fused_attention.variants.base import Shape

SPECS = [
    "full",
    "causal",
    "sliding_window:7",
    "sliding_window:5:3",
    "key_padding:0.5",
    "key_padding:0:1",
    "softcap:30",
    "alibi",
    "document",
    "document:3",
    "causal+softcap:30",
    "sliding_window:16:16+key_padding:0.7+document:2",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("lengths", [(40, 40), (13, 40)])
def test_visible_pairs_are_those_of_the_torch_masks(spec, lengths):
    shape = AttentionShape(3, 4, 2, *lengths, 8)
    workload = Workload(shape, parse(spec), "forward", torch.float32, "cpu")
    masks = [variant for variant in workload.variants if variant.type.mask is not None]
    call = Shape(shape.batch, shape.heads, *lengths, torch.device("cpu"))
    mask = sdpa_mask(call, masks, torch.float32)
    seen = torch.ones((shape.batch, 1, *lengths), dtype=torch.bool) & (
        True if mask is None else mask
    )
    assert visible_pairs(workload.terms, shape) == seen.sum().item()


def test_every_variant_of_the_table_is_tried_above():
    assert {term.name for spec in SPECS for term in parse(spec)} | {"full"} == set(variants.KINDS)


def test_flops_follow_the_convention():
    shape = AttentionShape(2, 8, 8, 1024, 1024, 64)
    full = attention_flops((), shape, "forward")
    assert full == 4 * 2 * 8 * 1024 * 1024 * 64
    assert attention_flops((), shape, "backward") == 2.5 * full
    assert attention_flops((), shape, "forward+backward") == 3.5 * full
    assert attention_flops(parse("causal"), shape, "forward") == pytest.approx(full / 2, rel=1e-3)


def test_a_document_has_1024_tokens_unless_told():
    shape = AttentionShape(1, 1, 1, 4096, 4096, 8)
    assert visible_pairs(parse("document"), shape) == 4 * 1024**2


def test_key_padding_alternates_over_the_batch():
    shape = AttentionShape(3, 1, 1, 10, 10, 8)
    assert visible_pairs(parse("key_padding:0.5"), shape) == 3 * 50
    assert visible_pairs(parse("key_padding:0.5:1"), shape) == 50 + 100 + 50


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("windowed", "unknown variant 'windowed'; known: full, causal, sliding_window:LEFT"),
        ("", "unknown variant ''"),
        ("causal+", "unknown variant ''"),
        ("causal:1", "'causal:1' does not match causal"),
        ("sliding_window", "does not match sliding_window:LEFT[:RIGHT]"),
        ("sliding_window:-1", "LEFT: expected a count of tokens, got -1"),
        ("sliding_window:1.5", "LEFT: "),
        ("softcap:0", "CAP: expected a positive number, got 0"),
        ("softcap:nan", "CAP: expected a positive number, got nan"),
        ("softcap:inf", "CAP: expected a positive number, got inf"),
        ("key_padding:1.01", "F: expected a fraction between 0 and 1"),
        ("document:0", "N: expected a positive integer, got 0"),
    ],
)
def test_a_bad_spec_says_what_is_wrong(spec, message):
    with pytest.raises(ValueError) as raised:
        parse(spec)
    assert message in str(raised.value)
