# SPDX-License-Identifier: MIT
"""run.py"""

from __future__ import annotations

import json
import pathlib
import stat
import subprocess
import sys
import textwrap

from quality import results, stream
from tests.shared import InFolder, measurement, needs_tqdm, run

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
