"""The command `ops`."""

from functools import partial
from typing import Annotated

from ...harness import options
from ...harness.options import Device, Dtype, Fresh, Out, Repeats, Seed, Timeout, given, option
from . import providers as known_providers
from . import table

MODES = ("forward", "forward+backward")


def ops(
    device: Device = "auto",
    ops: Annotated[
        str | None, option("Comma-separated; every fused op if left out. Your own as module:name.")
    ] = None,
    providers: Annotated[
        str | None,
        option(
            "Comma-separated: torch, compile, liger, fused, or your own as module:function; if "
            "left out, all, Liger where it is installed and the device is a GPU."
        ),
    ] = None,
    hidden: Annotated[
        str | None,
        option(
            "Hidden (or vocabulary) sizes such as 256,1024, or doublings as in 256..8192; if left "
            "out, 256, 1024 and 4096 on CPU, 1024..32768 on CUDA, and for the losses the "
            "vocabularies of models."
        ),
    ] = None,
    rows: Annotated[
        str | None, option("Rows (tokens), as --hidden; 1024 on CPU, 8192 on CUDA if left out.")
    ] = None,
    dtype: Dtype = None,
    mode: Annotated[
        str, option("forward or forward+backward, or both with a comma.")
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
    that noise of the machine affects both alike. Resumes as scaling does.
    """
    from . import run

    grid = run.OpsGrid(
        device=options.device(device),
        ops=given(partial(options.found_by, table.find, "--ops"), ops),
        providers=given(partial(options.found_by, known_providers.find, "--providers"), providers),
        modes=options.choices("--mode", mode, MODES),
        hidden=given(partial(options.sizes, "--hidden"), hidden),
        rows=given(partial(options.sizes, "--rows"), rows),
        dtype=given(options.dtype, dtype),
        seed=options.seed(seed),
        repeats=options.repeats(repeats),
    )
    session = options.session(grid.device, "ops", out, timeout, fresh, conventions=run.CONVENTIONS)
    run.run(grid, session)
