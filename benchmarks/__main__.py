"""Measure attention, decoding, fused ops and whole models here: time, memory, accuracy.

Run as `python -m benchmarks` from a checkout, or as `fused-attention` once installed.
"""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .harness import options
from .harness.isolate import CannotRun
from .harness.options import BadOption
from .harness.progress import console

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
UsageError = typer.BadParameter.__mro__[1]
INTERRUPTED = 130


def _option(text: str):
    return typer.Option(help=text)


Device = Annotated[str, _option("auto, cpu or cuda.")]
Providers = Annotated[
    str | None,
    _option(
        "Comma-separated: naive, sdpa, sdpa:math, sdpa:flash, sdpa:efficient, sdpa:cudnn, flex, "
        "fused, or your own as module:function."
    ),
]
Variants = Annotated[
    str | None,
    _option(
        "Comma-separated: full, causal, sliding_window:LEFT[:RIGHT], key_padding:F, softcap:CAP, "
        "alibi, document[:N]; composed with +, as in causal+softcap:30."
    ),
]
Heads = Annotated[int | None, _option("Query heads; the model's, or 8, if left out.")]
KvHeads = Annotated[int | None, _option("Key and value heads, a divisor of --heads.")]
HeadDim = Annotated[int | None, _option("Size of a head; the model's, or 64, if left out.")]
Dtype = Annotated[
    str | None,
    _option(
        "float16, bfloat16, float32 or float64; if left out, float32 on CPU, bfloat16 on CUDA."
    ),
]
Repeats = Annotated[int, _option("Timed rounds of a point; 0 takes 3 to 100 as time allows.")]
Seed = Annotated[int, _option("Seed of the inputs and of the order of measurement.")]
Timeout = Annotated[float, _option("Seconds after which a point is given up.")]
Out = Annotated[
    Path | None,
    _option(
        "Folder for the results, from which an interrupted run resumes; "
        "benchmarks/results/DEVICE/COMMAND if left out."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Set earlier results in the folder aside and start over.")
]


@app.command()
def scaling(
    device: Device = "auto",
    providers: Providers = None,
    variants: Variants = None,
    seq_lens: Annotated[
        str | None,
        _option(
            "Lengths such as 256,512,1024, or doublings as in 256..8192; if left out, the model's, "
            "or 256..8192 on CPU and 512..65536 on CUDA."
        ),
    ] = None,
    batch: Annotated[int, _option("Batch size.")] = 1,
    heads: Heads = None,
    kv_heads: KvHeads = None,
    head_dim: HeadDim = None,
    dtype: Dtype = None,
    mode: Annotated[
        str, _option("forward, backward or forward+backward, or several with commas.")
    ] = "forward+backward",
    model: Annotated[
        str | None,
        _option("gpt2, bert-base, llama3-8b or vit-b16: its heads, mask and lengths."),
    ] = None,
    repeats: Repeats = 0,
    cache: Annotated[
        str, _option("cold flushes the caches before every repeat, warm does not.")
    ] = "cold",
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure time and memory against sequence length; fit, plot and report them.

    With neither --providers nor --variants, measures the curves that suit the device: naive
    attention, torch's, and this package's with and without a window. Points that are done are
    not measured again when the command is repeated; errors, and timeouts if --timeout has grown,
    are. Each point runs in its own process: one that runs out of memory or time is a result.
    """
    from .studies.scaling import run

    known = options.model(model) if model else None
    count, kv_count = options.heads(known, heads, kv_heads)
    grid = run.ScalingGrid(
        device=options.device(device),
        providers=_given(options.provider_names, providers),
        variants=_given(options.variant_specs, variants) or (known and (known.variant,)),
        modes=options.modes(mode),
        seq_lens=_given(options.seq_lens, seq_lens) or (known and known.seq_lens),
        batch=options.at_least("--batch", batch, 1),
        heads=count,
        kv_heads=kv_count,
        head_dim=options.head_dim(known, head_dim),
        dtype=_given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.at_least("--repeats", repeats, 0),
        cache=options.one_of("--cache", cache, ("cold", "warm")),
    )
    conventions = {"conventions": run.CONVENTIONS}
    run.run(grid, _session(grid.device, "scaling", out, timeout, fresh, **conventions))


@app.command()
def ops(
    device: Device = "auto",
    ops: Annotated[
        str | None, _option("Comma-separated; every fused op if left out. Your own as module:name.")
    ] = None,
    providers: Annotated[
        str | None,
        _option(
            "Comma-separated: torch, compile, liger, fused, or your own as module:function; if "
            "left out, all, Liger where it is installed and the device is a GPU."
        ),
    ] = None,
    hidden: Annotated[
        str | None,
        _option(
            "Hidden (or vocabulary) sizes such as 256,1024, or doublings as in 256..8192; if left "
            "out, 256, 1024 and 4096 on CPU, 1024..32768 on CUDA, and for the losses the "
            "vocabularies of models."
        ),
    ] = None,
    rows: Annotated[
        str | None, _option("Rows (tokens), as --hidden; 1024 on CPU, 8192 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    mode: Annotated[
        str, _option("forward or forward+backward, or both with a comma.")
    ] = "forward+backward",
    repeats: Repeats = 0,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure every fused op beside torch eager, torch.compile and Liger.

    Time, memory traffic as a share of the copy bandwidth measured in the same run, peak memory,
    and error against fp64. Every provider is timed in turns with torch eager, in one process, so
    that the speed-up is not the noise of the machine. Resumes as scaling does.
    """
    from .studies.ops import run

    grid = run.OpsGrid(
        device=options.device(device),
        ops=_given(options.op_names, ops),
        providers=_given(options.op_provider_names, providers),
        modes=options.modes(mode, ("forward", "forward+backward")),
        hidden=_given(partial(options.sizes, "--hidden"), hidden),
        rows=_given(partial(options.sizes, "--rows"), rows),
        dtype=_given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.at_least("--repeats", repeats, 0),
    )
    conventions = {"conventions": run.CONVENTIONS}
    run.run(grid, _session(grid.device, "ops", out, timeout, fresh, **conventions))


@app.command()
def decode(
    device: Device = "auto",
    providers: Annotated[
        str | None,
        _option(
            "Comma-separated: paged, contiguous, recompute, or your own as module:function; all "
            "three if left out."
        ),
    ] = None,
    contexts: Annotated[
        str | None,
        _option(
            "Tokens held before the one that is measured, such as 256,1024, or doublings as in "
            "256..4096; 256..4096 on CPU, 1024..65536 on CUDA if left out."
        ),
    ] = None,
    batches: Annotated[
        str | None,
        _option(
            "Sequences that decode at once, such as 4,1,16. Of this and the next three the first "
            "is what the curves are measured at; the others replace it one at a time."
        ),
    ] = None,
    page_sizes: Annotated[str | None, _option("Tokens in a page, multiples of 16.")] = None,
    groups: Annotated[
        str | None, _option("Query heads on a key head, divisors of --heads.")
    ] = None,
    kv_dtypes: Annotated[
        str | None, _option("What is stored: float16, bfloat16, float32, int8 or float8_e4m3fn.")
    ] = None,
    heads: Annotated[int | None, _option("Query heads; 8 on CPU, 32 on CUDA if left out.")] = None,
    head_dim: Annotated[
        int | None, _option("Size of a head; 64 on CPU, 128 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    repeats: Repeats = 0,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure decoding from the paged cache, from a contiguous one, and without any.

    Tokens a second, memory traffic as a share of the copy bandwidth measured in the same run, and
    how the cost of a token grows with the context. Resumes as scaling does.
    """
    from .studies.decode import run

    place = options.device(device)
    known = run.DEFAULTS[place]
    count = options.at_least("--heads", known.heads if heads is None else heads, 1)
    size = options.at_least("--head-dim", known.head_dim if head_dim is None else head_dim, 1)
    grid = run.DecodeGrid(
        device=place,
        providers=_given(options.decode_provider_names, providers),
        contexts=_given(partial(options.sizes, "--contexts"), contexts),
        batches=_given(partial(options.counts, "--batches"), batches),
        page_sizes=_given(options.page_sizes, page_sizes),
        groups=options.groups(groups or ",".join(map(str, known.groups)), count),
        kv_dtypes=_given(options.kv_dtypes, kv_dtypes),
        heads=count,
        head_dim=size,
        dtype=_given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.at_least("--repeats", repeats, 0),
    )
    conventions = {"conventions": run.CONVENTIONS}
    run.run(grid, _session(place, "decode", out, timeout, fresh, **conventions))


@app.command()
def model(
    device: Device = "auto",
    providers: Annotated[str | None, _option("Comma-separated: fused, naive, sdpa.")] = None,
    tasks: Annotated[str, _option("train or generate, or both with a comma.")] = "train,generate",
    seq_lens: Annotated[
        str | None,
        _option(
            "Lengths of what is trained on, and of prompts, such as 256,512, or doublings as in "
            "256..2048; if left out, 128..512 on CPU, 512..8192 on CUDA."
        ),
    ] = None,
    shape: Annotated[str, _option("gpt2-small, gpt2-medium or tiny.")] = "gpt2-small",
    batch: Annotated[int | None, _option("Sequences; 1 on CPU, 4 on CUDA if left out.")] = None,
    new_tokens: Annotated[
        int | None, _option("Tokens to generate; 8 on CPU, 64 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    repeats: Repeats = 0,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure a whole GPT, training and generating, with each kind of attention.

    Tokens a second and peak memory of a training step and of generation against length. Resumes
    as scaling does.
    """
    from .studies.model import run

    grid = run.ModelGrid(
        device=options.device(device),
        providers=_given(options.model_provider_names, providers),
        tasks=options.tasks(tasks),
        seq_lens=_given(options.seq_lens, seq_lens),
        shape=options.shape(shape),
        batch=_given(partial(options.at_least, "--batch", minimum=1), batch),
        new_tokens=_given(partial(options.at_least, "--new-tokens", minimum=1), new_tokens),
        dtype=_given(options.model_dtype, dtype),
        seed=options.seed(seed),
        repeats=options.at_least("--repeats", repeats, 0),
    )
    conventions = {"conventions": run.CONVENTIONS}
    run.run(grid, _session(grid.device, "model", out, timeout, fresh, **conventions))


@app.command()
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
    out: Annotated[Path | None, _option("Folder for accuracy.json.")] = None,
) -> None:
    """Measure every provider's error against fp64, on normal and adversarial inputs.

    Errors are multiples of what naive attention costs in the same dtype: 1 is as good as naive,
    and up to 2 is within this package's budget.
    """
    from .studies.accuracy import run

    count, kv_count = options.heads(None, run.HEADS if heads is None else heads, kv_heads)
    place = options.device(device)
    request = run.AccuracyRequest(
        device=place,
        providers=run.PROVIDERS[place] if providers is None else options.provider_names(providers),
        variants=run.VARIANTS if variants is None else options.variant_specs(variants),
        dtype=_given(options.dtype, dtype) or run.DTYPES[place],
        heads=count,
        kv_heads=kv_count,
        head_dim=options.head_dim(None, head_dim),
        seed=options.seed(seed),
    )
    options.at_least("--timeout", timeout, 1)
    run.run(request, timeout, options.out_dir(out) if out else None, sys.argv[1:], console())


@app.command()
def bars(
    device: Device = "auto",
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure the performance this package promises, and say which promises hold."""
    from .studies.targets import run

    place = options.device(device)
    options.seed(seed)
    conventions = {"conventions": run.CONVENTIONS}
    run.run(place, seed, _session(place, "bars", out, timeout, fresh, **conventions))


@app.command()
def gpu(
    budget: Annotated[
        float, _option("Seconds of measuring after which no further point is started.")
    ] = 200.0,
    timeout: Timeout = 90.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure the promises for CUDA devices, as many as fit the budget; repeat to go on."""
    from .studies.targets import run

    options.at_least("--budget", budget, 1)
    options.device("cuda")
    limits = {"budget_s": budget, "conventions": run.CONVENTIONS}
    run.run("cuda", 0, _session("cuda", "gpu", out, timeout, fresh, **limits))


@app.command()
def theory() -> None:
    """Print the textbook memory and cost of attention against sequence length."""
    from .studies.scaling.theory import textbook

    console().print(textbook())


def _given(parse: Callable, text: str | None):
    return None if text is None else parse(text)


def _session(device: str, name: str, out: Path | None, timeout: float, fresh: bool, **limits):
    from .harness.runner import find_machine
    from .harness.session import Session

    options.at_least("--timeout", timeout, 1)
    if out is not None:
        options.out_dir(out)
    machine = find_machine(device)
    slug = re.sub(r"[^a-z0-9]+", "-", machine.facts["device_name"].lower()).strip("-")
    folder = options.out_dir(out or Path("benchmarks") / "results" / slug / name)
    return Session(folder, machine, sys.argv[1:], console(), timeout, fresh, **limits)


def main() -> None:
    """The command line: errors are one line, an interrupt says how to go on."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        code = _fail(error.format_message())
    except (BadOption, CannotRun) as error:
        code = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
    sys.exit(code or 0)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
