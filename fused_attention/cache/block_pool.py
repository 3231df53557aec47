"""Blocks of memory by number: who holds each, and which may be taken back.  No tensors here."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence


class OutOfBlocks(RuntimeError):
    """More blocks were asked for than the pool can give; nothing has changed.

    Attributes:
        needed: blocks asked for.
        free: blocks there are.
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"out of blocks: {needed} needed, {free} free")
        self.needed = needed
        self.free = free

    def __reduce__(self):
        return OutOfBlocks, (self.needed, self.free)


class BlockPool:
    """Hands out the blocks ``0 .. num_blocks - 1`` and counts their holders, O(1) a block.

    A block is held (by one holder or several), unused, or cached.  Cached is what happens to a
    block that was published under a key, once nobody holds it: whoever finds it by its key may
    share it again, until `alloc` needs it for something else.  Those released first go first.

    Every method either does all it was asked or raises and changes nothing.

    Args:
        num_blocks: from 1 to 2**31 - 1, what a block table of int32 can name.
    """

    def __init__(self, num_blocks: int) -> None:
        check_int("num_blocks", num_blocks, 1, 2**31 - 1)
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._unused = list(range(num_blocks - 1, -1, -1))  # a stack: low numbers first
        self._cached: OrderedDict[int, None] = OrderedDict()  # the next to go first
        self._key_of: dict[int, Hashable] = {}
        self._block_of: dict[Hashable, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks `alloc` can hand out: unused and cached."""
        return len(self._unused) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks nobody holds that can still be found by their key."""
        return len(self._cached)

    def alloc(self, n: int) -> list[int]:
        """``n`` blocks with one holder each; cached ones are taken when no unused are left.

        Raises:
            OutOfBlocks: there are fewer than ``n``; none is taken.
        """
        check_int("n", n, 0)
        if n > self.num_free:
            raise OutOfBlocks(n, self.num_free)
        ids = []
        for _ in range(n):
            block = self._unused.pop() if self._unused else self._evict()
            self._refs[block] = 1
            ids.append(block)
        return ids

    def share(self, ids: Sequence[int]) -> None:
        """Add a holder to each block: to those held already, and to cached ones.

        Raises:
            ValueError: a block that is unused, or does not exist.
        """
        for block in self._existing(ids):
            if not self._refs[block] and block not in self._cached:
                raise ValueError(f"ids: block {block} is not in use, so it cannot be shared")
        for block in ids:
            self._refs[block] += 1
            self._cached.pop(block, None)

    def release(self, ids: Sequence[int]) -> None:
        """Take a holder from each block, as often as it is named.

        Blocks that lose their last holder can be allocated again: first those without a key,
        then the others in the order in which they were released.

        Raises:
            ValueError: a block is released more often than it is held, or does not exist.
        """
        for block, times in Counter(self._existing(ids)).items():
            if times > self._refs[block]:
                raise ValueError(
                    f"ids: block {block} is released {times} times but held {self._refs[block]}"
                )
        for block in ids:
            self._refs[block] -= 1
            if not self._refs[block]:
                self._retire(block)

    def refs(self, block: int) -> int:
        """How many hold ``block``."""
        self._existing((block,))
        return self._refs[block]

    def publish(self, block: int, key: Hashable) -> None:
        """Let ``block`` be found by ``key`` until it is unpublished or evicted.

        Where another block has the key, that one keeps it.

        Raises:
            ValueError: nobody holds the block, or it has another key.
        """
        if not self.refs(block):
            raise ValueError(f"block: expected one that is held, got {block}, which is not")
        if self._key_of.get(block, key) != key:
            raise ValueError(f"block: {block} is published under another key")
        if self._block_of.setdefault(key, block) == block:
            self._key_of[block] = key

    def unpublish(self, block: int) -> None:
        """Let ``block`` be found no more; nothing happens if it could not be."""
        self._existing((block,))
        if block in self._key_of:
            del self._block_of[self._key_of.pop(block)]
        if block in self._cached:
            del self._cached[block]
            self._unused.append(block)

    def is_published(self, block: int) -> bool:
        """Whether others may find ``block``: then its content must not change."""
        return block in self._key_of

    def find(self, key: Hashable) -> int | None:
        """The block published under ``key``; `share` it to keep it."""
        return self._block_of.get(key)

    def check(self) -> None:
        """Verify that the books balance; raises RuntimeError naming what does not."""
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

    def _existing(self, ids: Iterable[int]) -> Iterable[int]:
        for block in ids:
            if type(block) is not int or not 0 <= block < self.num_blocks:
                raise ValueError(
                    f"ids: expected block numbers from 0 to {self.num_blocks - 1}, got {block!r}"
                )
        return ids


def check_int(name: str, value, low: int, high: float = float("inf")) -> None:
    """Raise unless ``value`` is an int, and no bool, from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not low <= value <= high:
        most = "" if high == float("inf") else f" to {high}"
        expected = f"from {low}{most}" if most else f"at least {low}"
        raise ValueError(f"{name}: expected {expected}, got {value}")
