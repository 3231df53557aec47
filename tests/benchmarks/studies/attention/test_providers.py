import pytest
import torch
from torch.nn.attention import flex_attention

from benchmarks.harness.isolate import Unsupported
from benchmarks.studies.attention import providers
from benchmarks.studies.attention.inputs import evaluate, make_inputs
from benchmarks.studies.attention.providers import PROVIDERS, Workload
from benchmarks.studies.attention.variants import AttentionShape, parse

SPECS = (
    *("full", "causal", "sliding_window:9:4", "key_padding:0.4:1", "alibi", "document:3"),
    *("softcap:8", "causal+alibi", "causal+softcap:8", "document:2+alibi+key_padding:0.9"),
)


def workload_of(spec, mode="forward+backward", shape=None, **changes):
    shape = shape or AttentionShape(2, 4, 2, 48, 48, 16)
    options = {"dtype": torch.float32, "device": "cpu"} | changes
    return Workload(shape, parse(spec), mode, **options)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["sdpa", "sdpa:math", "sdpa:flash", "fused"])
def test_providers_compute_the_same_attention(name, spec):
    workload = workload_of(spec)
    if "softcap" in spec and name.startswith("sdpa"):
        with pytest.raises(Unsupported, match="not apply softcap"):
            PROVIDERS[name](workload)
        return
    inputs = make_inputs(workload.shape, workload.dtype, "cpu", seed=0)
    expected = evaluate(PROVIDERS["naive"](workload).call, inputs, gradients=True)
    found = evaluate(PROVIDERS[name](workload).call, inputs, gradients=True)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-4, atol=2e-5)


def test_a_mask_counts_as_memory_of_its_provider():
    shape = AttentionShape(1, 4, 4, 64, 64, 16)
    assert PROVIDERS["sdpa"](workload_of("full", shape=shape)).tensors == ()
    assert PROVIDERS["sdpa"](workload_of("causal", shape=shape)).tensors == ()
    (window,) = PROVIDERS["sdpa"](workload_of("sliding_window:8", shape=shape)).tensors
    assert (window.dtype, window.nbytes) == (torch.bool, 64 * 64)
    (slopes,) = PROVIDERS["sdpa"](workload_of("alibi+causal", shape=shape)).tensors
    assert (slopes.dtype, slopes.nbytes) == (torch.float32, 4 * 64 * 64 * 4)


@pytest.mark.parametrize("name", ["sdpa:efficient", "sdpa:cudnn"])
def test_cuda_backends_are_unsupported_on_cpu(name):
    with pytest.raises(Unsupported, match="needs CUDA"):
        PROVIDERS[name](workload_of("full"))


def test_a_pinned_backend_that_has_no_kernel_is_unsupported(monkeypatch):
    def no_kernel(*args, **kwargs):
        raise RuntimeError("No available kernel. Aborting execution.")

    call = PROVIDERS["sdpa:flash"](workload_of("full")).call
    monkeypatch.setattr(providers.F, "scaled_dot_product_attention", no_kernel)
    with pytest.raises(Unsupported, match="FLASH_ATTENTION backend cannot do this"):
        call(*make_inputs(AttentionShape(1, 1, 1, 4, 4, 4), torch.float32, "cpu", 0).leaves)


def test_flex_has_no_backward_on_cpu():
    with pytest.raises(Unsupported, match="no backward on CPU"):
        PROVIDERS["flex"](workload_of("full"))


@pytest.mark.parametrize("spec", SPECS)
def test_flex_is_given_the_same_variants(spec, monkeypatch):
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    workload = workload_of(spec, mode="forward", shape=AttentionShape(2, 4, 2, 128, 128, 16))
    prepared = PROVIDERS["flex"](workload)
    assert prepared.compiled
    inputs = make_inputs(workload.shape, workload.dtype, "cpu", seed=0)
    (expected,) = evaluate(PROVIDERS["naive"](workload).call, inputs, gradients=False)
    (found,) = evaluate(prepared.call, inputs, gradients=False)
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)


def test_a_provider_can_come_from_outside():
    from ... import fakes

    assert providers.find("tests.benchmarks.fakes:quick") is fakes.quick
