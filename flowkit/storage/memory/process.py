"""What this process holds of the machine's memory, and giving back what it holds and does not use."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any


def private_bytes() -> int:
    """What this process holds alone; 0 where the system does not tell.

    >>> private_bytes() >= 0
    True
    """
    try:
        _size, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _page_bytes()


@cache
def _page_bytes() -> int:
    import resource

    return resource.getpagesize()


def trim() -> None:
    """Give what is free back to the system."""
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    if (libc := _libc()) is not None:
        libc.malloc_trim(0)


@cache
def _libc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        _ = libc.malloc_trim  # glibc alone has it
    except (OSError, AttributeError):
        return None
    return libc
