"""Doctests see ``fc``: a Context whose jobs run in the test's own thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowkit.context import Context


@pytest.fixture(scope="session")
def doctest_context() -> Iterator[Context]:
    """One for all doctests."""
    from flowkit.testing.inline import inline_context

    with inline_context() as context:
        yield context


@pytest.fixture(autouse=True)
def fc_in_doctests(request: pytest.FixtureRequest) -> None:
    """Put it into the names of doctests only."""
    if isinstance(request.node, pytest.DoctestItem):
        names: dict[str, Any] = request.getfixturevalue("doctest_namespace")
        names["fc"] = request.getfixturevalue("doctest_context")
