"""What writes texts: a model, and the keys and values it has of each on a paged cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch

from ..page_tables import Seq
from ..paged_kv_cache import PagedKVCache
from .sampling import distribution, pick


@dataclass(eq=False)
class Text:
    """A sequence that is being written."""

    index: int
    tokens: list[int]
    random: Random

    def __post_init__(self) -> None:
        self.given = len(self.tokens)

    @property
    def count(self) -> int:
        """Tokens that are new."""
        return len(self.tokens) - self.given


class Writer:
    """A model, the keys and values it has of each text, and how its logits become probabilities."""

    def __init__(self, model, cache: PagedKVCache, sampling: tuple) -> None:
        self.model, self.cache, self.sampling = model, cache, sampling
        self.seqs: dict[Text, Seq] = {}

    def begin(self, groups: list[list[Text]]) -> torch.Tensor:
        """Read the prompt that the texts of a group have in common; probabilities after each."""
        firsts = [group[0] for group in groups]
        for text in firsts:
            self.seqs[text] = self.cache.new(text.tokens)
        p = self.last(firsts, [[] for _ in firsts])
        for first, *others in groups:
            for text in others:
                self.seqs[text] = self.cache.fork(self.seqs[first])
        return p

    def guess(self, texts: list[Text], counts: list[int]) -> tuple[list[list[int]], list[list]]:
        """So many tokens after each text, and the probabilities (vocab,) each was drawn from."""
        drafts, q = [[] for _ in texts], [[] for _ in texts]
        for turn in range(max(counts)):
            rows = [i for i, count in enumerate(counts) if count > turn]
            some = [texts[i] for i in rows]
            p = self.last(some, [drafts[i] for i in rows])
            for i, row, token in zip(rows, p, pick(p, randoms(some)), strict=True):
                drafts[i].append(token)
                q[i].append(row)
        return drafts, q

    def last(self, texts: list[Text], drafts: list[list[int]]) -> torch.Tensor:
        """Probabilities of what follows each text and its draft, (texts, vocab)."""
        hidden, step = self._hidden(texts, drafts)
        return self._probabilities(hidden[step.last])

    def every(self, texts: list[Text], drafts: list[list[int]]) -> Sequence[torch.Tensor]:
        """The same after each token that is new to the model: (drafts + 1, vocab) of each text."""
        hidden, step = self._hidden(texts, drafts)
        return self._probabilities(hidden).split(step.n_new)

    def settle(self, texts: list[Text], going: list[Text]) -> None:
        """Cut off guesses that were wrong, and free the texts that end.

        Nothing is kept of a text's last token, so that there is something to feed.
        """
        going = set(going)
        for text in [text for text in texts if text in self.seqs]:
            if text in going:
                seq = self.seqs[text]
                length = min(seq.length, len(text.tokens) - 1)
                # Several steps back, a draft may need pages that its window has given away.
                gone = seq.dropped * self.cache.page_size + (self.cache.window or 0)
                self.cache.truncate(seq, 0 if seq.dropped and length < gone else length)
            else:
                self.cache.free(self.seqs.pop(text))

    def _hidden(self, texts: list[Text], drafts: list[list[int]]):
        """Feed all that is new to the model."""
        seqs = [self.seqs[text] for text in texts]
        new = [
            [*text.tokens, *draft][seq.length :]
            for text, draft, seq in zip(texts, drafts, seqs, strict=True)
        ]
        ids = torch.tensor([token for each in new for token in each], device=self.cache.device)
        with self.cache.step(seqs, [len(each) for each in new]) as step:
            return self.model.hidden(ids, cache=self.cache, step=step), step

    def _probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        return distribution(self.model.logits(hidden), *self.sampling)


def randoms(texts: list[Text]) -> list[Random]:
    return [text.random for text in texts]
