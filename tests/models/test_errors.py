"""Wrong arguments raise errors that name them, before anything is computed."""

import pytest
import torch

from fused_attention.models import BERT, GPT, Config, Seq2Seq, TransformerXL, ViT
from fused_attention.objectives import MaskedTokens, NextToken, SpanCorruption

from .cases import config, ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads: expected a divisor of dim, 32, got 5"),
        ({"head_dim": 0}, "head_dim: expected a positive int, got 0"),
        ({"num_kv_heads": 3}, "num_kv_heads: expected a divisor of num_heads, 4, got 3"),
        ({"num_layers": 0}, "num_layers: expected a positive int, got 0"),
        ({"position": "relative"}, "position: expected one of learned, .*, got 'relative'"),
        ({"activation": "silu"}, "activation: expected one of gelu, .*, got 'silu'"),
        ({"norm": "batch"}, "norm: expected one of layer, rms, got 'batch'"),
        ({"dropout": 1.5}, "dropout: expected 0 to 1, got 1.5"),
        ({"embedding_dropout": 1.5}, "embedding_dropout: expected 0 to 1, got 1.5"),
        ({"attention_dropout": -0.5}, "attention_dropout: expected 0 to 1, got -0.5"),
        ({"patch_size": 0}, "patch_size: expected a positive int, got 0"),
        ({"patch_size": 15}, "patch_size: expected a divisor of image_size, 224, got 15"),
        (
            {"position": "rotary", "num_heads": 32},
            "head_dim: expected an even one to turn, got 1",
        ),
        (
            {"position": "sinusoidal", "dim": 33, "num_heads": 3},
            "dim: expected an even one for sin",
        ),
        ({"window": 2**30 + 1}, r"window: expected None, or at most 2\*\*30, got 1073741825"),
        ({"window": 2**31}, r"window: expected None, or at most 2\*\*30, got 2147483648"),
        ({"position": "t5", "num_buckets": 6}, "num_buckets: expected a multiple of 4, got 6"),
        ({"position": "t5", "max_distance": 16}, "max_distance: expected more than half"),
    ],
)
def test_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def gpt(**options):
    return GPT(config(**options))


class FakeStep:
    """The part of a paged cache's step that a model reads before it computes."""

    positions = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gpt()(ids(1, 17)), ValueError, "input_ids: expected at most max_seq_len = 16"),
        (lambda: gpt(position="rotary")(ids(1, 17)), ValueError, "input_ids: expected at most"),
        (lambda: gpt(position="sinusoidal")(ids(1, 17)), ValueError, "input_ids: expected at most"),
        (lambda: gpt()(ids(2, 4) + 47), ValueError, "input_ids: expected 0 to 49, got"),
        (lambda: gpt()(ids(2, 4) - 50), ValueError, "input_ids: expected 0 to 49, got"),
        (lambda: gpt()(ids(4)), ValueError, r"input_ids: expected shape \(batch, seqlen\)"),
        (lambda: gpt()(ids(2, 4).float()), TypeError, "input_ids: expected dtype int32 or int64"),
        (lambda: gpt()([[1, 2]]), TypeError, "input_ids: expected a tensor, got list"),
        (
            lambda: gpt()(ids(1, 2), step=FakeStep),
            ValueError,
            r"input_ids: expected shape \(tokens,\)",
        ),
        (
            lambda: GPT(config(), attention="sdpa")(ids(2), step=FakeStep),
            NotImplementedError,
            "attention: a paged cache needs 'fused'",
        ),
        (lambda: GPT(config(), attention="flash"), ValueError, "attention: expected one of fused"),
        (lambda: setattr(gpt(), "attention", "x"), ValueError, "attention: expected one of fused"),
        (lambda: gpt(position="xl"), ValueError, "position: 'xl' is that of TransformerXL"),
        (lambda: gpt(vocab_size=None), ValueError, "vocab_size: expected a positive int, got None"),
        (lambda: gpt()(ids(2, 4), key_padding=torch.tensor([1])), ValueError, "lengths: expected"),
        (
            lambda: BERT(config(num_token_types=2))(ids(1, 4), torch.full((1, 4), 2)),
            ValueError,
            "token_type_ids: expected 0 to 1",
        ),
        (
            lambda: BERT(config(num_token_types=2))(ids(1, 4), torch.ones(1, 3, dtype=torch.int64)),
            ValueError,
            "token_type_ids: expected the shape of input_ids",
        ),
        (lambda: BERT(config()).pool(torch.ones(1, 2, 32)), ValueError, "pooler: expected a BERT"),
        (lambda: BERT(config()).predict(torch.ones(1, 2, 32)), ValueError, "mlm_head: expected"),
        (lambda: Seq2Seq(config())(ids(1, 17), ids(1, 3)), ValueError, "source_ids: expected at"),
        (lambda: Seq2Seq(config())(ids(1, 3), ids(1, 17)), ValueError, "target_ids: expected at"),
        (lambda: ViT(config())(torch.ones(2, 3, 9, 9)), ValueError, "images: expected shape"),
        (lambda: ViT(config())(ids(2, 3, 224, 224)), TypeError, "images: expected a floating"),
        (lambda: TransformerXL(config()), ValueError, "position: TransformerXL needs 'xl'"),
        (
            lambda: TransformerXL(config(position="xl"), memory_length=-1),
            ValueError,
            "memory_length: expected 0 or more, got -1",
        ),
        (
            lambda: TransformerXL(config(position="xl"))(ids(1, 3), [torch.ones(1, 2, 32)]),
            ValueError,
            r"memory: expected 2 tensors \(1, .*\), one a layer, got \[\(1, 2, 32\)\]",
        ),
        (
            lambda: TransformerXL(config(position="xl"))(ids(1, 3), [torch.ones(1, 17, 32)] * 2),
            ValueError,
            r"memory: expected 2 tensors \(1, up to 16, 32\), one a layer, got \[\(1, 17,",
        ),
        (lambda: NextToken()([[1]]), ValueError, "sequences: expected 2 tokens or more in each"),
        (lambda: NextToken()([]), ValueError, "sequences: expected one or more, got none"),
        (
            lambda: MaskedTokens(1, 50, (2,))([[2, 2]]),
            ValueError,
            "sequences: expected a token that is not special",
        ),
        (
            lambda: SpanCorruption(49, num_sentinels=2)([list(range(40))]),
            ValueError,
            "num_sentinels: expected 3 at least for 40",
        ),
    ],
)
def test_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_limit_without_a_table():
    for position in ("alibi", "t5", "none"):
        assert gpt(position=position)(ids(1, 40)).isfinite().all()


def test_half_precision_keeps_exact_tables():
    """bf16 cannot hold the angles of large positions, so tables stay in fp32."""
    model = GPT(Config(dim=8, num_layers=1, num_heads=1, vocab_size=9, position="rotary"))
    exact = model.stack.positions.cos.clone()
    assert torch.equal(model.bfloat16().stack.positions.cos, exact)
    assert model.double().stack.positions.cos.dtype == torch.float64
    assert torch.equal(model.float().stack.positions.cos, exact)
    assert not any("positions" in name for name in model.state_dict())
