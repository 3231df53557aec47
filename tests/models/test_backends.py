"""Fused, naive and sdpa attention agree: outputs and all parameter gradients, within the budget.

    max |x - exact|  <=  2 * max |naive - exact|  +  max(band)

``exact`` is the naive model in fp64, ``naive`` the same in fp32.  The band is the change of the
result when every parameter changes by the rounding errors of a sum over its longest dimension.
"""

import math

import pytest
import torch
import torch._dynamo.testing

import fused_attention as fa
from fused_attention.models import GPT

from ..helpers.budget import distance
from ..helpers.support import LEGS
from .cases import CASES, build, config, gpt, ids, xl

DRAWS = 4


def evaluate(case, attention, dtype=torch.float32, device="cpu", err=None):
    """Output and parameter gradients by name; dropout has the same seed every time."""
    model = build(case, attention, dtype).to(device)
    if err is not None:
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(err(p))
    torch.manual_seed(0)
    out = case.call(model)
    generator = torch.Generator().manual_seed(2)
    out.backward(torch.randn(out.shape, generator=generator).to(out))
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters()}
    return {"out": out.detach().cpu(), **gradients}


def bands(case, exact):
    """The largest change of each result over a few random choices of the errors' signs."""
    effect = dict.fromkeys(exact, 0.0)
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)

        def err(p, generator=generator):
            roundings = 1 + math.log2(max(2, *p.shape))
            signs = 2 * torch.randint(0, 2, p.shape, generator=generator) - 1
            return p * (1 + roundings * torch.finfo(torch.float32).eps * signs)

        moved = evaluate(case, "naive", torch.float64, err=err)
        effect = {name: max(effect[name], distance(moved[name], x)) for name, x in exact.items()}
    return effect


def check(case, attention, device="cpu"):
    exact = evaluate(case, "naive", torch.float64)
    plain = evaluate(case, "naive")
    found = evaluate(case, attention, device=device)
    band = bands(case, exact)
    wrong = []
    for name, x in found.items():
        assert exact[name].any(), f"{name}: no gradient to compare"
        error, allowed = distance(x, exact[name]), distance(plain[name], exact[name])
        if not error <= 2 * allowed + band[name]:
            wrong.append(f"{name}: error {error:.3g}, naive {allowed:.3g}, band {band[name]:.3g}")
    assert not wrong, "; ".join(wrong)


# PyTorch's attention draws other random numbers for dropout.
PAIRS = [(n, a) for n in CASES for a in ("fused", "sdpa") if (a, n[:4]) != ("sdpa", "drop")]


@pytest.mark.parametrize("name, attention", PAIRS)
def test_agreement(name, attention):
    check(CASES[name], attention)


TRITON = [leg for leg in LEGS if leg.id != "torch"]
SMALL = {"num_layers": 1, "dim": 16, "num_heads": 1}


@pytest.mark.parametrize("device", TRITON)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(gpt(**SMALL), id="gpt"),
        pytest.param(gpt(**SMALL, position="t5", prenorm=False), id="t5"),
        pytest.param(gpt(**SMALL, position="rotary", norm="rms", activation="swiglu"), id="llama"),
        pytest.param(xl(**SMALL), id="xl"),
    ],
)
def test_agreement_on_triton(device, case):
    if device == "cuda":
        case = case._replace(call=_on(device, case.call))
    check(case, "fused", device)


def _on(device, call):
    """The call, creating its tensors on the device of the model."""

    def moved(model):
        with torch.device(next(model.parameters()).device):
            return call(model)

    return moved


def test_switching():
    model = GPT(config(), attention="sdpa")
    assert model.attention == "sdpa"
    seen = set()
    for module in model.modules():
        if hasattr(module, "backend"):
            module.register_forward_pre_hook(lambda m, args: seen.add(m.backend))
    for attention in ("naive", "fused", "sdpa"):
        model.attention = attention
        model(ids(1, 4))
        assert seen == {attention}
        seen.clear()


@pytest.mark.parametrize(
    ("variant", "name"), [(fa.softcap(5.0), "softcap"), (fa.sink(torch.zeros(4)), "sink")]
)
def test_sdpa_refuses_what_it_cannot_express(variant, name):
    core = GPT(config(), attention="sdpa").stack.blocks[0].attention.core
    q = torch.randn(1, 4, 5, 8)
    with pytest.raises(NotImplementedError, match=f"can only add to scores, not apply {name}"):
        core(q, q, q, (variant, fa.causal()))


@pytest.mark.parametrize("position", ["learned", "rotary", "alibi", "t5"])
def test_compile(position):
    model = build(gpt(position=position))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(ids(2, 9))
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    found = compiled(ids(2, 9))
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max())


@pytest.mark.parametrize("position", ["rotary", "t5"])
def test_lengths_do_not_recompile(position):
    """The first length compiles a graph, the second one a graph for all other lengths."""
    model = GPT(config(position=position, max_seq_len=64))
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for length in (5, 9, 13, 33):
        compiled(ids(2, length))
    assert counter.frame_count == 2


@pytest.mark.parametrize("name", ["gpt-rotary-pre", "bert-t5", "seq2seq", "vit", "xl"])
def test_autocast(name):
    """bf16 products, fp32 parameters and gradients; as close to fp64 as the naive path."""
    case = CASES[name]
    exact = evaluate(case, "naive", torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        plain, found = (evaluate(case, attention) for attention in ("naive", "fused"))
    for name, x in found.items():
        unit = torch.finfo(torch.bfloat16).eps * exact[name].abs().max()
        assert distance(x, exact[name]) <= 2 * distance(plain[name], exact[name]) + unit, name
        assert name == "out" or x.dtype == torch.float32
