# SPDX-License-Identifier: MIT
"""examples/regroup/plot_front.py"""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree

from tests.shared import ROOT, InFolder, needs_matplotlib, run


class Fronts(InFolder):
    def plot(self, content: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = self.folder / "front.csv"
        path.write_text(content)
        return run(ROOT / "examples/regroup/plot_front.py", path, "-o", self.folder / "front.svg", *arguments)

    @needs_matplotlib
    def test_a_front_becomes_an_svg_whatever_its_other_columns(self) -> None:
        for content in (
            'capacity,error,groups,partition\n1,0,3,"0,1,2"\n0.333,9.5,1,"0,0,0"\n0.667,2.5,2,"0,0,1"\n',
            "error,layers,capacity\n0,0,1\n2.5,3,0.9\n",
        ):
            done = self.plot(content)
            self.assertEqual(done.returncode, 0, done.stderr)
            made = (self.folder / "front.svg").read_text()
            self.assertTrue(xml.etree.ElementTree.fromstring(made).tag.endswith("svg"))
            self.plot(content)
            self.assertEqual((self.folder / "front.svg").read_text(), made)

    @needs_matplotlib
    def test_what_is_no_front_is_refused_by_line(self) -> None:
        for content, message in (
            ("", "columns 'capacity' and 'error'"),
            ("capacity,groups\n1,2\n", "columns 'capacity' and 'error'"),
            ("capacity,error\n", "no points"),
            ("capacity,error\n1,0\n0.5,much\n", "line 3: error ('much')"),
            ("capacity,error\n1,nan\n", "line 2: error ('nan')"),
            ("capacity,error\n1\n", "line 2: error ('')"),
        ):
            done = self.plot(content)
            self.assertEqual(done.returncode, 1, content)
            self.assertIn(message, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
            self.assertFalse((self.folder / "front.svg").exists())

    @needs_matplotlib
    def test_an_unknown_label_column_and_a_missing_file_are_named(self) -> None:
        done = self.plot("capacity,error,groups\n1,0,3\n", "--label", "heads")
        self.assertIn("--label ('heads') must be one of groups", done.stderr)
        done = run(ROOT / "examples/regroup/plot_front.py", self.folder / "none.csv", "-o", self.folder / "a.svg")
        self.assertIn("none.csv", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
