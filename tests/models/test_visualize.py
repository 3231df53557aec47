"""`fa.visualize`: weights equal those of the model's attention, and pictures show them."""

import sys
from functools import partial

import pytest
import torch

import fused_attention as fa
from fused_attention.models import BERT, GPT, Config, Seq2Seq, TransformerXL, ViT
from fused_attention.models.backends import AttentionCore
from fused_attention.models.positions import sinusoids

SIZES = {"dim": 16, "num_layers": 2, "num_heads": 4, "vocab_size": 256, "max_seq_len": 32}
CASES = {
    "gpt": lambda: (GPT(Config(**SIZES, dropout=0.5, attention_dropout=0.5)), (ids(1, 9),)),
    "grouped": lambda: (
        GPT(Config(**SIZES, num_kv_heads=2, position="alibi")),
        (ids(2, 17),),
    ),
    "bert": lambda: (BERT(Config(**SIZES)), (ids(2, 9), None, torch.tensor([9, 4]))),
    "seq2seq": lambda: (
        Seq2Seq(Config(**SIZES, position="t5")),
        (ids(2, 9), ids(2, 5), torch.tensor([3, 9])),
    ),
    "xl": lambda: (TransformerXL(Config(**SIZES, position="xl")), (ids(2, 9),)),
    "vit": lambda: (ViT(Config(**SIZES, image_size=32)), (torch.randn(1, 3, 32, 32).double(),)),
}


def ids(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0))


def built(name):
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    for parameter in model.parameters():  # larger than initially, so that attention is not uniform
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double(), inputs


@pytest.mark.parametrize("name", CASES)
def test_weights_give_the_output_of_the_fused_attention(name):
    """In fp64, weights times values equal the output of every fused attention."""
    model, inputs = built(name)
    assert model.attention == "fused"
    seen = {}

    def keep(at, core, given, out):
        seen[at] = given[2], out

    for at, module in model.named_modules():
        if isinstance(module, AttentionCore):
            module.register_forward_hook(partial(keep, at.removesuffix(".core")))
    found = fa.visualize.attention_weights(model, *inputs)
    assert list(found) == list(seen)
    assert len(found) == (6 if name == "seq2seq" else 2)
    for at, weights in found.items():
        v, out = seen[at]
        v = v.repeat_interleave(weights.shape[1] // v.shape[1], 1)
        torch.testing.assert_close(weights @ v, out, rtol=0, atol=1e-12)
        assert (weights.sum(-1) - 1).abs().max() < 1e-12
        assert weights.std() > 0.02  # not uniform


def test_masks_are_seen():
    model, inputs = built("gpt")
    found = fa.visualize.attention_weights(model, *inputs)
    assert all((weights.triu(1) == 0).all() for weights in found.values())
    model, inputs = built("bert")
    for weights in fa.visualize.attention_weights(model, *inputs).values():
        assert (weights[1, ..., 4:] == 0).all() and (weights[0] > 0).all()


def state(model):
    """The mode and the hooks of every module."""
    return [(m.training, dict(m._forward_pre_hooks)) for m in model.modules()]


def test_the_model_is_left_as_it_was():
    model, inputs = built("gpt")
    model.train()
    model.stack.blocks[1].eval()
    before = state(model)
    one, other = (fa.visualize.attention_weights(model, *inputs) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)  # no dropout
    assert state(model) == before
    with pytest.raises(ValueError, match="input_ids"):
        fa.visualize.attention_weights(model, ids(1, 33))
    assert state(model) == before


def test_a_map_for_every_layer_and_head(tmp_path):
    model, _ = built("gpt")
    text = "to be\n"
    figure = fa.visualize.attention_maps(model, text, tmp_path / "maps.png")
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 * 4
    found = fa.visualize.attention_weights(model, torch.tensor([list(text.encode())]))
    expected = torch.cat([weights[0] for weights in found.values()])
    for axes, weights in zip(panels, expected, strict=True):
        shown = torch.as_tensor(axes.images[0].get_array().data)
        torch.testing.assert_close(shown, weights.float())
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in panels]
    assert labels[0] == labels[4] == ["t", "o", "␣", "b", "e", "\\n"]
    assert labels[1] == labels[2] == []
    assert [axes.get_title() for axes in panels[:4]] == [f"head {i}" for i in range(4)]
    assert [panels[i].get_ylabel() for i in (0, 4)] == ["layer 0", "layer 1"]
    assert_drawn(tmp_path / "maps.png")


def assert_drawn(path):
    from matplotlib.image import imread

    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.1


def test_selected_layers_and_heads():
    model, _ = built("gpt")
    figure = fa.visualize.attention_maps(model, [3, 1, 2], layers=[1], heads=[2, 0])
    panels = [axes for axes in figure.axes if axes.images]
    weights = fa.visualize.attention_weights(model, torch.tensor([[3, 1, 2]]))
    last = list(weights.values())[1][0].float()
    shown = [torch.as_tensor(axes.images[0].get_array().data) for axes in panels]
    torch.testing.assert_close(torch.stack(shown), last[[2, 0]])
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["3", "1", "2"]
    many = fa.visualize.attention_maps(model, ids(32)[:32], layers=[0], heads=[0])
    assert len(many.axes[0].get_yticklabels()) == 32


def test_other_inputs(tmp_path):
    model, inputs = built("seq2seq")
    figure = fa.visualize.attention_maps(model, tuple(x[:1] for x in inputs), tmp_path / "a.png")
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names[:3] == ["encoder 0", "encoder 1", "decoder 0"] and "decoder 1 cross" in names
    model, (images,) = built("vit")
    fa.visualize.attention_maps(model, images)
    bpe = GPT(Config(**{**SIZES, "vocab_size": 300}))
    figure = fa.visualize.attention_maps(
        bpe, "ab cd", encode=lambda text: [len(w) for w in text.split()], labels=["ab", "cd"]
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["ab", "cd"]
    figure = fa.visualize.attention_maps(built("gpt")[0], "é")  # two bytes
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["195", "169"]


def test_positional_encoding(tmp_path):
    figure = fa.visualize.positional_encoding(10, 8, tmp_path / "positions.png")
    shown = torch.as_tensor(figure.axes[0].images[0].get_array().data)
    torch.testing.assert_close(shown, sinusoids(10, 8))
    assert_drawn(tmp_path / "positions.png")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, m: v.attention_maps(m, [1, 2], layers=[2]), "layers: .* 0 to 1, got \\[2\\]"),
        (lambda v, m: v.attention_maps(m, [1, 2], heads=[]), "heads: .* 0 to 3, got \\[\\]"),
        (lambda v, m: v.attention_maps(m, ids(2, 3)), "batch of 1, got 2"),
        (lambda v, m: v.attention_maps(m, "abc", labels=["a"]), "labels: expected 3.*got 1"),
        (lambda v, m: v.attention_maps(m, [256]), "input_ids: expected 0 to 255"),
        (lambda v, m: v.attention_maps(GPT(Config(**SIZES | {"vocab_size": 9})), "a"), "encode"),
        (lambda v, m: v.attention_weights(torch.nn.Linear(2, 2), torch.ones(2)), "model:"),
        (lambda v, m: v.positional_encoding(0), "length: expected 1 or more, got 0"),
        (lambda v, m: v.positional_encoding(4, 7), "dim: expected an even number.*got 7"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(fa.visualize, built("gpt")[0])


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        fa.visualize.positional_encoding()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        fa.visualize.attention_maps(built("gpt")[0], [1])
