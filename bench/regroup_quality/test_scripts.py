#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the scripts in this folder and of examples/regroup/plot_front.py, without network, model or program.

Exits with 77, which CTest takes for skipped, where nothing failed but a test had no tqdm or no matplotlib to run with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from quality import clean, files, report, results, stream, texts
from quality.packages import PackageMissing, Packages

SKIPPED = 77
needs_tqdm = unittest.skipUnless(importlib.util.find_spec("tqdm"), "no tqdm (Debian: python3-tqdm)")
needs_matplotlib = unittest.skipUnless(
    importlib.util.find_spec("matplotlib"), "no matplotlib (Debian: python3-matplotlib)"
)


def run(script: str | pathlib.Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(HERE / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="regroup-quality-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)


class Cleaning(unittest.TestCase):
    def test_verses_become_a_paragraph_for_each_chapter_without_labels(self) -> None:
        printed = (
            "Ge1:1 In the beginning\nGe1:2 And the  earth.\n\nGe2:1 Thus.\n1Sam1:1 Now there\n1Sam1:2 And he had\n"
        )
        prose = "In the beginning And the earth.\n\nThus.\n\nNow there And he had\n"
        self.assertEqual(clean.verses_to_prose(printed), prose)

    def test_a_line_that_is_no_verse_is_refused(self) -> None:
        for printed in ("Genesis 1\n", "  1 In the beginning\n", "Ge1:1 \n"):
            with self.subTest(printed), self.assertRaisesRegex(ValueError, "not a verse"):
                clean.verses_to_prose(printed)

    def test_a_missing_verse_is_noticed(self) -> None:
        for printed in (
            "Ge1:1 a\nGe1:3 c\n",
            "Ge1:2 b\n",
            "Ge1:1 a\nGe3:1 c\n",
            "Ge1:1 a\nGe1:1 a\nGe1:1 a\nEx1:2 b\n",
        ):
            with self.subTest(printed), self.assertRaisesRegex(ValueError, "verses left out"):
                clean.verses_to_prose(printed)

    def test_bytes_that_are_no_utf8_and_characters_without_a_shape_are_dropped(self) -> None:
        printed = (
            b"\n\n\nNAME \xff\xfe\n  caf\xc3\xa9\xc2\xa0a\x07b \r\n\n\n\n\nlast\x0c \xc2\xadx\tend\xe2\x80\x8b\n\n"
        )
        self.assertEqual(clean.pod_text(printed), "NAME\n  café ab\n\nlast x\tend\n")

    def test_clean_text_stays_as_it_is(self) -> None:
        text = "NAME\n    perl - a language\n\n    Prose.\n\n     my $x = 1;\n"
        self.assertEqual(clean.pod_text(text.encode()), text)


class FetchedTexts(InFolder):
    def fetched(self) -> None:
        made = [texts.Text(name, f"{name} says so\n".encode(), "origin", {"package": "1"}) for name in texts.ALL]
        for text in made:
            files.write_whole(self.folder / f"{text.name}.txt", text.content)
        files.write_json(
            self.folder / "texts.json", {"recipe": texts.RECIPE, "texts": {t.name: t.describe() for t in made}}
        )

    def test_texts_that_are_there_are_kept(self) -> None:
        self.fetched()
        done = run("fetch_texts", self.folder, PATH="/nowhere")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"already there\n.*bible\.txt: 14 bytes, 3 words, SHA-256 [0-9a-f]{64}")
        self.assertFalse((self.folder / "packages").exists())

    def test_a_changed_text_is_made_again_and_without_packages_the_way_by_hand_is_told(self) -> None:
        self.fetched()
        (self.folder / "perl.txt").write_text("another\n")
        done = run("fetch_texts", self.folder, PATH="/nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("needs a Debian system", done.stderr)
        self.assertIn(f"put the .deb files into {self.folder.resolve() / 'packages'}", done.stderr)

    @unittest.skipUnless(shutil.which("dpkg-deb"), "no dpkg-deb")
    def test_a_package_in_the_folder_is_used_and_a_torn_one_is_named(self) -> None:
        source, folder = self.folder / "source", self.folder / "packages"
        files.write_whole(
            source / "DEBIAN/control",
            b"Package: sample\nVersion: 1.2-3\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: none\n",
        )
        (source / "DEBIAN").chmod(0o755)
        files.write_whole(source / "usr/share/sample", b"content")
        folder.mkdir()
        made = folder / "sample_1.2-3_all.deb"
        subprocess.run(["dpkg-deb", "-b", source, made], check=True, capture_output=True)
        package = Packages(folder).find("sample")
        self.assertEqual((package.name, package.version), ("sample", "1.2-3"))
        self.assertEqual((package.root / "usr/share/sample").read_text(), "content")
        made.write_bytes(made.read_bytes()[:-40])
        with self.assertRaisesRegex(PackageMissing, "sample_1.2-3_all.deb"):
            Packages(folder).find("sample")

    @unittest.skipUnless(pathlib.Path("/var/lib/dpkg/info/dpkg.list").exists(), "no Debian system")
    def test_an_installed_package_is_used_where_it_is(self) -> None:
        package = Packages(self.folder).find("dpkg")
        self.assertEqual(package.root, pathlib.Path("/"))
        self.assertRegex(package.version, r"^\d")

    def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(self) -> None:
        path = self.folder / "a.json"
        files.write_json(path, {"a": 1})
        with self.assertRaises(ValueError):
            files.write_json(path, {"a": float("nan")})
        self.assertEqual(json.loads(path.read_text()), {"a": 1})
        self.assertEqual([file.name for file in self.folder.iterdir()], ["a.json"])


def measurement(experiment: str, text: str, name: str, cross_entropy: float, **more: object) -> dict:
    result = {"experiment": experiment, "text": text, "name": name, "cross_entropy": cross_entropy}
    return result | {"perplexity": 2.0**cross_entropy, "kl": None, "kv_bytes_per_token": None} | more


START = {"event": "start", "steps": 3, "tokens": 64}
RESULT = {"event": "result"} | measurement("baseline", "bible", "as it is", 2.0, isa="avx2")
STEP, DONE = {"event": "step"}, {"event": "done"}


class Runs(InFolder):
    """run.py, with a program in Python that prints what a test tells it to."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("bible", "perl"):
            (self.folder / f"{name}.txt").write_text(f"{name}\n")
        (self.folder / "model.gguf").write_bytes(b"GGUF")
        self.out = self.folder / "made/out.json"

    def program(self, *lines: dict | str, code: str = "") -> pathlib.Path:
        path = self.folder / "program"
        printed = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        source = f"""\
            #!{sys.executable}
            import os, sys, time
            open({str(self.folder / "arguments")!r}, "w").write("\\n".join(sys.argv[1:]))
            print("reads the model", file=sys.stderr, flush=True)
            for line in {printed!r}:
                print(line, flush=True)
            """
        path.write_text(textwrap.dedent(source) + code)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def run_it(self, program: pathlib.Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        given = [
            "--program",
            program,
            "--model",
            self.folder / "model.gguf",
            "--texts",
            self.folder,
            "--json",
            self.out,
        ]
        return run("run.py", *given, *arguments)

    def fails(self, program: pathlib.Path, message: str) -> None:
        done = self.run_it(program)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(list(self.out.parent.iterdir()) if self.out.parent.exists() else [], [])

    @needs_tqdm
    def test_everything_measured_goes_into_one_file(self) -> None:
        done = self.run_it(self.program(START, RESULT, STEP, RESULT | {"text": "perl"}, DONE))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("reads the model", done.stderr)
        self.assertIn("3/3", done.stderr)
        document = results.load(self.out)
        self.assertEqual(document["settings"], {"tokens": 64})
        self.assertEqual([result["text"] for result in document["results"]], ["bible", "perl"])
        self.assertEqual(document["results"][0]["isa"], "avx2")
        self.assertNotIn("event", document["results"][0])
        self.assertEqual(document["texts"]["bible"]["bytes"], 6)
        self.assertEqual(document["model"]["file"], "model.gguf")
        self.assertIn("cpu", document["machine"])
        self.assertRegex(document["versions"]["headwise"], r"^\d+\.\d+\.\d+$")

    @needs_tqdm
    def test_options_are_passed_on_and_others_left_to_the_program(self) -> None:
        program = self.program(START, RESULT, DONE)
        given = ["--model", self.folder / "model.gguf", "--text", f"bible={self.folder}/bible.txt"]
        given += ["--text", f"perl={self.folder}/perl.txt"]
        chosen = ["--experiments", "qcqa,cla", "--tokens", "128", "--seed", "0", "--threads", "2"]
        for options in ([], chosen):
            self.assertEqual(self.run_it(program, *options).returncode, 0)
            self.assertEqual((self.folder / "arguments").read_text().split("\n"), [str(o) for o in [*given, *options]])

    @needs_tqdm
    def test_a_program_that_fails_is_reported_with_its_last_words(self) -> None:
        code = "print('headwise: no such layer', file=sys.stderr)\nsys.exit(3)\n"
        program = self.program(START, RESULT, DONE, code=code)
        self.fails(program, "exit code 3")
        self.fails(program, "no such layer")
        self.fails(self.program(START, RESULT, code="os.abort()\n"), "signal 6")

    @needs_tqdm
    def test_a_stream_that_ends_early_is_an_error(self) -> None:
        self.fails(self.program(START, RESULT), "before it was done")
        self.fails(self.program(), "before it was done")
        self.fails(self.program(START, json.dumps(RESULT)[:40]), "no JSON")

    @needs_tqdm
    def test_what_breaks_the_contract_is_an_error_and_ends_the_program(self) -> None:
        stay = "time.sleep(600)\n"  # the program must be ended: else this test takes that long
        self.fails(self.program(RESULT, code=stay), 'must print "start" first')
        self.fails(self.program(START, START, code=stay), 'must print "start" first')
        self.fails(self.program(START, {"event": "finished"}, code=stay), "unknown event")
        self.fails(self.program(START, "[1]", code=stay), "unknown event")
        self.fails(self.program({"event": "start"}, code=stay), "bad steps")
        self.fails(self.program(START, RESULT | {"perplexity": float("nan")}, code=stay), "bad perplexity")
        self.fails(self.program(START, RESULT | {"cross_entropy": None, "kl": "a"}, code=stay), "bad cross_entropy, kl")
        self.fails(self.program(START, RESULT | {"name": ""}, code=stay), "bad name")
        self.fails(self.program(START, RESULT, DONE, STEP, code=stay), 'after "done"')
        self.fails(self.program(START, STEP, DONE), "measured nothing")

    @needs_tqdm
    def test_missing_files_are_named_with_the_remedy(self) -> None:
        self.fails(self.folder / "none", f"no program at {self.folder / 'none'}")
        (self.folder / "perl.txt").unlink()
        self.fails(self.program(START, RESULT, DONE), "bench/regroup_quality/fetch_texts")
        (self.folder / "model.gguf").unlink()
        self.fails(self.program(START, RESULT, DONE), "smollm2_model")

    def test_impossible_options_are_refused(self) -> None:
        for option in ("--tokens", "--threads"):
            done = self.run_it(self.program(), option, "0")
            self.assertEqual(done.returncode, 2)
            self.assertIn(f"{option} (0) must be at least 1", done.stderr)

    def test_without_tqdm_the_package_is_named(self) -> None:
        (self.folder / "tqdm.py").write_text("raise ImportError\n")
        environment = {"PYTHONPATH": str(self.folder)}
        done = run("run.py", "--program", self.program(), **environment)
        self.assertEqual(done.returncode, 1)
        self.assertIn("python3-tqdm", done.stderr)

    def test_a_number_is_no_truth_value(self) -> None:
        with self.assertRaises(stream.ProgramFailed):
            stream.parse(json.dumps(RESULT | {"kl": True}))


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


class Fronts(InFolder):
    """examples/regroup/plot_front.py"""

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


def main() -> int:
    program = unittest.main(exit=False)
    if not program.result.wasSuccessful():
        return 1
    return SKIPPED if any("Debian: " in reason for _, reason in program.result.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
