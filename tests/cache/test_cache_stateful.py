"""The paged cache against a model of it, and broken caches that the comparison must detect.

`mutation_tables` breaks the same code in its source.  A failing example is not shrunk; add
`Phase.shrink` to find the shortest sequence of operations that fails.
"""

from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fused_attention.cache.block_pool import BlockPool
from fused_attention.cache.page_tables import PageTables

from ..helpers.cache_machine import CacheMachine

RUNS, STEPS = 300, 50
EXAMPLES = 560  # a third of them end early
HAPPENS = {
    *("committed", "copied", "undone", "out of blocks", "evicted", "pages dropped"),
    *("prefix found", "prefix found whole", "truncated", "truncation refused"),
    *("forked before it was fed", "layer left out"),
}


def run() -> Counter:
    """Run the machine; returns how often each event occurred, and "whole runs" of STEPS."""

    class Machine(CacheMachine):
        seen: ClassVar[Counter] = Counter()

        def teardown(self):
            super().teardown()
            self.seen["whole runs"] += self.operations >= STEPS

    options = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=options)
    return Machine.seen


def test_any_sequence_of_operations():
    seen = run()
    assert seen["whole runs"] >= RUNS
    assert {what: seen[what] for what in HAPPENS if seen[what] < 10} == {}


def no_copy_on_write(patch):
    patch.setattr(PageTables, "_must_copy", lambda tables, seq: False)


def copy_what_is_held_but_not_what_is_published(patch):
    def must_copy(tables, seq):
        page = seq.length // tables.page_size
        return page < len(seq.blocks) and tables.pool.refs(seq.blocks[page]) > 1

    patch.setattr(PageTables, "_must_copy", must_copy)


def release_twice(patch):
    """Release every block twice, so that one with another holder becomes unused."""

    def release(pool, ids):
        for block in [*ids, *ids]:
            pool._refs[block] = max(0, pool._refs[block] - 1)
            if not pool._refs[block]:
                pool._retire(block)

    patch.setattr(BlockPool, "release", release)


def publish_before_commit(patch):
    reserve = PageTables.reserve

    def eager(tables, seqs, counts):
        taken = reserve(tables, seqs, counts)
        for seq, count in zip(seqs, counts, strict=True):
            whole = (seq.length + count) // tables.page_size
            for page in range(seq.length // tables.page_size, min(whole, len(seq.keys))):
                tables.pool.publish(seq.blocks[page], seq.keys[page])
        return taken

    patch.setattr(PageTables, "reserve", eager)


def forget_to_undo(patch):
    patch.setattr(PageTables, "cancel", PageTables.commit)


def leak_when_undone(patch):
    patch.setattr(PageTables, "cancel", lambda tables, taken: None)


def keep_what_is_truncated_published(patch):
    patch.setattr(BlockPool, "unpublish", lambda pool, block: None)


def drop_pages_too_early(patch):
    dead = PageTables._dead_pages
    patch.setattr(PageTables, "_dead_pages", lambda tables, n: dead(tables, n + tables.page_size))


def drop_pages_never(patch):
    patch.setattr(PageTables, "_drop_dead_pages", lambda tables, seqs, dead: None)


def share_without_counting(patch):
    patch.setattr(BlockPool, "share", lambda pool, ids: None)


def keys_without_history(patch):
    from fused_attention.cache import page_tables

    def page_keys(tokens, page_size):
        whole = len(tokens) // page_size
        return [repr(tokens[i * page_size : (i + 1) * page_size]) for i in range(whole)]

    patch.setattr(page_tables, "page_keys", page_keys)


@pytest.mark.parametrize(
    "sabotage",
    [
        no_copy_on_write,
        copy_what_is_held_but_not_what_is_published,
        release_twice,
        publish_before_commit,
        forget_to_undo,
        leak_when_undone,
        keep_what_is_truncated_published,
        drop_pages_too_early,
        drop_pages_never,
        share_without_counting,
        keys_without_history,
    ],
)
def test_a_broken_cache_is_noticed(sabotage, monkeypatch):
    sabotage(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, ValueError, IndexError, KeyError)):
        run()
