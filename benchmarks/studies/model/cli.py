"""The command `model`."""

from functools import partial
from typing import Annotated

from ...harness import options
from ...harness.options import Device, Dtype, Fresh, Out, Repeats, Seed, Timeout, given, option
from .point import PROVIDERS, SHAPES, TASKS


def model(
    device: Device = "auto",
    providers: Annotated[str | None, option("Comma-separated: fused, naive, sdpa.")] = None,
    tasks: Annotated[str, option("train or generate, or both with a comma.")] = "train,generate",
    seq_lens: Annotated[
        str | None,
        option(
            "Lengths of what is trained on, and of prompts, such as 256,512, or doublings as in "
            "256..2048; if left out, 128..512 on CPU, 512..8192 on CUDA."
        ),
    ] = None,
    shape: Annotated[str, option("gpt2-small, gpt2-medium or tiny.")] = "gpt2-small",
    batch: Annotated[int | None, option("Sequences; 1 on CPU, 4 on CUDA if left out.")] = None,
    new_tokens: Annotated[
        int | None, option("Tokens to generate; 8 on CPU, 64 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    repeats: Repeats = 0,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure a whole GPT, training and generating, with each kind of attention.

    Tokens per second and peak memory of a training step and of generation against length. Resumes
    as scaling does.
    """
    from . import run

    grid = run.ModelGrid(
        device=options.device(device),
        providers=given(partial(options.choices, "--providers", known=PROVIDERS), providers),
        tasks=options.choices("--tasks", tasks, TASKS),
        seq_lens=given(options.seq_lens, seq_lens),
        shape=options.one_of("--shape", shape, tuple(SHAPES)),
        batch=given(partial(options.at_least, "--batch", minimum=1), batch),
        new_tokens=given(partial(options.at_least, "--new-tokens", minimum=1), new_tokens),
        dtype=given(_dtype, dtype),
        seed=options.seed(seed),
        repeats=options.repeats(repeats),
    )
    session = options.session(
        grid.device, "model", out, timeout, fresh, conventions=run.CONVENTIONS
    )
    run.run(grid, session)


def _dtype(text: str) -> str:
    """A paged cache stores no float64."""
    return options.one_of("--dtype", options.dtype(text), ("float16", "bfloat16", "float32"))
