"""Who needs which content, in the driver."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkit.cluster.contents import ContentUsers, KeptContents
from flowkit.model.ids import ContentId


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_a_content_is_unneeded_exactly_when_its_last_user_goes(steps):
    users, naive = ContentUsers(), {}
    for is_new, name in steps:
        content = ContentId(name)
        if is_new:
            users.add(content)
            naive[name] = naive.get(name, 0) + 1
        elif naive.get(name):
            naive[name] -= 1
            assert users.remove([content]) == ((content,) if not naive[name] else ())
        assert len(users) == sum(1 for count in naive.values() if count)


def test_what_is_forgotten_takes_no_memory_and_no_disk(tmp_path):
    kept = KeptContents(lambda: tmp_path, in_memory_bytes=10)
    kept.keep(ContentId("a"), b"x" * 8)
    kept.keep(ContentId("b"), b"y" * 8)  # the first goes to disk
    for name in ("a", "b", "absent"):
        kept.forget(ContentId(name))
        assert ContentId(name) not in kept
    kept.keep(ContentId("a"), b"x" * 8)
    assert kept.get(ContentId("a")) == b"x" * 8
    kept.close()
