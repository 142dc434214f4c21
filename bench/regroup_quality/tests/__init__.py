# SPDX-License-Identifier: MIT
"""Run by ../test_scripts.py."""
