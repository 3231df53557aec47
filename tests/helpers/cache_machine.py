"""A state machine that runs random operations on a `PagedKVCache` beside a model of it.

The model is a dictionary of token lists.  The key and value of a token are a fingerprint of all
tokens up to it, so two are equal exactly where the histories are.  Unused blocks are filled with
NaN.  Numbers in comments refer to these invariants, which hold after every operation:

1. unused, cached and held blocks are disjoint, and together make up the pool
2. a block's reference count is the number of block tables that contain it
3. a sequence holds the pages of its length, except those that left its window
4. the slots written in a step are distinct, and only one sequence holds their blocks
5. the cache, read through the block table, has the contents of the model
6. a step that fails, or leaves out a layer, changes nothing
7. a prefix found in the cache has the same tokens and the same history
8. pages that left the window are released, and no query sees one
9. at the end every block is free
10. attention through the cache equals dense attention (tested in `test_paged_kv_cache.py`)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fused_attention as fa
from fused_attention.cache import page_tables
from fused_attention.ops.paged.append import paged_append

PAGE, BLOCKS, MAX_LEN, MAX_SEQS, LAYERS = 16, 12, 84, 3, 2
ODD_ONES = (0, 20, MAX_LEN)  # positions at which prompts differ
COUNTS = st.sampled_from([0, 1, 1, 1, 2, 15, 16, 17, 33])
PICK = st.integers(0, 1000)


def prompt(length: int, odd_one: int) -> list[int]:
    """Tokens that are the same in every prompt, except at position ``odd_one``."""
    return [1000 + i if i != odd_one else 2000 + i for i in range(length)]


class Interrupted(Exception):
    """Raised in the middle of a step, as a failing forward pass would."""


@dataclass
class Twin:
    """The model of a sequence: its tokens, and those of its prompt that are still to be fed."""

    tokens: list[int]
    promised: list[int] = field(default_factory=list)
    furthest: int = 0  # pages were dropped for the window of a query at this position


class CacheMachine(RuleBasedStateMachine):
    """The operations and checks; ``seen`` counts events, so that a test can demand each of them."""

    seen: ClassVar[Counter] = Counter()

    def __init__(self):
        super().__init__()
        self.model: dict = {}
        self.histories: dict = {}
        self.fed = self.operations = 0

    @initialize(
        window=st.sampled_from([None, None, 0, 20, 40]),
        prefix_cache=st.sampled_from([False, True, True]),
    )
    def make(self, window, prefix_cache):
        self.window = window
        self.cache = fa.PagedKVCache(
            *(LAYERS, 1, 1),
            num_blocks=BLOCKS,
            page_size=PAGE,
            dtype=torch.float32,
            window=window,
            prefix_cache=prefix_cache,
            max_seqs=MAX_SEQS,
            max_seq_len=MAX_LEN,
        )

    # Operations

    @rule()
    def new(self):
        seq = self.cache.new()
        assert seq.length == 0
        self.model[seq] = Twin([])

    @rule(
        length=st.sampled_from([1, 15, 16, 17, 32, 33, 48, 60]),
        odd_one=st.sampled_from(ODD_ONES),
        fed=st.booleans(),
        forked=st.sampled_from([False, False, True]),
    )
    def new_with_tokens(self, length, odd_one, fed, forked):
        tokens = prompt(length, odd_one)
        seq = self.cache.new(tokens)
        assert seq.length < length
        assert seq.length % PAGE == 0 or seq.length == length - 1
        self.model[seq] = Twin(tokens[: seq.length], tokens[seq.length :])  # 7, with 5
        self.seen["prefix found"] += seq.length > 0
        self.seen["prefix found whole"] += seq.length % PAGE != 0
        if forked:
            self.fork_of(seq)
        if fed:
            self.attempt([list(self.model).index(seq)], [length], fails=False)

    @precondition(lambda self: self.model)
    @rule(pick=PICK)
    def fork(self, pick):
        self.fork_of(self.pick(pick))

    def fork_of(self, seq):
        free = self.cache.pool.num_free
        twin = self.cache.fork(seq)
        assert self.cache.pool.num_free == free
        self.model[twin] = Twin(list(self.model[seq].tokens), furthest=self.model[seq].furthest)
        self.seen["forked before it was fed"] += len(self.model[seq].promised) >= PAGE

    @precondition(lambda self: self.model)
    @rule(pick=PICK, back=st.sampled_from([0, 1, 2, 17, 40, MAX_LEN]))
    def truncate(self, pick, back):
        seq = self.pick(pick)
        twin = self.model[seq]
        length = max(0, len(twin.tokens) - back)
        if length > 0 and self.dead_pages(length) < seq.dropped:
            assert length < twin.furthest
            self.refused(ValueError, "window", lambda: self.cache.truncate(seq, length))
            self.seen["truncation refused"] += 1
            return
        cut = seq.blocks[max(length // PAGE, seq.dropped) :]
        cut = [block for block in cut if self.cache.pool.refs(block) == 1]
        self.cache.truncate(seq, length)
        if length < len(twin.tokens):
            self.seen["truncated"] += 1
            assert not any(map(self.cache.pool.is_published, cut))  # 7
            self.model[seq] = Twin(twin.tokens[:length], furthest=min(length, twin.furthest))

    @precondition(lambda self: self.model)
    @rule(pick=PICK)
    def free(self, pick):
        seq = self.pick(pick)
        self.cache.free(seq)
        del self.model[seq]
        self.refused(ValueError, "freed", lambda: self.cache.fork(seq))
        self.refused(ValueError, "freed", lambda: self.enter([seq], 1))

    @precondition(lambda self: self.model)
    @rule(picks=st.lists(PICK, min_size=1, max_size=MAX_SEQS), counts=st.tuples(*[COUNTS] * 3))
    def step(self, picks, counts):
        self.attempt(picks, counts, fails=False)

    @precondition(lambda self: self.model)
    @rule(picks=st.lists(PICK, min_size=1, max_size=MAX_SEQS), counts=st.tuples(*[COUNTS] * 3))
    def step_that_fails(self, picks, counts):
        self.attempt(picks, counts, fails=True)

    @precondition(lambda self: self.model)
    @rule(
        picks=st.lists(PICK, min_size=1, max_size=MAX_SEQS),
        counts=st.tuples(*[COUNTS] * 3),
        attended=st.sampled_from([(), (0,), (1,), (0, 0)]),
    )
    def step_that_leaves_out_a_layer(self, picks, counts, attended):
        self.attempt(picks, counts, fails=False, attended=attended)

    @precondition(lambda self: self.model)
    @rule(picks=st.lists(PICK, min_size=MAX_SEQS, max_size=MAX_SEQS))
    def large_step(self, picks):
        self.attempt(picks, (MAX_LEN,) * MAX_SEQS, fails=False)

    @rule()
    def evict(self):
        """Allocate every free block, which evicts all cached ones."""
        pool = self.cache.pool
        self.seen["evicted"] += pool.num_cached
        pool.release(pool.alloc(pool.num_free))
        assert pool.num_cached == 0

    @precondition(lambda self: self.model)
    @rule(pick=PICK)
    def misuse(self, pick):
        seq, cache = self.pick(pick), self.cache
        too_many = MAX_LEN - seq.length + 1
        self.refused(ValueError, "length", lambda: cache.truncate(seq, seq.length + 1))
        self.refused(ValueError, "length", lambda: cache.truncate(seq, -1))
        self.refused(ValueError, "twice", lambda: self.enter([seq, seq], 1))
        self.refused(ValueError, "max_seq_len", lambda: self.enter([seq], too_many))
        self.refused(ValueError, "n_new", lambda: self.enter([seq], -1))
        self.refused(ValueError, "n_new", lambda: self.enter([seq], [1, 1]))

    # Steps of the operations

    def attempt(self, picks, counts, fails, attended=None):
        """A step; ``attended``: the layers that `attend` is called for, all if None."""
        seqs = list(dict.fromkeys(self.pick(pick) for pick in picks))
        counts = [min(n, MAX_LEN - s.length) for n, s in zip(counts, seqs, strict=False)]
        counts = [self.promised_or(seq, n) for seq, n in zip(seqs, counts, strict=True)]
        before = self.state()
        try:
            with self.cache.step(seqs, counts) as step:
                fed = self.feed(step, seqs, counts, fails, attended)
        except fa.OutOfBlocks as error:
            assert self.state() == before  # 6
            self.check_refusal(error, seqs, counts)
            self.seen["out of blocks"] += 1
            return
        except Interrupted:
            assert fails
            self.seen["undone"] += 1
            self.check_undone(before, seqs)  # 6
        except RuntimeError as error:
            missing = sorted(set(range(LAYERS)) - set(attended))
            assert sum(counts) and f"not attended: {', '.join(map(str, missing))};" in str(error)
            self.seen["layer left out"] += 1
            fails = True
            self.check_undone(before, seqs)  # 6
        else:
            assert attended is None or not sum(counts)
            self.seen["committed"] += 1
            self.seen["copied"] += len(step._taken.copies)
            for seq, tokens in zip(seqs, fed, strict=True):
                self.model[seq].tokens += tokens
                del self.model[seq].promised[: len(tokens)]
        for seq in seqs:
            self.model[seq].furthest = seq.length - (0 if fails else counts[seqs.index(seq)])
            assert seq.dropped == max(
                before["tables"][seq][2], self.dead_pages(self.model[seq].furthest)
            )  # 8
            self.seen["pages dropped"] += seq.dropped - before["tables"][seq][2]

    def promised_or(self, seq, count):
        """The count to feed: a sequence made with tokens takes no others until those are fed."""
        promised = len(self.model[seq].promised)
        return min(count, promised) if promised else count

    def feed(self, step, seqs, counts, fails, attended):
        fed = [self.next_tokens(seq, count) for seq, count in zip(seqs, counts, strict=True)]
        grown = [self.model[s].tokens + new for s, new in zip(seqs, fed, strict=True)]
        self.check_slots(step, seqs, counts)  # 4
        for nested in (
            lambda: self.enter(seqs, 1),
            self.cache.new,
            lambda: self.cache.fork(seqs[0]),
            lambda: self.cache.truncate(seqs[0], 0),
            lambda: self.cache.free(seqs[0]),
        ):
            self.refused(RuntimeError, "step", nested)
        new = [self.fingerprints(t)[len(t) - n :] for t, n in zip(grown, counts, strict=True)]
        written = torch.cat(new)[:, None, None]
        if attended is not None:
            for layer in attended:
                self.cache.attend(layer, written, written, written, step)
            return fed
        for layer in range(LAYERS):
            if fails and layer:
                raise Interrupted
            k, v = written + layer / 4, -written - layer / 4
            paged_append(k, v, self.cache.kv[layer], step.slot_mapping)
        if fails:
            raise Interrupted
        step.mark_written()
        for row, (seq, tokens) in enumerate(zip(seqs, grown, strict=True)):
            assert step.seq_lens[row] == len(tokens)
            table = step.block_table[row, : -(-len(tokens) // PAGE)]
            self.check_content(table, tokens, seq.dropped)  # 5, through the table of the step
        return fed

    def next_tokens(self, seq, count):
        promised = self.model[seq].promised[:count]
        if promised:
            return promised
        self.fed += count
        return list(range(self.fed - count, self.fed))

    def fingerprints(self, tokens):
        """One number per token, unique to the tokens up to and including it."""
        numbers, history = [], 0
        for token in tokens:
            history = self.histories.setdefault((history, token), len(self.histories) + 1)
            numbers.append(float(history))
        return torch.tensor(numbers)

    def pick(self, number):
        return list(self.model)[number % len(self.model)]

    def enter(self, seqs, counts):
        with self.cache.step(seqs, counts):
            pytest.fail("the step began")

    def refused(self, error, words, call):
        before = self.state()
        with pytest.raises(error, match=words):
            call()
        assert self.state() == before

    def state(self):
        """The full state of the cache except its keys and values."""
        pool = self.cache.pool
        return {
            "tables": {s: (s.length, s.blocks.tolist(), s.dropped) for s in self.model},
            "refs": list(pool._refs),
            "cached": list(pool._cached),
            "published": dict(pool._key_of),
            "unused": sorted(pool._unused),
        }

    def pages(self, length):
        return -(-length // PAGE)

    def dead_pages(self, length):
        """The number of pages whose last key lies before the window of a query at ``length``."""
        if self.window is None:
            return 0
        seen_from = max(0, length - self.window)
        return sum((page + 1) * PAGE <= seen_from for page in range(self.pages(MAX_LEN)))

    # Checks

    def check_slots(self, step, seqs, counts):
        slots = step.slot_mapping.tolist()
        assert len(set(slots)) == len(slots) == sum(counts)
        at = 0
        for seq, count in zip(seqs, counts, strict=True):
            positions = range(seq.length, seq.length + count)
            assert step.positions[at : at + count].tolist() == list(positions)
            for slot, position in zip(slots[at : at + count], positions, strict=True):
                block = slot // PAGE
                assert block == seq.blocks[position // PAGE] and slot % PAGE == position % PAGE
                assert self.cache.pool.refs(block) == 1
                assert not self.cache.pool.is_published(block)
            at += count
            assert step.last[seqs.index(seq)] == at - 1

    def check_refusal(self, error, seqs, counts):
        """``free`` is exact; ``needed`` is the new pages plus at most one copy per partial page."""
        assert error.needed > error.free
        dead = Counter(
            block for s in seqs for block in s.blocks[s.dropped : self.dead_pages(s.length)]
        )
        freed = sum(self.cache.pool.refs(block) == times for block, times in dead.items())
        assert error.free == self.cache.pool.num_free + freed
        grown = sum(
            self.pages(seq.length + n) - self.pages(seq.length)
            for seq, n in zip(seqs, counts, strict=True)
        )
        partial = sum(seq.length < len(seq.blocks) * PAGE for seq in seqs)
        assert grown <= error.needed <= grown + partial

    def check_undone(self, before, seqs):
        """The tables are as before, except for pages that left the window."""
        for seq, (length, blocks, dropped) in before["tables"].items():
            assert seq.length == length
            assert seq.dropped >= dropped and (seq in seqs or seq.dropped == dropped)
            assert seq.blocks[seq.dropped :].tolist() == blocks[seq.dropped :]

    def check_content(self, blocks, tokens, dropped):
        blocks = torch.as_tensor(blocks, dtype=torch.int64)
        expected = self.fingerprints(tokens)[dropped * PAGE :]
        for layer, kv in enumerate(self.cache.kv):
            k, v = (kv[blocks, side].flatten()[: len(tokens)][dropped * PAGE :] for side in (0, 1))
            assert torch.equal(k, expected + layer / 4)
            assert torch.equal(v, -expected - layer / 4)

    @invariant()
    def books_balance(self):
        if not hasattr(self, "cache"):
            return
        self.operations += 1
        self.cache.check()
        pool = self.cache.pool
        held = Counter(block for seq in self.model for block in seq.blocks[seq.dropped :])
        unused, cached = set(pool._unused), set(pool._cached)
        assert len(unused) == len(pool._unused)
        assert len(unused) + len(cached) + len(held) == BLOCKS  # 1
        assert unused | cached | set(held) == set(range(BLOCKS))
        assert pool.num_free == BLOCKS - len(held)
        assert [held[block] for block in range(BLOCKS)] == pool._refs  # 2
        if not self.cache._tables.prefix_cache:
            assert not pool._key_of
        for kv in self.cache.kv:
            kv[list(unused)] = torch.nan

    @invariant()
    def sequences_hold_what_was_fed(self):
        for seq, twin in self.model.items():
            assert seq.length == len(twin.tokens)
            assert len(seq.blocks) == self.pages(seq.length)  # 3
            assert seq.dropped <= self.dead_pages(seq.length)  # 8
            assert all(0 <= block < BLOCKS for block in seq.blocks)
            self.check_content(seq.blocks, twin.tokens, seq.dropped)  # 5

    @invariant()
    def what_can_be_found_is_what_it_says(self):
        """Invariant 7: a published block has the contents of the prompt that its key stands for."""
        if not hasattr(self, "cache"):
            return
        if not self.cache.pool._key_of:
            return
        for odd_one in ODD_ONES:
            tokens = prompt(MAX_LEN, odd_one)
            for page, key in enumerate(page_tables.page_keys(tokens, PAGE)):
                block = self.cache.pool.find(key)
                if block is not None:
                    expected = self.fingerprints(tokens)[page * PAGE : (page + 1) * PAGE]
                    assert torch.equal(self.cache.kv[0][block, 0].flatten(), expected)

    def teardown(self):
        if not hasattr(self, "cache"):
            return
        for seq in list(self.model):
            self.cache.free(seq)
        assert self.cache.pool.num_free == BLOCKS  # 9
        self.cache.check()
