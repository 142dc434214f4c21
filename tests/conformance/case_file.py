# SPDX-License-Identifier: MIT
"""Cases of attention with what others say comes out, as one flat file that case_file.hpp reads. Little-endian:

  file       "HWCASES1"  u64 number of cases  case…  "HWCASEND"
  case       text name  u32 number of attributes  {text name, f64}…  u32 number of tensors  tensor…
  tensor     text name  text type (f16, bf16, f32, f64, i32, i64, bool)  u32 rank  i64 sizes…  elements
  text       u32 bytes  UTF-8
"""

from __future__ import annotations

import argparse
import importlib
import struct
import sys
import time
from pathlib import Path

import numpy as np

TYPES = {
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
    "int32": "i32",
    "int64": "i64",
    "bool": "bool",
}


class CaseWriter:
    """Writes to a file beside `path` that takes its name when all is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.part, self.count = path, path.with_suffix(".part"), 0
        self.file = self.part.open("wb")
        self.file.write(b"HWCASES1" + struct.pack("<Q", 0))

    def add(self, name: str, attributes: dict[str, float], tensors: dict[str, np.ndarray]) -> None:
        self._text(name)
        self.file.write(struct.pack("<I", len(attributes)))
        for key, value in attributes.items():
            self._text(key)
            self.file.write(struct.pack("<d", float(value)))
        self.file.write(struct.pack("<I", len(tensors)))
        for key, array in tensors.items():
            self._text(key)
            self._text(TYPES[array.dtype.name])
            self.file.write(struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape))
            self.file.write(np.ascontiguousarray(array).tobytes())
        self.count += 1

    def close(self) -> None:
        self.file.write(b"HWCASEND")
        self.file.seek(8)
        self.file.write(struct.pack("<Q", self.count))
        self.file.close()
        self.part.replace(self.path)

    def _text(self, text: str) -> None:
        data = text.encode()
        self.file.write(struct.pack("<I", len(data)) + data)


def write_cases(what: str, packages: list[str], add_cases) -> int:
    """Runs add_cases(writer) and says how many there are. Where a package is missing there is a file NAME.skipped with the
    reason instead: the test program then skips."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("path", type=Path, help="file to write")
    path = parser.parse_args().path
    skipped = path.with_suffix(".skipped")
    for old in (path, skipped):
        old.unlink(missing_ok=True)
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.import_module(package).__version__}")
        except ImportError as error:
            skipped.write_text(f"the Python package {package} cannot be imported ({error})\n")
            print(f"no cases written: {skipped.read_text().strip()}")
            return 0
    start = time.monotonic()
    writer = CaseWriter(path)
    add_cases(writer)
    writer.close()
    size = path.stat().st_size / 1e6
    seconds = time.monotonic() - start
    print(f"{writer.count} cases ({size:.1f} MB) of {', '.join(versions)} in {seconds:.1f} s", file=sys.stderr)
    return 0
