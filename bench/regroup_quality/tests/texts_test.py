# SPDX-License-Identifier: MIT
"""fetch_texts"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import unittest

from quality import clean, files, texts
from quality.packages import PackageMissing, Packages
from tests.shared import InFolder, run


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
