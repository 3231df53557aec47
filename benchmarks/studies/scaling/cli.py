"""The commands `scaling` and `theory`."""

from typing import Annotated

from ...harness import options
from ...harness.options import Device, Dtype, Fresh, Out, Repeats, Seed, Timeout, given, option
from ...harness.progress import console
from ..attention import options as attention
from ..attention.options import HeadDim, Heads, KvHeads, Providers, Variants


def scaling(
    device: Device = "auto",
    providers: Providers = None,
    variants: Variants = None,
    seq_lens: Annotated[
        str | None,
        option(
            "Lengths such as 256,512,1024, or doublings as in 256..8192; if left out, the model's, "
            "or 256..8192 on CPU and 512..65536 on CUDA."
        ),
    ] = None,
    batch: Annotated[int, option("Batch size.")] = 1,
    heads: Heads = None,
    kv_heads: KvHeads = None,
    head_dim: HeadDim = None,
    dtype: Dtype = None,
    mode: Annotated[
        str, option("forward, backward or forward+backward, or several with commas.")
    ] = "forward+backward",
    model: Annotated[
        str | None,
        option("gpt2, bert-base, llama3-8b or vit-b16: its heads, mask and lengths."),
    ] = None,
    repeats: Repeats = 0,
    cache: Annotated[
        str, option("cold flushes the caches before every repeat, warm does not.")
    ] = "cold",
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure time and memory against sequence length; fit, plot and report them.

    With neither --providers nor --variants, measures the curves that suit the device: naive
    attention, torch's, and this package's with and without a window. Points that are done are
    not measured again when the command is repeated; errors are, and so are timeouts if --timeout
    has grown. Each point runs in its own process: one that runs out of memory or time is a result.
    """
    from . import run

    known = attention.model(model) if model else None
    count, kv_count = attention.heads(known, heads, kv_heads)
    grid = run.ScalingGrid(
        device=options.device(device),
        providers=given(attention.provider_names, providers),
        variants=given(attention.variant_specs, variants) or (known and (known.variant,)),
        modes=attention.modes(mode),
        seq_lens=given(options.seq_lens, seq_lens) or (known and known.seq_lens),
        batch=options.at_least("--batch", batch, 1),
        heads=count,
        kv_heads=kv_count,
        head_dim=attention.head_dim(known, head_dim),
        dtype=given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.repeats(repeats),
        cache=options.one_of("--cache", cache, ("cold", "warm")),
    )
    conventions = run.CONVENTIONS
    session = options.session(grid.device, "scaling", out, timeout, fresh, conventions=conventions)
    run.run(grid, session)


def theory() -> None:
    """Print the textbook memory and cost of attention against sequence length."""
    from .theory import textbook

    console().print(textbook())
