"""A run of accuracy: which errors are measured, and how they are written and printed."""

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ...harness import provenance
from ...harness.isolate import run as isolated
from ...harness.runner import Machine, find_machine
from ...harness.session import write_json
from ..attention import errors
from . import adversarial

HEADS = 4
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
PROVIDERS = {
    "cpu": ("naive", "sdpa", "flex", "fused"),
    "cuda": ("naive", "sdpa:flash", "sdpa:efficient", "sdpa:cudnn", "flex", "fused"),
}
VARIANTS = (
    *("full", "causal", "sliding_window:32", "key_padding:0.6:1", "softcap:20", "alibi"),
    *("document:3", "causal+softcap:20", "causal+alibi"),
)


@dataclass(frozen=True)
class AccuracyRequest:
    device: str
    providers: tuple[str, ...]
    variants: tuple[str, ...]
    dtype: str
    heads: int
    kv_heads: int
    head_dim: int
    seed: int

    def jobs(self) -> list[adversarial.Job]:
        shape = (self.dtype, self.device, self.heads, self.kv_heads, self.head_dim, self.seed)
        return [adversarial.Job(p, v, *shape) for p in self.providers for v in self.variants]


def run(
    request: AccuracyRequest, timeout: float, folder: Path | None, command: list[str], out: Console
) -> None:
    machine = find_machine(request.device)
    conventions = {"max_error_ratio": errors.CONVENTION}
    origin = provenance.collect(command, machine.device, machine.facts, request.seed, conventions)
    with out.status("comparing with fp64"):
        rows = [row for job in request.jobs() for row in _rows(job, machine, timeout)]
    out.print(_table(request, rows))
    for kind, described in adversarial.INPUTS.items():
        out.print(f"{kind}: {described.help}", style="dim", markup=False)
    if folder:
        write_json(folder / "accuracy.json", {"provenance": origin, "rows": rows})
        out.print(f"Written: {folder / 'accuracy.json'}", markup=False, soft_wrap=True)


def _rows(job: adversarial.Job, machine: Machine, timeout: float) -> list[dict]:
    outcome = isolated("studies.accuracy.adversarial.check", job, timeout, machine.method)
    if outcome.status == "ok":
        return outcome.value
    failed = {"provider": job.provider, "variant": job.variant}
    failed |= {"status": outcome.status, "reason": outcome.reason}
    return [{**failed, "inputs": name} for name in adversarial.INPUTS]


def _table(request: AccuracyRequest, rows: list[dict]) -> Table:
    table = Table(
        title=f"Worst error of output and gradients, in errors of naive {request.dtype} attention",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("variant")
    table.add_column("inputs")
    for provider in request.providers:
        table.add_column(provider, justify="right")
    cells = {(row["variant"], row["inputs"], row["provider"]): _cell(row) for row in rows}
    for variant in request.variants:
        for kind in adversarial.INPUTS:
            line = [cells[variant, kind, provider] for provider in request.providers]
            table.add_row(variant, kind, *line)
        table.add_section()
    return table


def _cell(row: dict) -> str:
    if row["status"] != "ok":
        return row["status"]
    found = row["error_ratio"].values()
    if "not finite" in found:
        return "not finite"
    note = " (forward)" if row["mode"] == "forward" else ""
    return f"{max(found):.2f}{note}"
