"""A sequence while it is generated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random


@dataclass(eq=False)
class GeneratedSequence:
    """The tokens of one sequence: its prompt at first, each new token appended.

    Args:
        index: of the sequence in what `generate` returns.
        tokens: the prompt.
        random: random numbers of this sequence alone.
    """

    index: int
    tokens: list[int]
    random: Random

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def num_new_tokens(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def new_tokens(self) -> list[int]:
        return self.tokens[self.prompt_length :]


def randoms(sequences: Iterable[GeneratedSequence]) -> list[Random]:
    """The random numbers of each sequence."""
    return [sequence.random for sequence in sequences]
