# SPDX-License-Identifier: MIT
"""The parts of fetch_texts, run.py and draw.py."""
