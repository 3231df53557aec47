"""Our modules inside torch's transformer containers: they are called, and the values are right.

Seen failing on: attention, norms and GELU bypassed by torch's fast path, in eval mode without
gradients; NaN there for float masks and for queries that see nothing.
"""

import contextlib
import copy
import inspect
import itertools
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

import fused_attention as fa

BATCH, LENGTH, DIM = 3, 5, 16
LAYER = {"dropout": 0.0, "activation": "gelu", "batch_first": True}


def layer(kind):
    return kind(DIM, 4, 32, **LAYER)


# Each with the arguments of a call beside the tensors: what the masks are called.
CONTAINERS = {
    "encoder layer": (lambda: layer(nn.TransformerEncoderLayer), ("src_mask", "src")),
    "encoder": (
        lambda: nn.TransformerEncoder(layer(nn.TransformerEncoderLayer), 2),
        ("mask", "src"),
    ),
    "decoder layer": (lambda: layer(nn.TransformerDecoderLayer), ("tgt_mask", "tgt")),
    "decoder": (
        lambda: nn.TransformerDecoder(layer(nn.TransformerDecoderLayer), 2),
        ("tgt_mask", "tgt"),
    ),
    "transformer": (lambda: nn.Transformer(DIM, 4, 2, 2, 32, **LAYER), ("src_mask", "src")),
}
PADDED = torch.arange(LENGTH) >= torch.tensor([[3], [5], [4]])
CAUSAL = torch.ones(LENGTH, LENGTH).triu(1).bool()
BLIND = torch.zeros(LENGTH, LENGTH).bool()
BLIND[2] = True
EMPTY = torch.arange(LENGTH) >= torch.tensor([[3], [0], [5]])


def floating(mask):
    return torch.zeros(mask.shape).masked_fill(mask, -math.inf)


# (mask, padding)
MASKS = {
    "none": (None, None),
    "padding": (None, PADDED),
    "float padding": (None, floating(PADDED)),
    "padding not at the end": (None, PADDED.flip(1)),
    "causal": (CAUSAL, None),
    "float causal": (floating(CAUSAL), None),
    "causal and padding": (CAUSAL, PADDED),
    "float bias": (torch.linspace(-1, 1, 25).view(5, 5), None),
    "a query that sees nothing": (BLIND, None),
    "a float query that sees nothing": (floating(BLIND), None),
    "a sequence of padding": (None, EMPTY),
}
KINDS = {
    "attention": {nn.MultiheadAttention},
    "norm": {nn.LayerNorm},
    "activation": {nn.GELU},
    "all": {nn.MultiheadAttention, nn.LayerNorm, nn.GELU},
}


def ours(module):
    """The same with our module."""
    if type(module) is nn.MultiheadAttention:
        made = fa.MultiheadAttention(DIM, 4, batch_first=True)
    elif type(module) is nn.LayerNorm:
        made = fa.LayerNorm(DIM)
    else:
        made = fa.GELU()
    made.load_state_dict(module.state_dict())
    return made


def exchange(container, kinds):
    """Our modules in place of torch's; returns them."""
    made = []
    for parent in list(container.modules()):
        if isinstance(parent, nn.MultiheadAttention):
            continue
        for name, child in parent.named_children():
            if type(child) in kinds:
                setattr(parent, name, ours(child))
                made.append(getattr(parent, name))
    return made


@contextlib.contextmanager
def called(monkeypatch):
    """The set of our modules whose forward ran meanwhile."""
    ran = set()
    with monkeypatch.context() as patch:
        for kind in (fa.MultiheadAttention, fa.LayerNorm, fa.GELU):

            def run(self, *args, _forward=kind.forward, **kwargs):
                ran.add(self)
                return _forward(self, *args, **kwargs)

            patch.setattr(kind, "forward", run)
        yield ran


@contextlib.contextmanager
def without_fast_path():
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def pair(container, kinds):
    """torch's container, the same of ours, and what is ours in it."""
    torch.manual_seed(0)
    theirs, changed = (with_modules(CONTAINERS[container][0]()) for _ in range(2))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    changed.load_state_dict(theirs.state_dict())
    return theirs, changed, exchange(changed, KINDS[kinds])


def with_modules(container):
    """A module for the activation of every layer; torch's copies of layers lose it."""
    for module in container.modules():
        if hasattr(module, "activation"):
            module.activation = nn.GELU()
    return container


def call(name, container, mask, padding):
    mask_name, prefix = CONTAINERS[name][1]
    generator = torch.Generator().manual_seed(1)
    x, other = torch.randn(2, BATCH, LENGTH, DIM, generator=generator)
    tensors = (x,) if "encoder" in name else (x, other)
    options = {mask_name: mask, f"{prefix}_key_padding_mask": padding}
    if name == "transformer":
        options["memory_key_padding_mask"] = padding
    return container(*tensors, **options)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning")
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_ours_are_called_and_right(container, kinds, masks, monkeypatch):
    theirs, changed, made = pair(container, kinds)
    mask, padding = masks
    read = slice(None) if padding is None else (padding == 0)
    blind = any(m is not None and (m != 0).all(-1).any() for m in masks)
    for train, grad, hooks in itertools.product([True, False], repeat=3):
        theirs.train(train), changed.train(train)
        seen = set()

        def see(module, *_, seen=seen):
            seen.add(module)

        handles = [m.register_forward_hook(see) for m in made * hooks]
        with torch.set_grad_enabled(grad), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with without_fast_path():
                expected = call(container, theirs, mask, padding)
            with called(monkeypatch) as ran:
                found = call(container, changed, mask, padding)
        assert ran == set(made), f"not called: train {train}, grad {grad}, hooks {hooks}"
        assert seen == (set(made) if hooks else set())
        if kinds in ("attention", "all"):
            assert found[read].isfinite().all()
        elif blind:
            continue  # torch's attention gives what it gives
        known = expected.isfinite()
        torch.testing.assert_close(
            found[read][known[read]], expected[read][known[read]], rtol=1e-4, atol=1e-4
        )
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kinds", KINDS)
def test_an_encoder_built_of_our_layer_calls_it(kinds, monkeypatch):
    encoder_layer = with_modules(layer(nn.TransformerEncoderLayer))
    exchange(encoder_layer, KINDS[kinds])
    encoder = nn.TransformerEncoder(encoder_layer, 2).eval()
    made = [m for m in encoder.modules() if type(m).__module__.startswith("fused_attention")]
    assert len(made) == 2 * len(
        exchange(with_modules(layer(nn.TransformerEncoderLayer)), KINDS[kinds])
    )
    for padding in (None, PADDED):
        with torch.no_grad(), called(monkeypatch) as ran:
            call("encoder", encoder, None, padding)
        assert ran == set(made)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_called_too(travel, monkeypatch):
    _, changed, made = pair("encoder layer", "all")
    again = travel(changed).eval()
    assert set(again.state_dict()) == set(changed.state_dict())
    with torch.no_grad(), called(monkeypatch) as ran:
        found = call("encoder layer", again, None, None)
    assert len(ran) == len(made) and not ran & set(made)
    torch.testing.assert_close(found, call("encoder layer", changed, None, None))


def test_an_activation_put_into_a_finished_layer_is_called(monkeypatch):
    """torch decides on ReLU or GELU when it builds the layer."""
    encoder_layer = nn.TransformerEncoderLayer(DIM, 4, 32, batch_first=True).eval()
    encoder_layer.activation = fa.GELU("tanh")
    with torch.no_grad(), called(monkeypatch) as ran:
        call("encoder layer", encoder_layer, None, None)
    assert ran == {encoder_layer.activation}


@pytest.mark.parametrize("kind", [fa.RMSNorm, fa.AddRMSNorm, fa.AddLayerNorm])
def test_other_norms_are_called(kind, monkeypatch):
    options = {} if kind is fa.RMSNorm else {"prenorm": False}
    encoder_layer = layer(nn.TransformerEncoderLayer).eval()
    encoder_layer.norm1, encoder_layer.norm2 = kind(DIM, **options), kind(DIM, **options)
    ran = []
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: ran.append(self) or forward(self, x))
    with torch.no_grad():
        call("encoder layer", encoder_layer, None, None)
    assert ran == [encoder_layer.norm1, encoder_layer.norm2]


def test_signatures_are_torchs():
    for kind, theirs in (
        (fa.MultiheadAttention, nn.MultiheadAttention),
        (fa.LayerNorm, nn.LayerNorm),
        (fa.RMSNorm, nn.RMSNorm),
        (fa.GELU, nn.GELU),
        (fa.CrossEntropyLoss, nn.CrossEntropyLoss),
    ):
        assert inspect.signature(kind) == inspect.signature(theirs)


def test_a_layer_of_ours_compiles_without_graph_breaks():
    torch._dynamo.reset()
    _, changed, _ = pair("encoder layer", "all")
    changed.eval()
    compiled = torch.compile(changed, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(
            call("encoder layer", compiled, CAUSAL, None),
            call("encoder layer", changed, CAUSAL, None),
        )
