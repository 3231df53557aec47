"""Scaling of rotary frequencies, for longer sequences than a model was first trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RotaryScaling:
    """Lower rotary frequencies, for sequences ``factor`` times as long.

    Args:
        factor: divisor of every frequency (Chen et al. 2023, arXiv 2306.15595).
        original_length: if given, only low frequencies are divided, as in Llama 3.1 (Dubey et al.
            2024, arXiv 2407.21783).  A frequency with at most ``low_freq_factor`` turns in
            ``original_length`` tokens is divided, one with at least ``high_freq_factor`` turns is
            unchanged, and in between the two results are interpolated linearly.

    Raises ValueError if ``factor`` or ``original_length`` is below 1, or ``low_freq_factor`` is not
    below ``high_freq_factor``.
    """

    factor: float
    original_length: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise ValueError(f"factor: expected 1 or more, got {self.factor}")
        if self.original_length is not None and self.original_length < 1:
            raise ValueError(f"original_length: expected 1 or more, got {self.original_length}")
        if not self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"high_freq_factor: expected more than low_freq_factor, {self.low_freq_factor}, "
                f"got {self.high_freq_factor}"
            )

    def slowed(self, frequencies: torch.Tensor) -> torch.Tensor:
        """``frequencies``, in radians per token, after scaling."""
        if self.original_length is None:
            return frequencies / self.factor
        turns = self.original_length * frequencies / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)
