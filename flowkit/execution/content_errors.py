"""Errors of an input's content that keep the type of what raised them: marked where they are met, so that no other try meets them again.

Runs on slot threads. Flowkit's own are ``UserError``; these are Python's, of text that is not in its encoding and of damaged compression.
"""

from __future__ import annotations

import sys
import zlib
from typing import Final

from flowkit.tracebacks import attributes_of

_MARK: Final = "_flowkit_says_of_content"
#: what decompressors raise, by where it is defined: most executors never load these modules
_OF_DECOMPRESSORS: Final = (("gzip", "BadGzipFile"), ("lzma", "LZMAError"))


def mark_if_of_content(error: BaseException, *, local: bool) -> None:
    """Mark what a reader has met in a file, if it says that the content is not what it should be.

    Parameters
    ----------
    local
        Whether the file is this machine's. Its errors have a number, those of bz2 and of Arrow's zstd have none; a store's have none either.
    """
    has_no_number = local and type(error) is OSError and error.errno is None
    if has_no_number or isinstance(error, UnicodeDecodeError | EOFError | zlib.error) or _is_of_decompressor(error):
        attributes_of(error)[_MARK] = True


def take_mark(error: BaseException) -> bool:
    """Whether an error was marked; it is not any more, so that it arrives as its reader raised it."""
    return bool(attributes_of(error).pop(_MARK, False))


def _is_of_decompressor(error: BaseException) -> bool:
    return any(
        isinstance(error, getattr(sys.modules[module], name)) for module, name in _OF_DECOMPRESSORS if module in sys.modules
    )
