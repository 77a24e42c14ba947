"""The option that writes the expected files anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when the command line names this folder."""
    parser.addoption("--update-golden", action="store_true", help="write expected files anew instead of comparing")
