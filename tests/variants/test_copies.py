"""Variants travel: copy, deepcopy, pickle, torch.save, modules that hold one, other processes.

Seen failing on: a type pickled with its kernels, a hook that is not found again, a type that is
copied and so is no longer the registered one.
"""

import copy
import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import fused_attention as fa

from ..helpers.stacks import PARTS, Sizes

SIZES = Sizes(2, 2, 2, 9, 12, 8, 8)
every_variant = pytest.mark.parametrize("name", PARTS)


def made(name) -> fa.Variant:
    part, generator = PARTS[name], torch.Generator().manual_seed(0)
    return part.build(part.tensor(SIZES, generator, torch.float32) if part.tensor else None)


def attend(variant) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 2, 9, 8, generator=generator)
    k, v = torch.randn(2, 2, 2, 12, 8, generator=generator)
    return fa.attention(q, k, v, variant)


class Layer(torch.nn.Module):
    """A layer that holds a variant, as a user writes it."""

    def __init__(self, variant) -> None:
        super().__init__()
        self.variant = variant
        self.project = torch.nn.Linear(8, 8)


def through_pickle(x, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(x, protocol))


def through_torch(x):
    buffer = io.BytesIO()
    torch.save(x, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": through_torch,
    **{
        f"pickle-{protocol}": lambda x, protocol=protocol: through_pickle(x, protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@every_variant
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_means_the_same(name, way):
    variant = made(name)
    copied = way(variant)
    assert copied.type is variant.type
    assert torch.equal(attend(copied), attend(variant))


@every_variant
def test_deep_copies_share_no_memory(name):
    variant = made(name)
    tensors = zip(variant.args, copy.deepcopy(variant).args, strict=True)
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in tensors
        if isinstance(a, torch.Tensor) and a.numel()
    )


@pytest.mark.parametrize("way", [copy.deepcopy, through_torch, through_pickle])
def test_a_module_that_holds_variants(way):
    layer = Layer((fa.causal(), fa.alibi(fa.alibi_slopes(2))))
    copied = way(layer)
    assert torch.equal(attend(copied.variant), attend(layer.variant))
    assert AveragedModel(copied).module.variant[0].type is layer.variant[0].type


def test_other_processes():
    """A spawned one has imported nothing: it finds our variants, and those of a user's module."""
    variants = [made(name) for name in PARTS]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for variant, found in zip(variants, pool.map(attend, variants), strict=True):
            torch.testing.assert_close(found, attend(variant), msg=variant.name)


def test_a_type_that_no_module_holds_says_so():
    local = fa.define_variant(
        "test_local", sink_logit=lambda args: torch.zeros(2), check=lambda args, shape: None
    )
    with pytest.raises(pickle.PicklingError, match="'test_local': cannot be pickled, for no name"):
        pickle.dumps(local())
    assert copy.deepcopy(local()).type is local
