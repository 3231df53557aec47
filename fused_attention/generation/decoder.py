"""A model that decodes sequences, with their keys and values on a paged cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..cache.page_tables import Seq
from ..cache.paged_kv_cache import PagedKVCache
from .causal_lm import CausalLM
from .sampling import sample
from .sequence import GeneratedSequence, randoms


class Decoder:
    """A model and its cache: feeds tokens, and returns the probabilities of the next ones.

    Between two calls the cache lacks the last token of every sequence, so that each call has a
    token to feed.

    Args:
        model: what is decoded from.
        cache: of the model; holds the sequences from `prefill` until `trim` frees them.
        to_probabilities: ``to_probabilities(logits, place=...)``: logits (rows, vocab) to the
            probabilities to sample from, the same shape; ``place(row)`` names a row in errors.
    """

    def __init__(
        self,
        model: CausalLM,
        cache: PagedKVCache,
        to_probabilities: Callable[..., torch.Tensor],
    ) -> None:
        self.model, self.cache, self.to_probabilities = model, cache, to_probabilities
        self.cached: dict[GeneratedSequence, Seq] = {}

    def prefill(self, groups: list[list[GeneratedSequence]]) -> torch.Tensor:
        """Feed the prompt of each group once; probabilities of its next token, (groups, vocab).

        The sequences of a group share their prompt, and its pages.
        """
        firsts = [group[0] for group in groups]
        for sequence in firsts:
            self.cached[sequence] = self.cache.new(sequence.tokens)
        p = self.predict_last(firsts, [[] for _ in firsts])
        for first, *others in groups:
            for sequence in others:
                self.cached[sequence] = self.cache.fork(self.cached[first])
        return p

    def draft(
        self, sequences: list[GeneratedSequence], counts: list[int]
    ) -> tuple[list[list[int]], list[list[torch.Tensor]]]:
        """Sample ``counts[i]`` tokens after sequence i, one at a time.

        Returns the tokens of each sequence, and the probabilities (vocab,) each was sampled from.
        """
        drafts, q = [[] for _ in sequences], [[] for _ in sequences]
        for turn in range(max(counts)):
            rows = [i for i, count in enumerate(counts) if count > turn]
            unfinished = [sequences[i] for i in rows]
            p = self.predict_last(unfinished, [drafts[i] for i in rows])
            for i, row, token in zip(rows, p, sample(p, randoms(unfinished)), strict=True):
                drafts[i].append(token)
                q[i].append(row)
        return drafts, q

    def predict_last(
        self, sequences: list[GeneratedSequence], drafts: list[list[int]]
    ) -> torch.Tensor:
        """Probabilities of the token after each sequence and its draft, (sequences, vocab)."""
        hidden, step = self._feed(sequences, drafts)
        places = self._places(sequences, drafts, [1] * len(sequences))
        return self.to_probabilities(self.model.logits(hidden[step.last]), place=places)

    def predict_all(
        self, sequences: list[GeneratedSequence], drafts: list[list[int]]
    ) -> Sequence[torch.Tensor]:
        """Probabilities after every token fed: (drafts + 1, vocab) of each sequence."""
        hidden, step = self._feed(sequences, drafts)
        places = self._places(sequences, drafts, step.n_new)
        return self.to_probabilities(self.model.logits(hidden), place=places).split(step.n_new)

    def trim(self, sequences: list[GeneratedSequence], active: list[GeneratedSequence]) -> None:
        """Drop rejected drafts from the cache, and free the sequences that are not active."""
        active = set(active)
        for sequence in [sequence for sequence in sequences if sequence in self.cached]:
            if sequence in active:
                seq = self.cached[sequence]
                length = min(seq.length, len(sequence.tokens) - 1)
                # With a window, pages before the kept tokens may be gone: then start over.
                gone = seq.dropped * self.cache.page_size + (self.cache.window or 0)
                self.cache.truncate(seq, 0 if seq.dropped and length < gone else length)
            else:
                self.cache.free(self.cached.pop(sequence))

    def _places(self, sequences, drafts, counts: list[int]) -> Callable[[int], str]:
        """What names a row of logits, the last ``counts[i]`` of each sequence and its draft."""

        def place(row: int) -> str:
            i = 0
            while row >= counts[i]:
                row -= counts[i]
                i += 1
            position = len(sequences[i].tokens) + len(drafts[i]) - counts[i] + 1 + row
            return f"position {position} of sequence {sequences[i].index}"

        return place

    def _feed(self, sequences: list[GeneratedSequence], drafts: list[list[int]]):
        """Hidden states (tokens, dim) of all tokens that the cache lacks, and the cache's step."""
        seqs = [self.cached[sequence] for sequence in sequences]
        new = [
            [*sequence.tokens, *draft][seq.length :]
            for sequence, draft, seq in zip(sequences, drafts, seqs, strict=True)
        ]
        ids = torch.tensor([token for each in new for token in each], device=self.cache.device)
        with self.cache.step(seqs, [len(each) for each in new]) as step:
            return self.model.hidden(ids, cache=self.cache, step=step), step
