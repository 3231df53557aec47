"""Text to tokens to batches."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch

from .errors import Refused, optional_import

HELD_OUT = 0.1
MOST_EVALUATED = 64


def read(path: Path | None) -> str:
    """A file in UTF-8, or the text in every CPython: the help topics of the Python language."""
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"--text: cannot read {path}: {error}") from error


def digest(text: str) -> str:
    """A short hash, by which a checkpoint knows its corpus."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Bytes:
    """Tokenizer whose tokens are the bytes of UTF-8."""

    vocab_size = 256
    stored = None

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")


class BPE:
    """Byte-pair tokenizer; ``stored`` is all of it as JSON, as `learn_bpe` returns."""

    def __init__(self, stored: str) -> None:
        self.stored = stored
        self._tokenizer = optional_import("tokenizers", "--bpe").Tokenizer.from_str(stored)
        self.vocab_size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens)


def learn_bpe(text: str, vocab_size: int) -> str:
    """A byte-pair tokenizer trained on a text, for `BPE`; the vocabulary includes 256 bytes."""
    tokenizers = optional_import("tokenizers", "--bpe")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer.to_str()


def split(text: str) -> tuple[str, str]:
    """The text to train on, and the last tenth, which is held out."""
    cut = int(len(text) * (1 - HELD_OUT))
    return text[:cut], text[cut:]


class Windows:
    """Windows of ``length + 1`` tokens, in each epoch from a new offset and in a new order.

    A batch depends on its number and the seed alone, so that resuming needs only the step.
    """

    def __init__(self, tokens: list[int], length: int, seed: int, what: str) -> None:
        self.tokens, self.length, self.seed = torch.tensor(tokens), length, seed
        self.count = (len(tokens) - length) // length  # at any offset
        if self.count < 1:
            raise Refused(
                f"{what} is too short: expected {2 * length} tokens or more for a context of "
                f"{length}, got {len(tokens)}"
            )
        self.order = lru_cache(maxsize=2)(self._order)

    def batch(self, number: int, size: int) -> torch.Tensor:
        """Batch ``number``, (size, length + 1)."""
        return torch.stack([self._window(i) for i in range(number * size, (number + 1) * size)])

    def spread(self) -> torch.Tensor:
        """At most MOST_EVALUATED windows, evenly spread and always the same, for evaluation."""
        step = -(-self.count // MOST_EVALUATED)
        return torch.stack([self._at(i * self.length) for i in range(0, self.count, step)])

    def _window(self, i: int) -> torch.Tensor:
        epoch, place = divmod(i, self.count)
        start, order = self.order(epoch)
        return self._at(start + int(order[place]) * self.length)

    def _at(self, start: int) -> torch.Tensor:
        return self.tokens[start : start + self.length + 1]

    def _order(self, epoch: int) -> tuple[int, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 2**20 + epoch)
        start = int(torch.randint(self.length, (), generator=generator))
        return start, torch.randperm(self.count, generator=generator)
