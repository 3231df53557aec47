"""The command `accuracy`."""

import sys
from pathlib import Path
from typing import Annotated

from ...harness import options
from ...harness.options import Device, Dtype, Seed, Timeout, given, option
from ...harness.progress import console
from ..attention import options as attention
from ..attention.options import HeadDim, Heads, KvHeads, Providers, Variants


def accuracy(
    device: Device = "auto",
    providers: Providers = None,
    variants: Variants = None,
    heads: Heads = None,
    kv_heads: KvHeads = None,
    head_dim: HeadDim = None,
    dtype: Dtype = None,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Annotated[Path | None, option("Folder for accuracy.json.")] = None,
) -> None:
    """Measure every provider's error against fp64, on normal and adversarial inputs.

    Errors are multiples of the error of naive attention in the same dtype: 1 is as good as naive,
    and up to 2 is within this package's budget.  More is too, where naive attention is exact by
    chance, as for a single key: the tests then allow the rounding that every tiled algorithm has.
    """
    from . import run

    count, kv_count = attention.heads(None, run.HEADS if heads is None else heads, kv_heads)
    place = options.device(device)
    request = run.AccuracyRequest(
        device=place,
        providers=given(attention.provider_names, providers) or run.PROVIDERS[place],
        variants=given(attention.variant_specs, variants) or run.VARIANTS,
        dtype=given(options.dtype, dtype) or run.DTYPES[place],
        heads=count,
        kv_heads=kv_count,
        head_dim=attention.head_dim(None, head_dim),
        seed=options.seed(seed),
    )
    options.at_least("--timeout", timeout, 1)
    run.run(request, timeout, given(options.out_dir, out), sys.argv[1:], console())
