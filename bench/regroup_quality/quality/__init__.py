# SPDX-License-Identifier: MIT
"""The parts of fetch_texts, run.py and draw.py. In reading order:

packages.py, clean.py, texts.py   fetch_texts: from Debian's packages to two texts
stream.py                         run.py: what the program prints while it measures
results.py                        what was measured, grouped
report.py, plot.py                Markdown, SVG
files.py                          files that are there whole or not at all
"""
