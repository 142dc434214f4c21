# SPDX-License-Identifier: MIT
"""draw.py"""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree

from quality import report, results
from tests.shared import InFolder, measurement, needs_matplotlib, run


def document(*more: dict) -> dict:
    measured = list(more)
    for number, text in enumerate(("bible", "perl")):
        base = 2.0 + number
        measured.append(measurement("baseline", text, "as it is", base, kl=0.0, kv_bytes_per_token=23040))
        for layer in range(3):
            for method in ("mean", "first"):
                measured.append(
                    measurement(
                        "one_layer",
                        text,
                        f"{method} {layer}",
                        base + layer,
                        kl=0.1 * layer,
                        kv_bytes_per_token=22528,
                        layer=layer,
                        method=method,
                    )
                )
        measured.append(measurement("layers", text, "mean, all", base + 5, kl=4.0, kv_bytes_per_token=7680))
        for capacity in (0.25, 0.5, 1.0):
            name, error = f"capacity {capacity}", 1 / capacity - 1
            measured.append(measurement("qcqa", text, name, base + error, capacity=capacity, error=error))
        for experiment in ("degroup", "cla", "key_driven", "asym"):
            measured.append(measurement(experiment, text, "some <way> & $_{other$", base + 1, kl=1.0))
    taken, machine, model = "2025-01-02T03:04:05+00:00", {"cpu": "A CPU"}, {"file": "model.gguf"}
    described = {"bible": {"file": "bible.txt", "origin": "King James Bible"}, "perl": {"file": "perl.txt"}}
    settings = {"tokens": 64, "seed": 1, "experiments": ["qcqa"]}
    named = {"taken": taken, "machine": machine, "versions": {}, "model": model, "texts": described}
    return named | {"settings": settings, "results": measured}


class Drawn(InFolder):
    def draw(self, made: dict | str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = self.folder / "quality.json"
        path.write_text(made if isinstance(made, str) else json.dumps(made))
        return run("draw.py", "--json", path, "--output", self.folder / "out", *arguments)

    def test_the_table_has_a_line_for_each_experiment_and_name(self) -> None:
        lines = report.table(document(measurement("new", "bible", "a|b", 3.0)))
        self.assertEqual(len(lines), 2 + 1 + 2 + 1 + 4 + 3 + 1)
        heads = "| experiment | name | perplexity, bible | perplexity, perl | KL, bible | KL, perl | KV bytes/token |"
        self.assertEqual(lines[0], heads)
        self.assertEqual(lines[2], "| the model as it is | as it is | 4.000 | 8.000 | 0 | 0 | 23,040 |")
        self.assertIn("| one layer converted | mean (median of 3) | 8.000 | 16.00 | 0.100 | 0.100 | 22,528 |", lines)
        self.assertIn("| several layers converted | mean, all | 128.0 | 256.0 | 4.00 | 4.00 | 7,680 |", lines)
        self.assertEqual(lines[-1], "| new | a\\|b | 8.000 | – | – | – | – |")

    def test_numbers_keep_their_digits(self) -> None:
        for value, text in (
            (0.0, "0"),
            (9.999, "10.0"),
            (0.01234, "0.0123"),
            (12345.6, "12,346"),
            (1e-5, "1.0e-05"),
            (None, "–"),
        ):
            self.assertEqual(report.number(value), text)

    @needs_matplotlib
    def test_the_readme_changes_between_the_markers_only(self) -> None:
        readme = self.folder / "README.md"
        readme.write_text("before\n<!-- regroup-quality:begin -->\nold\n<!-- regroup-quality:end -->\nafter\n")
        done = self.draw(document(), "--readme", readme)
        self.assertEqual(done.returncode, 0, done.stderr)
        content = readme.read_text()
        table = report.markdown(document())
        self.assertEqual(
            content, f"before\n<!-- regroup-quality:begin -->\n{table}\n<!-- regroup-quality:end -->\nafter\n"
        )
        self.assertIn("model.gguf; tokens 64, seed 1; A CPU, 2025-01-02.", content)
        self.draw(document(), "--readme", readme)
        self.assertEqual(readme.read_text(), content)

    def test_a_readme_without_its_markers_is_left_alone(self) -> None:
        readme = self.folder / "README.md"
        for content in ("text\n", "<!-- regroup-quality:end --><!-- regroup-quality:begin -->\n"):
            readme.write_text(content)
            done = self.draw(document(), "--readme", readme)
            self.assertEqual(done.returncode, 1)
            self.assertIn("must hold one line '<!-- regroup-quality:begin -->'", done.stderr)
            self.assertEqual(readme.read_text(), content)

    def svg(self) -> str:
        """Its text, as far as it stands there as comments; ParseError where it is no XML."""
        path = self.folder / "out/quality.svg"
        self.assertTrue(xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg"))
        return "\n".join(line.strip() for line in path.read_text().splitlines() if "<!-- " in line)

    @needs_matplotlib
    def test_the_figure_is_well_formed_and_the_same_each_time(self) -> None:
        self.assertEqual(self.draw(document()).returncode, 0)
        first, content = self.svg(), (self.folder / "out/quality.svg").read_bytes()
        for title in list(results.EXPERIMENTS.values())[1:]:
            self.assertIn(title, first)
        self.assertNotIn("not measured", first)
        self.assertEqual(self.draw(document()).returncode, 0)
        self.assertEqual((self.folder / "out/quality.svg").read_bytes(), content)

    @needs_matplotlib
    def test_missing_and_unknown_experiments_are_named_in_the_figure(self) -> None:
        made = document(measurement("new", "bible", "a", 3.0))
        made["results"] = [result for result in made["results"] if result["experiment"] not in ("cla", "layers")]
        done = self.draw(made)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("new", done.stderr)
        self.assertIn("not measured: layers, cla ", self.svg())
        self.assertIn("without a panel: new ", self.svg())

    @needs_matplotlib
    def test_results_that_a_panel_cannot_use_are_named(self) -> None:
        made = document()
        made["results"] = [measurement("qcqa", "bible", "a", 3.0), measurement("one_layer", "bible", "a", 3.0)]
        self.assertEqual(self.draw(made).returncode, 0)
        self.assertIn("not drawn: qcqa (no results with capacity and error)", self.svg())
        self.assertIn("not drawn: one_layer (no results with a layer, or no baseline)", self.svg())

    def test_a_file_of_something_else_is_refused(self) -> None:
        empty = document() | {"results": []}
        for made, message in (
            ("{", "not what run.py writes"),
            ({"results": [{}]}, "no 'experiment'"),
            (empty, "no results"),
        ):
            done = self.draw(made)
            self.assertEqual(done.returncode, 1)
            self.assertIn(message, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
