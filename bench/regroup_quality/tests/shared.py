# SPDX-License-Identifier: MIT
"""What the tests share."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

FOLDER = pathlib.Path(__file__).resolve().parent.parent
ROOT = FOLDER.parent.parent
NEEDS = "needs "  # a test that is skipped for a reason that begins so could run elsewhere
needs_tqdm = unittest.skipUnless(importlib.util.find_spec("tqdm"), NEEDS + "tqdm (Debian: python3-tqdm)")
needs_matplotlib = unittest.skipUnless(
    importlib.util.find_spec("matplotlib"), NEEDS + "matplotlib (Debian: python3-matplotlib)"
)


def run(script: str | pathlib.Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="regroup-quality-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)


def measurement(experiment: str, text: str, name: str, cross_entropy: float, **more: object) -> dict:
    result = {"experiment": experiment, "text": text, "name": name, "cross_entropy": cross_entropy}
    return result | {"perplexity": 2.0**cross_entropy, "kl": None, "kv_bytes_per_token": None} | more
