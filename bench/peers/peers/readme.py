# SPDX-License-Identifier: MIT
"""The parts of a README that are made of measurements."""

from __future__ import annotations

import pathlib


def replace_between_markers(path: pathlib.Path, name: str, text: str) -> None:
    """Replaces what stands between the comments NAME:begin and NAME:end; ValueError where they are not as they should."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = path.read_text()
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(end) < content.index(begin):
        raise ValueError(f"{path} must hold one line '{begin}' and, after it, one '{end}'")
    head, rest = content.split(begin)
    path.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")
