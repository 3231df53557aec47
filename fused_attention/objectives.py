"""Training objectives: collators, which make batches of sequences, and losses, which take them.

    batch = collate(sequences)          # lists or tensors of token ids, each of its own length
    loss = next_token_loss(model, **batch)

Each collator has a random generator of its own: the same seed and the same sequences in the same
order give the same batches.  Losses use `linear_cross_entropy`, which never holds the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from .ops.loss.linear_cross_entropy import linear_cross_entropy

IGNORED = -100


def next_token_loss(model, input_ids, labels, memory=None):
    """Mean loss of a `GPT`.

    With a memory, () for the first segment: (loss, new memory) of a `TransformerXL`.
    """
    if memory is None:
        return linear_cross_entropy(model.hidden(input_ids), model.output_weight, labels)
    hidden, memory = model.hidden(input_ids, memory)
    return linear_cross_entropy(hidden, model.output_weight, labels), memory


def masked_token_loss(model, input_ids, labels, key_padding=None, token_type_ids=None):
    """Mean loss of a `BERT` with mlm_head at the labeled tokens, the only ones it projects."""
    hidden = model(input_ids, token_type_ids, key_padding)
    chosen = labels != IGNORED
    head = model.part("mlm_head")
    x = head(hidden[chosen])
    return linear_cross_entropy(x, model.output_weight, labels[chosen], head.bias)


def span_corruption_loss(model, source_ids, target_ids, labels, key_padding=None):
    """Mean loss of a `Seq2Seq`."""
    hidden = model.hidden(source_ids, target_ids, key_padding)
    return linear_cross_entropy(hidden, model.output_weight, labels)


@dataclass
class NextToken:
    """input_ids, and labels one token ahead; padded on the right, which a causal mask hides."""

    pad_id: int = 0

    def __call__(self, sequences) -> dict[str, torch.Tensor]:
        tokens = _tensors(sequences, 2)
        return {
            "input_ids": _padded([t[:-1] for t in tokens], self.pad_id),
            "labels": _padded([t[1:] for t in tokens], IGNORED),
        }


@dataclass
class MaskedTokens:
    """Masked language modeling, Devlin et al. 2018, section 3.1.

    15 % of the tokens of a sequence, at least one, are predicted.  Of those 80 % become mask_id,
    10 % a random token, and 10 % stay as they are.  special_ids are never chosen.
    """

    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...] = ()
    probability: float = 0.15
    pad_id: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, sequences) -> dict[str, torch.Tensor]:
        tokens = _tensors(sequences, 1)
        masked, labels = zip(*map(self._mask, tokens), strict=True)
        return {
            "input_ids": _padded(masked, self.pad_id),
            "labels": _padded(labels, IGNORED),
            "key_padding": torch.tensor([len(t) for t in tokens]),
        }

    def _mask(self, tokens):
        usual = (~torch.isin(tokens, torch.tensor(self.special_ids, dtype=torch.int64))).nonzero()
        if len(usual) == 0:
            raise ValueError("sequences: expected a token that is not special in each")
        count = max(1, round(self.probability * len(usual)))
        chosen = usual[torch.randperm(len(usual), generator=self.generator)[:count], 0]
        labels = torch.full_like(tokens, IGNORED)
        labels[chosen] = tokens[chosen]
        fate = torch.rand(count, generator=self.generator)
        drawn = torch.randint(self.vocab_size, (count,), generator=self.generator)
        random = torch.where(fate < 0.9, drawn, tokens[chosen])
        return tokens.index_put((chosen,), torch.where(fate < 0.8, self.mask_id, random)), labels


@dataclass
class SpanCorruption:
    """Span corruption, Raffel et al. 2020, section 3.1.4.

    15 % of the tokens, in spans of 3 on average, are removed.  In the source one sentinel replaces
    each span; the target is each sentinel and its span, and a last sentinel.  As in T5, sentinels
    count down from ``sentinel``, and a sequence starts with kept tokens and ends with a span.
    """

    sentinel: int
    num_sentinels: int = 100
    density: float = 0.15
    mean_length: float = 3.0
    start_id: int = 0
    pad_id: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, sequences) -> dict[str, torch.Tensor]:
        sources, targets = zip(*map(self._corrupt, _tensors(sequences, 2)), strict=True)
        start = torch.tensor([self.start_id])
        return {
            "source_ids": _padded(sources, self.pad_id),
            "target_ids": _padded([torch.cat([start, t[:-1]]) for t in targets], self.pad_id),
            "labels": _padded(targets, IGNORED),
            "key_padding": torch.tensor([len(s) for s in sources]),
        }

    def _corrupt(self, tokens):
        lost = min(max(1, round(self.density * len(tokens))), len(tokens) - 1)
        kept = len(tokens) - lost
        spans = min(max(1, round(lost / self.mean_length)), lost, kept)
        if spans >= self.num_sentinels:
            raise ValueError(f"num_sentinels: expected {spans + 1} at least for {len(tokens)}")
        lengths = zip(self._parts(kept, spans), self._parts(lost, spans), strict=True)
        pieces = tokens.split([length for pair in lengths for length in pair])
        source, target = [], []
        for i in range(spans):
            sentinel = torch.tensor([self.sentinel - i])
            source += [pieces[2 * i], sentinel]
            target += [sentinel, pieces[2 * i + 1]]
        return torch.cat(source), torch.cat([*target, torch.tensor([self.sentinel - spans])])

    def _parts(self, total: int, count: int) -> list[int]:
        """Split ``total`` into ``count`` positive parts; every split is equally likely."""
        cuts = torch.randperm(total - 1, generator=self.generator)[: count - 1].sort().values + 1
        return torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([total])).tolist()


def _tensors(sequences, least: int) -> list[torch.Tensor]:
    tokens = [torch.as_tensor(s, dtype=torch.int64) for s in sequences]
    for i, t in enumerate(tokens):
        if t.ndim != 1 or len(t) < least:
            raise ValueError(
                f"sequences: expected {least} tokens or more in each, got {tuple(t.shape)} at {i}"
            )
    if not tokens:
        raise ValueError("sequences: expected one or more, got none")
    return tokens


def _padded(tensors, value: int) -> torch.Tensor:
    return pad_sequence(tensors, batch_first=True, padding_value=value)
