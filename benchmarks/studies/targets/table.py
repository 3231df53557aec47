"""The performance targets of each device."""

from collections.abc import Iterable
from dataclasses import replace

from ..attention.point import AttentionPoint
from .target import MEMORY_EXPONENT, MEMORY_SAVING, SPEED, TIME_EXPONENT, Target

LENGTHS = (1024, 2048, 4096, 8192)
ROUNDS = 3
WINDOW = "sliding_window:256"


def cpu_targets(seed: int) -> list[Target]:
    base = AttentionPoint(
        "fused", "full", "forward", 4096, 1, 8, 8, 64, "float32", "cpu", seed, 0, "cold"
    )
    targets = []
    for mode in ("forward", "forward+backward"):
        for variant in ("full", "causal"):
            ours = replace(base, mode=mode, variant=variant)
            for n in LENGTHS:
                point = replace(ours, seq_len=n)
                targets.append(_against(point, ["sdpa"], at_least=1 / 1.10, rounds=ROUNDS))
            targets.append(_against(ours, ["naive"], at_least=2.5 if mode == "forward" else 2.0))
        window = replace(base, mode=mode, variant=WINDOW)
        targets.append(_against(replace(window, seq_len=8192), ["sdpa"], at_least=8.0))
        targets.append(Target(TIME_EXPONENT, _along(window), at_most=1.15))
    training = replace(base, mode="forward+backward")
    for variant in ("softcap:30", "alibi", "document:4"):
        ours = replace(training, variant=variant)
        targets.append(_against(ours, ["naive"], at_least=1.5))
        targets.append(Target(MEMORY_EXPONENT, _along(ours), at_most=1.1))
    for variant in ("full", "causal", "softcap:30"):
        ours = replace(base, variant=variant)
        targets.append(_against(ours, ["flex"], at_least=1.5, rounds=ROUNDS))
    ours = replace(base, variant=WINDOW, seq_len=8192)
    targets.append(_against(ours, ["flex"], at_least=1.0, rounds=ROUNDS))
    for variant in ("full", "causal"):
        ours = replace(training, variant=variant)
        targets.append(Target(MEMORY_EXPONENT, _along(ours), at_most=1.1))
    naive = replace(training, provider="naive")
    targets.append(Target(MEMORY_EXPONENT, _along(naive), at_least=1.9, at_most=2.1))
    return targets


def cuda_targets(seed: int) -> list[Target]:
    """16k tokens in a batch, hidden size 2048, against pinned backends and FlexAttention."""
    targets = []
    for mode, least in (("forward", 0.75), ("backward", 0.60)):
        for head_dim, n in ((128, 4096), (128, 16384), (64, 4096), (128, 1024)):
            for variant in ("full", "causal"):
                ours = _cuda_point(seed, variant, mode, n, head_dim)
                rivals = ["sdpa:cudnn", "sdpa:flash", *(["flex"] if n == 4096 else [])]
                targets.append(_against(ours, rivals, at_least=least, goal=1.0))
    for variant in ("sliding_window:1023", "document:8", "alibi", "softcap:30"):
        for mode in ("forward", "forward+backward"):
            ours = _cuda_point(seed, variant, mode, 8192, 64)
            if variant != "softcap:30":
                masked = ["sdpa:efficient", "sdpa:cudnn"]
                targets.append(_against(ours, masked, at_least=2.0, goal=4.0))
            targets.append(_against(ours, ["flex"], at_least=0.9, goal=1.0))
    training = replace(_cuda_point(seed, "full", "forward+backward", 8192, 64), batch=1)
    targets.append(Target(MEMORY_EXPONENT, _along(training), at_most=1.05))
    naive = replace(training, provider="naive")
    targets.append(Target(MEMORY_SAVING, (training,), (naive,), at_least=20.0))
    return targets


TARGETS = {"cpu": cpu_targets, "cuda": cuda_targets}


def _cuda_point(seed: int, variant: str, mode: str, n: int, head_dim: int) -> AttentionPoint:
    heads, batch = 2048 // head_dim, 16384 // n
    return AttentionPoint(
        *("fused", variant, mode, n, batch, heads, heads, head_dim),
        *("bfloat16", "cuda", seed, 0, "cold"),
    )


def _against(ours: AttentionPoint, rivals: Iterable[str], **thresholds) -> Target:
    return Target(SPEED, (ours,), tuple(replace(ours, provider=r) for r in rivals), **thresholds)


def _along(point: AttentionPoint) -> tuple[AttentionPoint, ...]:
    return tuple(replace(point, seq_len=n) for n in LENGTHS)
