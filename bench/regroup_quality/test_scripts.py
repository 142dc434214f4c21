#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests the scripts of this folder and examples/regroup/plot_front.py, without network, model or program.

Exits with 77, which CTest takes for skipped, where nothing failed but a test had no tqdm or no matplotlib to run with.
"""

from __future__ import annotations

import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from tests import draw_test, front_test, run_test, texts_test
from tests.shared import NEEDS

SKIPPED = 77


def main() -> int:
    load = unittest.defaultTestLoader.loadTestsFromModule
    suite = unittest.TestSuite(load(module) for module in (texts_test, run_test, draw_test, front_test))
    done = unittest.TextTestRunner().run(suite)
    if not done.wasSuccessful():
        return 1
    missing = sorted({reason for _, reason in done.skipped if reason.startswith(NEEDS)})
    print("\n".join(missing))
    return SKIPPED if missing else 0


if __name__ == "__main__":
    sys.exit(main())
