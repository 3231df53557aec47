"""Adversarial inputs, and the errors of a provider on them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...harness.isolate import Unsupported
from ..attention import errors, providers
from ..attention.inputs import AttentionInputs, evaluate, make_inputs
from ..attention.providers import Workload
from ..attention.variants import AttentionShape, parse

BATCH = 2
EMPTY_BATCH_ENTRY = "key_padding:0:1"


@dataclass(frozen=True)
class AdversarialInput:
    """A kind of input: its length, how `bend` changes normal inputs, and a further variant."""

    help: str
    seq_len: int = 128
    bend: Callable[[AttentionInputs], None] | None = None
    extra: str = ""


def _large(inputs: AttentionInputs) -> None:
    inputs.q.mul_(8)
    inputs.k.mul_(8)


def _constant(inputs: AttentionInputs) -> None:
    inputs.k.copy_(inputs.k[:, :, :1].clone())


def _outliers(inputs: AttentionInputs) -> None:
    inputs.q[:, :, ::17, 0] = 60.0
    inputs.k[:, :, ::13, 0] = 60.0
    inputs.v[:, :, ::11, 0] = 1000.0


INPUTS = {
    "normal": AdversarialInput("standard normal"),
    "large": AdversarialInput("q and k eight times as large: near one-hot weights", bend=_large),
    "constant": AdversarialInput("every key the same: exactly uniform weights", bend=_constant),
    "outliers": AdversarialInput(
        "a few entries of q, k and v 60 to 1000 times as large", bend=_outliers
    ),
    "odd length": AdversarialInput("129 tokens: one more than fills a tile", seq_len=129),
    "one token": AdversarialInput("a sequence of one token", seq_len=1),
    "empty rows": AdversarialInput("one sequence of the batch has no key", extra=EMPTY_BATCH_ENTRY),
}


@dataclass(frozen=True)
class Job:
    """One provider and one variant, on every kind of input."""

    provider: str
    variant: str
    dtype: str
    device: str
    heads: int
    kv_heads: int
    head_dim: int
    seed: int


def check(job: Job) -> list[dict]:
    return [_row(job, name, kind) for name, kind in INPUTS.items()]


def _row(job: Job, name: str, kind: AdversarialInput) -> dict:
    """Errors with gradients, or of the forward pass alone if the provider has no backward."""
    row = {"provider": job.provider, "variant": job.variant, "inputs": name}
    for mode in ("forward+backward", "forward"):
        try:
            return {**row, "status": "ok", "mode": mode, "error_ratio": _ratios(job, kind, mode)}
        except (Unsupported, NotImplementedError) as error:
            reason = str(error)
    return {**row, "status": "unsupported", "reason": reason}


def _ratios(job: Job, kind: AdversarialInput, mode: str) -> dict[str, float | str]:
    n = kind.seq_len
    shape = AttentionShape(BATCH, job.heads, job.kv_heads, n, n, job.head_dim)
    terms = parse("+".join(filter(None, [job.variant, kind.extra])))
    workload = Workload(shape, terms, mode, getattr(torch, job.dtype), job.device)
    inputs = make_inputs(shape, workload.dtype, workload.device, job.seed)
    if kind.bend:
        kind.bend(inputs)
    results = evaluate(providers.find(job.provider)(workload).call, inputs, mode != "forward")
    found = errors.ratios(results, inputs, workload.variants)
    return {name: r if math.isfinite(r) else "not finite" for name, r in found.items()}
