"""Published values, beside exact ones computed in fp64."""

import math

import pytest
import torch

import fused_attention as fa
from fused_attention.models import BERT, GPT, Config, Seq2Seq, ViT
from fused_attention.models.attention_layer import AttentionLayer
from fused_attention.models.block import Block
from fused_attention.models.positions import T5, sinusoids

from .cases import bert, build, gpt, ids


def exact(rows):
    return torch.tensor(rows, dtype=torch.float64)


def set_weights(linear, matrix):
    """Set the weight to a matrix as published, which inputs are multiplied by from the left."""
    linear.weight.data = exact(matrix).T.contiguous()


def test_buy_milk_and_eggs():
    """ "Buy milk and" -> "eggs", the complete worked example of an introduction to transformers.

    Two channels, one head, post-norm: LayerNorm makes rows of +1 and -1.
    """
    sizes = {"dim": 2, "num_layers": 1, "num_heads": 1, "hidden_dim": 3, "norm_eps": 1e-300}
    options = {"prenorm": False, "activation": "relu", "bias": False, "position": "none"}
    block = Block(Config(**sizes, **options), 0, False).double()
    identity = [[1, 0], [0, 1]]
    joined = [row + row + scaled for row, scaled in zip(identity, [[2, 0], [0, 1]], strict=True)]
    set_weights(block.attention.qkv, joined)
    set_weights(block.attention.out, identity)
    set_weights(block.mlp.up, [[1, 0, -1], [0, 1, 1]])
    set_weights(block.mlp.down, [[1, 0.5], [0, 1], [1, -1]])
    seen = {}
    for name in ("attention", "attention_norm", "mlp.up", "mlp.down", "mlp_norm"):
        block.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: out})
        )

    x = exact([[[0.1, 1.0], [1.1, 0.0], [0.5, 0.7]]])
    with torch.no_grad():
        out, _ = block(x, None, {"variants": (fa.causal(),)}, {})

    published = exact([[0.2, 1.0], [1.5702, 0.3149], [1.0844, 0.5926]])
    torch.testing.assert_close(seen["attention"][0], published, rtol=0, atol=5e-4)
    near = {"rtol": 0, "atol": 1e-12}
    normed = exact([[-1, 1], [1, -1], [1, -1]])
    torch.testing.assert_close(seen["attention_norm"][0][0], normed, **near)
    # Published for the first token: [-1, 1, 0], by mistake; the product is [-1, 1, 2].
    up = exact([[-1, 1, 2], [1, -1, -2], [1, -1, -2]])
    torch.testing.assert_close(seen["mlp.up"][0], up, **near)
    torch.testing.assert_close(seen["mlp.down"][0], exact([[2, -1], [1, 0.5], [1, 0.5]]), **near)
    torch.testing.assert_close(out[0], exact([[1, -1], [1, -1], [1, -1]]), **near)
    logits = out[0, -1] @ exact([[1, 0], [0, 1], [-1, 1]]).T
    torch.testing.assert_close(logits, exact([1, -1, -2]), **near)


def test_sinusoids():
    """d = 8; channels 2 and 3 of position 100 were published as -.999 and .045, by mistake."""
    rows = sinusoids(101, 8)
    assert rows.dtype == torch.float64
    assert rows[0].tolist() == [0, 1] * 4
    printed = {
        1: [0.841, 0.540, 0.100, 0.995, 0.010, 1.000, 0.001, 1.000],
        100: [-0.506, 0.862, -0.544, -0.839, 0.841, 0.540, 0.100, 0.995],
    }
    for p, values in printed.items():
        formula = [f(p / 10000 ** (2 * i / 8)) for i in range(4) for f in (math.sin, math.cos)]
        torch.testing.assert_close(rows[p], exact(formula), rtol=0, atol=1e-14)
        torch.testing.assert_close(rows[p], exact(values), rtol=0, atol=5e-4)
    assert abs(rows[100, 2] + 0.999) > 0.4 and abs(rows[100, 3] - 0.045) > 0.8


def weights_of(model, call):
    """The weights of each attention layer, computed from the inputs of its core."""
    found = []

    def record(module, args):
        q, k, v, variants = args
        found.append(fa.reference.attention(q, k, v, variants, return_weights=True).weights)

    for module in model.modules():
        if isinstance(module, AttentionLayer):
            module.core.register_forward_pre_hook(record)
    call(model)
    return found


def test_masks_as_published():
    """Ones where a query (a row) may attend: the lower triangle; the first three of five words."""
    causal = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    for weights in weights_of(build(gpt()), lambda m: m(ids(1, 4))):
        assert ((weights > 0) == torch.tensor(causal)).all()
    lengths = torch.tensor([3])
    for weights in weights_of(build(bert()), lambda m: m(ids(1, 5), key_padding=lengths)):
        assert ((weights > 0) == torch.tensor([[1, 1, 1, 0, 0]] * 5)).all()
    both = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    lengths = torch.tensor([2])
    for weights in weights_of(build(gpt()), lambda m: m(ids(1, 4), key_padding=lengths)):
        assert ((weights > 0) == torch.tensor(both)).all()


@pytest.mark.parametrize("prenorm", [True, False])
def test_residual_sums(prenorm):
    """Two layers written out, sum by sum: Vaswani et al. 2017 and Xiong et al. 2020, figure 1."""
    model = build(gpt(prenorm=prenorm, dropout=0.5), dtype=torch.float64).eval()
    tokens = ids(1, 6)
    x = model.embedding.weight[tokens] + model.stack.positions.weight[:6]

    def norm(module, x):
        return torch.nn.functional.layer_norm(x, (32,), module.weight, module.bias)

    for block in model.stack.blocks:
        for normed, layer in (
            (block.attention_norm, lambda x, b=block: b.attention(x, (fa.causal(),))),
            (block.mlp_norm, block.mlp),
        ):
            x = x + layer(norm(normed, x)) if prenorm else norm(normed, x + layer(x))
    x = norm(model.stack.norm, x) if prenorm else x
    expected = x @ model.embedding.weight.T
    torch.testing.assert_close(model(tokens), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "embeddings", "layers"),
    [
        ({}, False, False),
        ({"dropout": 0.5}, True, True),
        ({"embedding_dropout": 0.5}, True, False),
        ({"dropout": 0.5, "embedding_dropout": 0.0}, False, True),
    ],
)
def test_places_of_dropout(options, embeddings, layers):
    """Dropout of the embeddings' sum, and of every layer's output (Vaswani et al. 2017, 5.4)."""
    model = build(gpt(prenorm=False, **options))
    entering, leaving = [], []
    block = model.stack.blocks[0]
    block.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    block.attention_norm.register_forward_hook(
        lambda module, args, out: leaving.append((args, out))
    )
    model(ids(2, 11))
    ((added, residual), (_, total)), *_ = leaving
    assert bool((entering[0] == 0).any()) == embeddings
    assert bool((total == residual).any()) == layers
    assert torch.equal(total, residual + added) != layers


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())


BASE = {"dim": 768, "num_layers": 12, "num_heads": 12}


def test_sizes_of_the_original_models():
    """On the meta device, so that nothing is allocated."""
    with torch.device("meta"):
        vit = ViT(Config(**BASE))
        assert vit.config.num_patches == 196
        assert vit.hidden(torch.empty(2, 3, 224, 224)).shape == (2, 197, 768)
        assert parameters(vit) == 86_567_656

        original = Config(
            dim=512,
            num_layers=6,
            num_heads=8,
            vocab_size=37_000,
            position="sinusoidal",
            prenorm=False,
            activation="relu",
        )
        assert original.hidden_dim == 2048
        assert 60e6 < parameters(Seq2Seq(original)) < 66e6  # published: 65 million

        assert parameters(GPT(Config(**BASE, vocab_size=50_257))) == 124_439_808
        options = {"max_seq_len": 512, "prenorm": False, "embedding_norm": True}
        config = Config(**BASE, **options, vocab_size=30_522, num_token_types=2)
        assert parameters(BERT(config, pooler=True)) == 109_482_240


@pytest.mark.parametrize("causal", [True, False])
def test_t5_buckets(causal):
    """Raffel et al. 2020: 32 buckets, half of one distance each, half logarithmic up to 128."""
    t5 = T5(Config(dim=8, num_layers=1, num_heads=2, position="t5"), causal)
    distances = torch.arange(-300, 301)
    found = dict(zip(distances.tolist(), t5.bucket(distances).tolist(), strict=True))
    side = 32 if causal else 16
    exact = side // 2
    for distance, bucket in found.items():
        first = 16 if distance > 0 and not causal else 0
        past = max(0, -distance) if causal else abs(distance)
        if past >= exact:
            # The last n with exact * (128 / exact)**(n / exact) <= past, in integer arithmetic.
            steps = range(side - exact)
            past = exact + max(n for n in steps if past**exact * exact**n >= exact**exact * 128**n)
        assert bucket == first + past, distance
