"""The most frequent words of some text files.

python examples/word_count.py README.md docs
"""

from __future__ import annotations

import re
import sys
from operator import add, itemgetter

import flowkit as fk


def main() -> None:
    """Count, and print the first twenty."""
    with fk.Context() as fc:
        lines = fc.text_file(sys.argv[1] if len(sys.argv) > 1 else "README.md")
        words = lines.flat_map(lambda line: re.findall(r"[^\W\d_]+", line.lower()))
        counts = words.map(lambda word: (word, 1)).reduce_by_key(add)
        for word, count in counts.top(20, key=itemgetter(1)):
            print(f"{count:8,}  {word}")


if __name__ == "__main__":
    main()
