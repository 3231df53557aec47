"""The commands `targets` and `gpu`."""

from typing import Annotated

from ...harness import options
from ...harness.options import Device, Fresh, Out, Seed, Timeout, option


def targets(
    device: Device = "auto",
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure the performance targets of this package, and say which of them hold."""
    from . import run

    place = options.device(device)
    options.seed(seed)
    session = options.session(place, "targets", out, timeout, fresh, conventions=run.CONVENTIONS)
    run.run(place, seed, session)


def gpu(
    budget: Annotated[
        float, option("Seconds of measuring after which no further point is started.")
    ] = 200.0,
    timeout: Timeout = 90.0,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Measure the targets for CUDA devices, as many as fit the budget; repeat to go on."""
    from . import run

    options.at_least("--budget", budget, 1)
    options.device("cuda")
    settings = {"budget_s": budget, "conventions": run.CONVENTIONS}
    run.run("cuda", 0, options.session("cuda", "gpu", out, timeout, fresh, **settings))
