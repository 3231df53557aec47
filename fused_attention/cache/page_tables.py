"""Which blocks hold a sequence's keys and values: tables of pages, and the steps that grow them.

Numbers only.  Page ``i`` of a sequence holds the positions ``i * page_size`` onwards; its table
says in which block of the pool.  Sequences share blocks; one is written only by its sole holder
and only while it is unpublished, so what others can see never changes under them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .block_pool import BlockPool, OutOfBlocks, check_int


class Seq:
    """A sequence in the cache.  Made by `PagedKVCache.new` and `PagedKVCache.fork`.

    Attributes:
        length: keys and values it holds, in tokens; grows when a step ends well.
        blocks: the block of every page.  The first ``dropped`` pages have left the window; their
            entries are 0, a block like any other, which no query looks at.
        dropped: pages given back since no later query can see them.
    """

    __slots__ = ("blocks", "dropped", "keys", "length", "live")

    def __init__(self, length: int = 0, blocks: Iterable[int] = (), keys: Iterable[bytes] = ()):
        self.length = length
        self.blocks = array("i", blocks)
        self.dropped = 0
        self.keys = list(keys)  # of its pages, as far as `new` was told the tokens
        self.live = True

    @property
    def held(self) -> list[int]:
        """The blocks it counts as a holder of."""
        return self.blocks[self.dropped :].tolist()

    def __repr__(self) -> str:
        state = f"length={self.length}" if self.live else "freed"
        return f"<Seq {state}>"


@dataclass
class Reservation:
    """What a step has taken from the pool: enough to finish the step, or to undo it."""

    seqs: list[Seq]
    counts: list[int]
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, target) blocks
    _copied: list[tuple[Seq, int]] = field(default_factory=list)  # whose page each copy is
    _grown: list[tuple[Seq, int]] = field(default_factory=list)  # and how many pages it had


class PageTables:
    """The tables of all sequences over one pool.  Every method does all it should, or raises."""

    def __init__(
        self,
        num_blocks: int,
        page_size: int,
        max_seq_len: int,
        window: int | None = None,
        prefix_cache: bool = False,
    ) -> None:
        self.pool = BlockPool(num_blocks)
        self.page_size = page_size
        self.max_seq_len = max_seq_len
        self.window = window
        self.prefix_cache = prefix_cache
        self.live: set[Seq] = set()

    def new(self, tokens: Sequence[int] | None = None) -> Seq:
        """An empty sequence, or one that begins with what others have cached of ``tokens``."""
        keys, blocks, length = [], [], 0
        if tokens is not None and self.prefix_cache:
            keys = page_keys(tokens, self.page_size)
            for key in keys:
                block = self.pool.find(key)
                if block is None:
                    break
                blocks.append(block)
            self.pool.share(blocks)
            # Something must be computed to have an output: the last token, at least.
            length = max(0, min(len(blocks) * self.page_size, len(tokens) - 1))
        seq = Seq(length, blocks, keys)
        self.live.add(seq)
        return seq

    def fork(self, seq: Seq) -> Seq:
        self.check_live(seq)
        self.pool.share(seq.held)
        twin = Seq(seq.length, seq.blocks)  # what it will be fed is not known
        twin.dropped = seq.dropped
        self.live.add(twin)
        return twin

    def free(self, seq: Seq) -> None:
        self.check_live(seq)
        # The end of a prefix is of no use without its beginning, so it is forgotten first.
        self.pool.release(seq.held[::-1])
        self.live.remove(seq)
        seq.live = False
        del seq.blocks[:]

    def truncate(self, seq: Seq, length: int) -> None:
        self.check_live(seq)
        check_int("length", length, 0)
        if length > seq.length:
            raise ValueError(f"length: expected at most {seq.length}, the sequence's, got {length}")
        if length > 0 and self._dead_pages(length) < seq.dropped:
            raise ValueError(
                f"length: the window has dropped keys that a sequence of {length} tokens still "
                f"sees; expected 0, or at least {seq.dropped * self.page_size + self.window}"
            )
        if length == seq.length:
            return
        whole, kept = length // self.page_size, self._pages(length)
        for block in seq.blocks[max(whole, seq.dropped) :]:
            if self.pool.refs(block) == 1:
                self.pool.unpublish(block)
        self.pool.release(seq.blocks[max(kept, seq.dropped) :].tolist()[::-1])
        seq.length = length
        seq.dropped = min(seq.dropped, kept)
        del seq.blocks[kept:], seq.keys[:]

    def reserve(self, seqs: Sequence[Seq], counts: Sequence[int]) -> Reservation:
        """Blocks for ``counts[i]`` more tokens of ``seqs[i]``; pages to be written are exclusive.

        Also gives back the pages that no query from here on can see.

        Raises:
            OutOfBlocks: nothing is taken, and nothing given back.
        """
        self._check_counts(seqs, counts)
        taken = Reservation(list(seqs), list(counts))
        active = [(seq, count) for seq, count in zip(seqs, counts, strict=True) if count]
        copied = [(seq, seq.length // self.page_size) for seq, _ in active if self._must_copy(seq)]
        fresh = [self._pages(seq.length + count) - len(seq.blocks) for seq, count in active]
        dead = [block for seq in seqs for block in self._dead_blocks(seq)]
        needed = len(copied) + sum(fresh)
        free = self.pool.num_free + self._freed_by_releasing(dead)
        if needed > free:
            raise OutOfBlocks(needed, free)
        self._drop_dead_pages(seqs, dead)
        blocks = iter(self.pool.alloc(needed))
        for seq, page in copied:
            target = next(blocks)
            taken.copies.append((seq.blocks[page], target))
            taken._copied.append((seq, page))
            seq.blocks[page] = target
        for (seq, _), more in zip(active, fresh, strict=True):
            taken._grown.append((seq, len(seq.blocks)))
            seq.blocks.extend(next(blocks) for _ in range(more))
        return taken

    def commit(self, taken: Reservation) -> None:
        """The new tokens count, and whole pages of known tokens can be found by others."""
        self.pool.release([source for source, _ in taken.copies])
        for seq, count in zip(taken.seqs, taken.counts, strict=True):
            before = seq.length // self.page_size
            seq.length += count
            whole = min(seq.length // self.page_size, len(seq.keys))
            for page in range(max(before, seq.dropped), whole):
                self.pool.publish(seq.blocks[page], seq.keys[page])

    def cancel(self, taken: Reservation) -> None:
        """Every table is as it was before `reserve`, but for pages that no query could see."""
        for seq, count in taken._grown:
            self.pool.release(seq.blocks[count:].tolist())
            del seq.blocks[count:]
        for (seq, page), (source, target) in zip(taken._copied, taken.copies, strict=True):
            self.pool.release([target])
            seq.blocks[page] = source

    def check(self) -> None:
        """Verify that tables and pool agree; raises RuntimeError naming what does not."""
        self.pool.check()
        held = Counter(block for seq in self.live for block in seq.held)
        for block in range(self.pool.num_blocks):
            if held[block] != self.pool.refs(block):
                raise RuntimeError(
                    f"block {block} is in {held[block]} tables but counts {self.pool.refs(block)}"
                )
        for seq in self.live:
            if len(seq.blocks) != self._pages(seq.length):
                raise RuntimeError(f"{seq} has {len(seq.blocks)} pages")
            if not 0 <= seq.dropped <= self._dead_pages(seq.length):
                raise RuntimeError(f"{seq} has dropped {seq.dropped} pages, some still visible")

    def check_live(self, seq: Seq) -> None:
        if not isinstance(seq, Seq):
            raise TypeError(f"seq: expected a sequence of this cache, got {type(seq).__name__}")
        if not seq.live:
            raise ValueError("seq: this sequence has been freed")
        if seq not in self.live:
            raise ValueError("seq: this sequence belongs to another cache")

    def _check_counts(self, seqs, counts) -> None:
        if len(seqs) != len(counts):
            raise ValueError(f"n_new: expected {len(seqs)}, one a sequence, got {len(counts)}")
        for seq in seqs:
            self.check_live(seq)
        if len(set(seqs)) != len(seqs):
            raise ValueError("seqs: expected each sequence once, got one of them twice")
        for seq, count in zip(seqs, counts, strict=True):
            check_int("n_new", count, 0)
            if seq.length + count > self.max_seq_len:
                raise ValueError(
                    f"n_new: expected at most max_seq_len = {self.max_seq_len} tokens in all, "
                    f"got {seq.length} and {count} more"
                )

    def _must_copy(self, seq: Seq) -> bool:
        """Whether the page of the next token exists and others hold it, or may find it."""
        page = seq.length // self.page_size
        if page >= len(seq.blocks):
            return False
        block = seq.blocks[page]
        return self.pool.refs(block) > 1 or self.pool.is_published(block)

    def _pages(self, length: int) -> int:
        return -(-length // self.page_size)

    def _dead_pages(self, length: int) -> int:
        """Pages at the front that no query at position ``length`` or later can see."""
        return 0 if self.window is None else max(0, length - self.window) // self.page_size

    def _dead_blocks(self, seq: Seq) -> list[int]:
        return seq.blocks[seq.dropped : self._dead_pages(seq.length)].tolist()

    def _freed_by_releasing(self, ids: list[int]) -> int:
        return sum(times == self.pool.refs(block) for block, times in Counter(ids).items())

    def _drop_dead_pages(self, seqs: Sequence[Seq], dead: list[int]) -> None:
        self.pool.release(dead)
        for seq in seqs:
            for page in range(seq.dropped, self._dead_pages(seq.length)):
                seq.blocks[page] = 0
                seq.dropped = page + 1


def page_keys(tokens: Sequence[int], page_size: int) -> list[bytes]:
    """For each whole page of ``tokens``, a hash of the tokens up to its end.

    SHA-256 over the key of the page before and the page's tokens, so that equal keys mean equal
    history, also where somebody tries to construct a collision.
    """
    keys, key = [], b"fused_attention.PagedKVCache"
    for start in range(0, len(tokens) - page_size + 1, page_size):
        page = array("q", tokens[start : start + page_size])
        key = hashlib.sha256(key + page.tobytes()).digest()
        keys.append(key)
    return keys
