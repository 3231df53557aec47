"""Points and rows for tests."""

from dataclasses import replace

from benchmarks.studies.attention.point import AttentionPoint

FAKES = f"{__package__}.fakes"
SMALL = AttentionPoint(
    provider="naive",
    variant="full",
    mode="forward",
    seq_len=64,
    batch=1,
    heads=2,
    kv_heads=2,
    head_dim=16,
    dtype="float32",
    device="cpu",
    seed=0,
    repeats=2,
    cache="warm",
)


def fake(name: str, **changes) -> AttentionPoint:
    return replace(SMALL, provider=f"{FAKES}:{name}", **changes)


def row(provider="fused", variant="full", seq_len=256, **changes) -> dict:
    """A stored measurement."""
    content = {
        "key": f"{provider} {variant} {seq_len} {changes.get('mode')}",
        "config": "c",
        "provider": provider,
        "variant": variant,
        "mode": "forward",
        "seq_len": seq_len,
        "status": "ok",
        "reason": None,
        "time_ms": 1.0,
        "time_ms_p20": 0.9,
        "time_ms_p80": 1.1,
        "repeats": 5,
        "peak_memory_bytes": 2**20,
        "mask_bytes": 0,
        "tflops": 0.5,
        "max_error_ratio": 1.0,
        "batch": 1,
        "heads": 8,
        "kv_heads": 8,
        "head_dim": 64,
        "dtype": "float32",
        "device": "cpu",
        "timeout_s": 10.0,
    } | changes
    if content["status"] != "ok":
        content |= dict.fromkeys(("time_ms", "peak_memory_bytes", "tflops", "max_error_ratio"))
    return content
