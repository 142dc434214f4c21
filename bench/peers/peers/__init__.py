# SPDX-License-Identifier: MIT
"""Times headwise beside other CPU attention kernels. In reading order:

cases.py, case_sets.py   what is timed
data.py                  inputs, and what the outputs must be
rivals/                  one file per library: how it is called, at its best
worker.py, client.py     one process per library, commanded line by line
rounds.py                the timing: A B C A B C …
sweep.py                 the cases of a run, one after another
figures.py               medians, ratios, and whether they can be believed
report.py, plot.py       JSON, Markdown, SVG
readme.py                the part of a README that is made of them
machine.py               CPU, caches, memory, affinity, what else is running
"""
