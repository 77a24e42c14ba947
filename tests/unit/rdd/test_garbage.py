"""What the garbage collector finds in the middle of a job disturbs nothing."""

from __future__ import annotations

from flowkit.testing.inline import inline_context


def test_a_cached_rdd_that_is_collected_while_the_scheduler_thinks(monkeypatch):
    with inline_context() as fc:
        kept = [fc.range(20, num_partitions=2).cache() for _ in range(3)]
        for each in kept:
            each.count()
        core, inside = fc._link._core, []
        handle_all = core.handle_all

        def collected_meanwhile(batch, now):
            assert not inside, "the core is asked in the middle of its work"
            inside.append(1)
            if kept:
                kept.pop().unpersist()  # as its finalizer does, on whatever thread the collector runs
            try:
                return handle_all(batch, now)
            finally:
                inside.pop()

        monkeypatch.setattr(core, "handle_all", collected_meanwhile)
        assert fc.range(20, num_partitions=2).map(lambda x: (x % 3, x)).reduce_by_key(lambda a, b: a + b, 2).count() == 3
        assert not kept
        assert fc._link._executor._cache.statistics().block_count == 0
