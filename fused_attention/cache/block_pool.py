"""A pool of numbered blocks: reference counts, prefix caching, eviction.  No tensors here."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from numbers import Integral


class OutOfBlocks(RuntimeError):
    """Fewer blocks are free than were requested; nothing has changed.

    Attributes:
        needed: the number of blocks requested.
        free: the number of blocks available.
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"out of blocks: {needed} needed, {free} free")
        self.needed = needed
        self.free = free

    def __reduce__(self):
        return OutOfBlocks, (self.needed, self.free)


class BlockPool:
    """Allocates the blocks ``0 .. num_blocks - 1`` and counts references to them, O(1) per block.

    A block is held (its reference count is positive), unused, or cached.  A block published under
    a key becomes cached when its reference count falls to zero: `find` still returns it and `share`
    holds it again, until `alloc` evicts it.  Eviction takes the least recently released block
    first.

    Every method either succeeds, or raises and changes nothing.

    Args:
        num_blocks: from 1 to 2**31 - 1, so that an int32 block table can hold every block number.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks = check_int("num_blocks", num_blocks, 1, 2**31 - 1)
        self._refs = [0] * num_blocks
        self._unused = list(range(num_blocks - 1, -1, -1))  # a stack: low numbers on top
        self._cached: OrderedDict[int, None] = OrderedDict()  # the next to evict first
        self._key_of: dict[int, Hashable] = {}
        self._block_of: dict[Hashable, int] = {}

    @property
    def num_free(self) -> int:
        """The number of blocks that `alloc` can hand out, unused or cached."""
        return len(self._unused) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """The number of cached blocks: published, with reference count zero."""
        return len(self._cached)

    def alloc(self, n: int) -> list[int]:
        """Allocate ``n`` blocks, reference count 1 each; evict cached blocks if none are unused.

        Raises:
            OutOfBlocks: fewer than ``n`` blocks are free; none is allocated.
        """
        n = check_int("n", n, 0)
        if n > self.num_free:
            raise OutOfBlocks(n, self.num_free)
        ids = []
        for _ in range(n):
            block = self._unused.pop() if self._unused else self._evict()
            self._refs[block] = 1
            ids.append(block)
        return ids

    def share(self, ids: Sequence[int]) -> None:
        """Add a reference to each block, which must be held or cached.

        Raises:
            ValueError: a block is unused or does not exist.
        """
        ids = self._existing(ids)
        for block in ids:
            if not self._refs[block] and block not in self._cached:
                raise ValueError(f"ids: block {block} is not in use, so it cannot be shared")
        for block in ids:
            self._refs[block] += 1
            self._cached.pop(block, None)

    def release(self, ids: Sequence[int]) -> None:
        """Remove one reference for every occurrence of a block in ``ids``.

        Blocks whose reference count falls to zero can be allocated again: unpublished blocks
        first, then published ones in the order of their release.

        Raises:
            ValueError: a block is released more often than it is held, or does not exist.
        """
        ids = self._existing(ids)
        for block, times in Counter(ids).items():
            if times > self._refs[block]:
                raise ValueError(
                    f"ids: block {block} is released {times} times but held {self._refs[block]}"
                )
        for block in ids:
            self._refs[block] -= 1
            if not self._refs[block]:
                self._retire(block)

    def refs(self, block: int) -> int:
        """The reference count of ``block``."""
        (block,) = self._existing((block,))
        return self._refs[block]

    def publish(self, block: int, key: Hashable) -> None:
        """Let `find` return ``block`` for ``key`` until the block is unpublished or evicted.

        If another block is published under the key already, nothing changes.

        Raises:
            ValueError: the block is not held, or it is published under another key.
        """
        (block,) = self._existing((block,))
        if not self._refs[block]:
            raise ValueError(f"block: expected one that is held, got {block}, which is not")
        if self._key_of.get(block, key) != key:
            raise ValueError(f"block: {block} is published under another key")
        if self._block_of.setdefault(key, block) == block:
            self._key_of[block] = key

    def unpublish(self, block: int) -> None:
        """Remove the key of ``block``, if it has one; a cached block becomes unused."""
        (block,) = self._existing((block,))
        if block in self._key_of:
            del self._block_of[self._key_of.pop(block)]
        if block in self._cached:
            del self._cached[block]
            self._unused.append(block)

    def is_published(self, block: int) -> bool:
        """Whether ``block`` has a key; if so, its content must not change."""
        return block in self._key_of

    def find(self, key: Hashable) -> int | None:
        """The block published under ``key``, or None; `share` the block to keep it."""
        return self._block_of.get(key)

    def check(self) -> None:
        """Verify the bookkeeping; raises RuntimeError naming the inconsistency."""
        unused, cached = set(self._unused), set(self._cached)
        held = {block for block, refs in enumerate(self._refs) if refs > 0}
        faults = {
            "a count of holders is negative": min(self._refs) >= 0,
            "an unused block is listed twice": len(unused) == len(self._unused),
            "a block is in two states": not (unused & cached or unused & held or cached & held),
            "a block is lost": unused | cached | held == set(range(self.num_blocks)),
            "a cached block has no key": cached <= set(self._key_of),
            "an unused block has a key": not unused & set(self._key_of),
            "keys and blocks differ": self._block_of == {k: b for b, k in self._key_of.items()},
        }
        for fault, absent in faults.items():
            if not absent:
                raise RuntimeError(f"BlockPool: {fault}")

    def _retire(self, block: int) -> None:
        if block in self._key_of:
            self._cached[block] = None
        else:
            self._unused.append(block)

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        del self._block_of[self._key_of.pop(block)]
        return block

    def _existing(self, ids: Iterable[int]) -> list[int]:
        """``ids`` as ints; ValueError unless all are block numbers."""
        ids = list(ids)
        for block in ids:
            integral = isinstance(block, Integral) and not isinstance(block, bool)
            if not integral or not 0 <= block < self.num_blocks:
                raise ValueError(
                    f"ids: expected block numbers from 0 to {self.num_blocks - 1}, got {block!r}"
                )
        return list(map(int, ids))


def check_int(name: str, value, low: int, high: float = float("inf")) -> int:
    """``value`` as an int, which NumPy's integers are converted to.

    Raises TypeError if it is no integer or a bool, ValueError outside [low, high].
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not low <= value <= high:
        most = "" if high == float("inf") else f" to {high}"
        expected = f"from {low}{most}" if most else f"at least {low}"
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return int(value)
