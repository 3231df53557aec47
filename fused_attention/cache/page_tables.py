"""Block tables of sequences over one pool, and the steps that extend them.  No tensors here.

Page ``i`` of a sequence holds the positions from ``i * page_size`` on; entry ``i`` of the
sequence's block table is the block of the pool that stores the page.  Sequences share blocks with
copy-on-write: a sequence writes to a block only if no other sequence holds it and it is
unpublished.
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
        length: the number of tokens whose keys and values are cached; a successful step adds to it.
        blocks: the block table: the block of every page.  The first ``dropped`` entries are 0, a
            valid block number, but no query reads those pages.
        dropped: the number of pages released because they lie before the window of later queries.
    """

    __slots__ = ("blocks", "dropped", "keys", "length", "live")

    def __init__(self, length: int = 0, blocks: Iterable[int] = (), keys: Iterable[bytes] = ()):
        self.length = length
        self.blocks = array("i", blocks)
        self.dropped = 0
        self.keys = list(keys)  # page keys, for the tokens that `new` was given
        self.live = True

    @property
    def held(self) -> list[int]:
        """The blocks to which the sequence has a reference."""
        return self.blocks[self.dropped :].tolist()

    def __repr__(self) -> str:
        state = f"length={self.length}" if self.live else "freed"
        return f"<Seq {state}>"


@dataclass
class Reservation:
    """The blocks that a step has allocated, with the records to commit or cancel the step."""

    seqs: list[Seq]
    counts: list[int]
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, target) blocks
    _copied: list[tuple[Seq, int]] = field(default_factory=list)  # (sequence, page) of each copy
    _grown: list[tuple[Seq, int]] = field(default_factory=list)  # (sequence, pages before)


class PageTables:
    """The block tables of all sequences over one pool.

    Every method either succeeds, or raises and changes nothing.
    """

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
        """A new sequence that starts with the longest cached prefix of ``tokens``, if any."""
        keys, blocks, length = [], [], 0
        if tokens is not None and self.prefix_cache:
            keys = page_keys(tokens, self.page_size)
            for key in keys:
                block = self.pool.find(key)
                if block is None:
                    break
                blocks.append(block)
            self.pool.share(blocks)
            # Leave at least the last token to the next step, which must compute its output.
            length = max(0, min(len(blocks) * self.page_size, len(tokens) - 1))
        seq = Seq(length, blocks, keys)
        self.live.add(seq)
        return seq

    def fork(self, seq: Seq) -> Seq:
        self.check_live(seq)
        self.pool.share(seq.held)
        twin = Seq(seq.length, seq.blocks)  # no page keys: its next tokens are unknown
        twin.dropped = seq.dropped
        self.live.add(twin)
        return twin

    def free(self, seq: Seq) -> None:
        self.check_live(seq)
        # Release the last page first, so that it is evicted first: a page is found only together
        # with all pages before it.
        self.pool.release(seq.held[::-1])
        self.live.remove(seq)
        seq.live = False
        del seq.blocks[:]

    def truncate(self, seq: Seq, length: int) -> None:
        self.check_live(seq)
        length = check_int("length", length, 0)
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
        """Allocate blocks for ``counts[i]`` more tokens of ``seqs[i]``.

        A shared page that will be written gets a new block, to which the caller must copy its
        content (``copies`` of the result).  Pages that no query from now on can see are released.

        Raises:
            OutOfBlocks: too few blocks are free; nothing is allocated or released.
        """
        counts = self._check_counts(seqs, counts)
        taken = Reservation(list(seqs), counts)
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
        """Add the new tokens to the lengths, and publish the full pages whose tokens are known."""
        self.pool.release([source for source, _ in taken.copies])
        for seq, count in zip(taken.seqs, taken.counts, strict=True):
            before = seq.length // self.page_size
            seq.length += count
            whole = min(seq.length // self.page_size, len(seq.keys))
            for page in range(max(before, seq.dropped), whole):
                self.pool.publish(seq.blocks[page], seq.keys[page])

    def cancel(self, taken: Reservation) -> None:
        """Undo `reserve`, except that pages which no query can see stay released."""
        for seq, count in taken._grown:
            self.pool.release(seq.blocks[count:].tolist())
            del seq.blocks[count:]
        for (seq, page), (source, target) in zip(taken._copied, taken.copies, strict=True):
            self.pool.release([target])
            seq.blocks[page] = source

    def check(self) -> None:
        """Verify that block tables and pool agree; raises RuntimeError naming the inconsistency."""
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

    def _check_counts(self, seqs, counts) -> list[int]:
        if len(seqs) != len(counts):
            raise ValueError(f"n_new: expected {len(seqs)}, one a sequence, got {len(counts)}")
        for seq in seqs:
            self.check_live(seq)
        if len(set(seqs)) != len(seqs):
            raise ValueError("seqs: expected each sequence once, got one of them twice")
        counts = [check_int("n_new", count, 0) for count in counts]
        for seq, count in zip(seqs, counts, strict=True):
            if seq.length + count > self.max_seq_len:
                raise ValueError(
                    f"n_new: expected at most max_seq_len = {self.max_seq_len} tokens in all, "
                    f"got {seq.length} and {count} more"
                )
        return counts

    def _must_copy(self, seq: Seq) -> bool:
        """Whether the next token goes into an existing page whose block is shared or published."""
        page = seq.length // self.page_size
        if page >= len(seq.blocks):
            return False
        block = seq.blocks[page]
        return self.pool.refs(block) > 1 or self.pool.is_published(block)

    def _pages(self, length: int) -> int:
        return -(-length // self.page_size)

    def _dead_pages(self, length: int) -> int:
        """The number of leading pages that no query at position ``length`` or later can see."""
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
    """The key of each full page of ``tokens``: a hash of all tokens up to the end of the page.

    SHA-256 of the previous page's key and the page's tokens, so that equal keys mean equal
    prefixes, even against deliberate collisions.
    """
    keys, key = [], b"fused_attention.PagedKVCache"
    for start in range(0, len(tokens) - page_size + 1, page_size):
        page = array("q", tokens[start : start + page_size])
        key = hashlib.sha256(key + page.tobytes()).digest()
        keys.append(key)
    return keys
