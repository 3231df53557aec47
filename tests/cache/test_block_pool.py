"""The block pool: allocation, release, sharing, eviction and errors.

Tests with a broken pool are in `test_cache_stateful.py` and in `mutation_tables`.
"""

import pickle
import random
import time

import numpy as np
import pytest

from fused_attention import BlockPool, OutOfBlocks
from fused_attention.cache import block_pool

OPERATIONS, BLOCKS, SECONDS = 100_000, 1000, 60


def state(pool):
    return (
        *(list(pool._refs), list(pool._unused), list(pool._cached)),
        *(dict(pool._key_of), dict(pool._block_of)),
    )


def test_blocks_are_distinct_and_come_back():
    pool = BlockPool(5)
    ids = pool.alloc(5)
    assert sorted(ids) == list(range(5))
    assert pool.num_free == 0
    pool.release(ids[1:3])
    assert pool.num_free == 2
    assert set(pool.alloc(2)) == set(ids[1:3])
    pool.check()


def test_all_or_nothing():
    pool = BlockPool(3)
    pool.alloc(1)
    before = state(pool)
    with pytest.raises(OutOfBlocks, match="3 needed, 2 free") as caught:
        pool.alloc(3)
    assert (caught.value.needed, caught.value.free) == (3, 2)
    assert state(pool) == before
    assert pool.alloc(0) == []
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.needed, copy.free) == (3, 2)


def test_a_shared_block_is_free_when_its_last_holder_goes():
    pool = BlockPool(2)
    (block,) = pool.alloc(1)
    pool.share([block, block])
    assert pool.refs(block) == 3
    pool.release([block, block])
    assert pool.num_free == 1
    pool.release([block])
    assert pool.num_free == 2


def test_cached_blocks_are_evicted_oldest_first():
    pool = BlockPool(4)
    ids = pool.alloc(3)
    for block in ids:
        pool.publish(block, f"key {block}")
    pool.release([ids[1], ids[0], ids[2]])
    assert (pool.num_free, pool.num_cached) == (4, 3)
    pool.share([pool.find(f"key {ids[1]}")])
    pool.release([ids[1]])  # most recently used now
    first, second = pool.alloc(1), pool.alloc(1)
    assert first[0] not in ids  # the block that was never used
    assert second == [ids[0]]
    assert pool.find(f"key {ids[0]}") is None
    assert pool.alloc(2) == [ids[2], ids[1]]
    pool.check()


def test_the_first_to_publish_a_key_keeps_it():
    pool = BlockPool(2)
    first, second = pool.alloc(2)
    pool.publish(first, "key")
    pool.publish(first, "key")
    pool.publish(second, "key")
    assert pool.find("key") == first
    assert not pool.is_published(second)
    pool.release([first, second])
    assert pool.num_cached == 1
    pool.check()


def test_unpublished_blocks_are_not_found():
    pool = BlockPool(2)
    held, cached = pool.alloc(2)
    pool.publish(held, "held")
    pool.publish(cached, "cached")
    pool.release([cached])
    for block in (held, cached):
        pool.unpublish(block)
        pool.unpublish(block)
    assert pool.find("held") is pool.find("cached") is None
    assert (pool.num_free, pool.num_cached) == (1, 0)
    pool.check()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda pool: pool.release([2]), ValueError, "block 2 is released 1 times but held 0"),
        (lambda pool: pool.release([0, 0]), ValueError, "block 0 is released 2 times but held 1"),
        (lambda pool: pool.release([0, 3]), ValueError, "from 0 to 2, got 3"),
        (lambda pool: pool.release([0, -1]), ValueError, "from 0 to 2, got -1"),
        (lambda pool: pool.release([0, True]), ValueError, "got True"),
        (lambda pool: pool.share([0, 2]), ValueError, "block 2 is not in use"),
        (lambda pool: pool.share([0, 5]), ValueError, "got 5"),
        (lambda pool: pool.alloc(-1), ValueError, "n: expected at least 0, got -1"),
        (lambda pool: pool.alloc(1.0), TypeError, "n: expected an int, got float"),
        (lambda pool: pool.publish(2, "key"), ValueError, "got 2, which is not"),
        (lambda pool: pool.publish(0, "other"), ValueError, "0 is published under another key"),
        (lambda pool: pool.unpublish(7), ValueError, "got 7"),
    ],
)
def test_bad_calls_raise_and_change_nothing(call, error, words):
    pool = BlockPool(3)
    pool.alloc(2)
    pool.publish(0, "key")
    before = state(pool)
    with pytest.raises(error, match=words):
        call(pool)
    assert state(pool) == before


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_integers_of_numpy(kind):
    pool, plain = BlockPool(kind(3)), BlockPool(3)
    for each, number in ((pool, kind), (plain, int)):
        held = each.alloc(number(2))
        each.share([number(0)])
        each.publish(number(0), "key")
        each.release(map(number, [1, 0, 0]))
        each.unpublish(number(0))
        assert held == [0, 1] and each.refs(number(0)) == 0
    assert state(pool) == state(plain)
    assert all(type(block) is int for block in pool._unused)


@pytest.mark.parametrize("num_blocks", [0, -1, 2**31, 1.5, True, None])
def test_a_pool_needs_at_least_one_block(num_blocks):
    with pytest.raises((ValueError, TypeError), match="num_blocks: expected"):
        BlockPool(num_blocks)


@pytest.mark.parametrize(
    "damage",
    [
        lambda pool: pool._refs.__setitem__(0, 0),
        lambda pool: pool._refs.__setitem__(3, -1),
        lambda pool: pool._unused.append(3),
        lambda pool: pool._unused.pop(),
        lambda pool: pool._unused.append(0),
        lambda pool: pool._cached.__setitem__(3, None),
        lambda pool: pool._key_of.__setitem__(3, "other"),
        lambda pool: pool._block_of.__setitem__("key", 1),
        lambda pool: pool._block_of.clear(),
    ],
)
def test_check_detects_inconsistent_state(damage):
    pool = BlockPool(4)
    pool.alloc(2)
    pool.publish(0, "key")
    pool.check()
    damage(pool)
    with pytest.raises(RuntimeError, match="BlockPool: "):
        pool.check()


def soak(pool: BlockPool, operations: int, seed: int) -> dict[int, int]:
    """Run random operations, some of them invalid; returns the reference counts at the end."""
    draw = random.Random(seed)
    held: dict[int, int] = {}
    for number in range(operations):
        some = [block for block in draw.choices(range(pool.num_blocks), k=16) if block in held]
        some = list(dict.fromkeys(some))
        match draw.randrange(6):
            case 0 | 1:
                wanted = draw.randrange(16)
                if wanted <= pool.num_free:
                    held |= dict.fromkeys(pool.alloc(wanted), 1)
                else:
                    with pytest.raises(OutOfBlocks):
                        pool.alloc(wanted)
            case 2:
                pool.share(some[:2])
                for block in some[:2]:
                    held[block] += 1
            case 3 | 4:
                pool.release(some)
                for block in some:
                    held[block] -= 1
                    if not held[block]:
                        del held[block]
            case 5:
                for block in some[:3]:
                    pool.unpublish(block)
                    pool.publish(block, (number, block))
                free = draw.randrange(pool.num_blocks)
                if free not in held:
                    with pytest.raises(ValueError):
                        pool.release([*some, free])
        if number % 1000 == 0:
            pool.check()
            assert pool.num_free == pool.num_blocks - len(held)
    return held


def test_soak(record_property):
    pool = BlockPool(BLOCKS)
    started = time.perf_counter()
    held = soak(pool, OPERATIONS, seed=0)
    seconds = time.perf_counter() - started
    assert len(held) > BLOCKS / 2 and pool.num_cached > 0  # the pool was well used
    pool.release([block for block, times in held.items() for _ in range(times)])
    pool.check()
    assert pool.num_free == BLOCKS
    assert seconds < SECONDS
    record_property("operations_per_second", OPERATIONS / seconds)
    print(f"{OPERATIONS / seconds:,.0f} operations a second, checks and bookkeeping included")


def test_a_block_costs_the_same_in_a_large_pool():
    """Allocate a million blocks, most of them cached, one by one: O(n²) would take hours."""
    pool = BlockPool(10**6)
    ids = pool.alloc(10**6)
    for block in ids:
        pool.publish(block, block)
    pool.release(ids)
    for _ in range(10**5):
        pool.alloc(1)
    assert pool.num_cached == 10**6 - 10**5


def test_the_pool_does_not_import_torch():
    """The pool manages integers; it needs no tensors."""
    with open(block_pool.__file__, encoding="utf-8") as file:
        assert "torch" not in file.read()
