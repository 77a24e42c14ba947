"""One suite, every way to run it: in this thread, there with next to no memory, on threads, on processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import flowkit as fk
from flowkit.execution import executor, spill
from flowkit.testing.inline import inline_context


@pytest.fixture(
    scope="module",
    params=[
        "inline",
        "spilling",
        pytest.param("threads", marks=pytest.mark.cluster),
        pytest.param("processes", marks=pytest.mark.cluster),
    ],
)
def fc(request: pytest.FixtureRequest) -> Iterator[fk.Context]:
    """A context with two slots; of processes each has its own hash seed."""
    with pytest.MonkeyPatch.context() as patch:
        match request.param:
            case "inline":
                context = inline_context()
            case "spilling":
                patch.setattr(spill, "SMALLEST_TABLE_BYTES", 0)
                patch.setattr(executor, "usable_bytes", lambda *_: 20_000)
                context = inline_context()
            case "threads":
                context = fk.Context(workers=2, processes=False, progress="off")
            case _:
                context = fk.Context(workers=2, progress="off")
        with context:
            yield context
