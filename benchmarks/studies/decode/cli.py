"""The command `decode`."""

from functools import partial
from typing import Annotated

from ...harness import options
from ...harness.options import (
    BadOption,
    Device,
    Dtype,
    Fresh,
    Out,
    Repeats,
    Seed,
    Timeout,
    given,
    option,
)
from . import providers as known_providers
from .point import KV_DTYPES


def decode(
    device: Device = "auto",
    providers: Annotated[
        str | None,
        option(
            "Comma-separated: paged, contiguous, recompute, or your own as module:function; all "
            "three if left out."
        ),
    ] = None,
    contexts: Annotated[
        str | None,
        option(
            "Tokens held before the one that is measured, such as 256,1024, or doublings as in "
            "256..4096; 256..4096 on CPU, 1024..65536 on CUDA if left out."
        ),
    ] = None,
    batches: Annotated[
        str | None,
        option(
            "Sequences that decode at once, such as 4,1,16. The curves are measured at the first "
            "value of this and of the next three options; the other values replace it one at a "
            "time."
        ),
    ] = None,
    page_sizes: Annotated[str | None, option("Tokens in a page, multiples of 16.")] = None,
    groups: Annotated[str | None, option("Query heads on a key head, divisors of --heads.")] = None,
    kv_dtypes: Annotated[
        str | None, option("What is stored: float16, bfloat16, float32, int8 or float8_e4m3fn.")
    ] = None,
    heads: Annotated[int | None, option("Query heads; 8 on CPU, 32 on CUDA if left out.")] = None,
    head_dim: Annotated[
        int | None, option("Size of a head; 64 on CPU, 128 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    repeats: Repeats = 0,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure decoding from the paged cache, from a contiguous one, and without any.

    Tokens per second, memory traffic as a share of the copy bandwidth measured in the same run,
    and how the cost of a token grows with the context. Resumes as scaling does.
    """
    from . import run

    place = options.device(device)
    known = run.DEFAULTS[place]
    count = options.at_least("--heads", known.heads if heads is None else heads, 1)
    size = options.at_least("--head-dim", known.head_dim if head_dim is None else head_dim, 1)
    grid = run.DecodeGrid(
        device=place,
        providers=given(partial(options.found_by, known_providers.find, "--providers"), providers),
        contexts=given(partial(options.sizes, "--contexts"), contexts),
        batches=given(partial(options.counts, "--batches"), batches),
        page_sizes=given(_page_sizes, page_sizes),
        groups=_groups(groups or ",".join(map(str, known.groups)), count),
        kv_dtypes=given(_kv_dtypes, kv_dtypes),
        heads=count,
        head_dim=size,
        dtype=given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.repeats(repeats),
    )
    session = options.session(place, "decode", out, timeout, fresh, conventions=run.CONVENTIONS)
    run.run(grid, session)


def _page_sizes(text: str) -> tuple[int, ...]:
    found = options.counts("--page-sizes", text)
    for page_size in found:
        if page_size % 16:
            raise BadOption("--page-sizes", f"expected multiples of 16, got {page_size}")
    return found


def _groups(text: str, heads: int) -> tuple[int, ...]:
    found = options.counts("--groups", text)
    for group in found:
        if heads % group:
            raise BadOption("--groups", f"expected divisors of --heads {heads}, got {group}")
    return found


def _kv_dtypes(text: str) -> tuple[str, ...]:
    aliases = {**options.DTYPE_ALIASES, "fp8": "float8_e4m3fn"}
    names = (aliases.get(name, name) for name in options.listed("--kv-dtypes", text))
    return tuple(dict.fromkeys(options.one_of("--kv-dtypes", n, KV_DTYPES) for n in names))
