# SPDX-License-Identifier: MIT
"""From what `bible` and `pod2text` print to text that runs on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_LABELLED = re.compile(r"(?P<book>\d?[^\d:]+)(?P<chapter>\d+):(?P<verse>\d+) +(?P<text>\S.*)")


def verses_to_prose(printed: str) -> str:
    """Chapters as paragraphs, from lines "Ge1:1 In the beginning …" as `bible -f` prints them.

    Throws ValueError for a line that is none, and where a verse is missing or out of place.
    """
    chapters: list[list[str]] = []
    book, chapter, verse = "", 0, 0
    for line in filter(str.strip, printed.splitlines()):
        found = _LABELLED.fullmatch(line.strip())
        if not found:
            raise ValueError(f"not a verse with its label: {line[:60]!r}")
        here = found["book"], int(found["chapter"]), int(found["verse"])
        if here == (book, chapter, verse + 1):
            chapters[-1].append(found["text"])
        elif here in ((book, chapter + 1, 1), (found["book"], 1, 1)):
            chapters.append([found["text"]])
        else:
            raise ValueError(f"verses left out between {book}{chapter}:{verse} and {line[:60]!r}")
        book, chapter, verse = here
    return "".join(" ".join(" ".join(verses).split()) + "\n\n" for verses in chapters).rstrip("\n") + "\n"


def count_verses(printed: str) -> int:
    return sum(1 for line in printed.splitlines() if line.strip())


def pod_text(printed: bytes) -> str:
    """UTF-8 without what is none, control and invisible characters, blanks at line ends and runs of blank lines."""
    text = printed.decode("utf-8", errors="ignore").replace("\r\n", "\n").replace("\u00a0", " ")
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cn", "Co", "Cs"))
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def join_documents(documents: Iterable[str]) -> str:
    return "\n".join(documents)
