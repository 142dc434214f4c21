# SPDX-License-Identifier: MIT
"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes a temporary file beside `path` and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)  # mkstemp's file is for its owner alone
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def make_writable_folder(folder: pathlib.Path) -> None:
    """Before long work whose results go there; OSError where they could not."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write into {folder}")


def write_json(path: pathlib.Path, document: dict) -> None:
    """A number that JSON does not have (NaN, infinity) is a ValueError."""
    write_whole(path, (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
