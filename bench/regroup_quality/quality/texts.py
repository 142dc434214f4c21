# SPDX-License-Identifier: MIT
"""The two texts: which they are, and how they are made of Debian's packages."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess

from quality import clean
from quality.packages import Package, PackageMissing, Packages

# First and last verse, and how many there are from one to the other.
RANGES = (("Gen1:1", "Ex40:38", 2746), ("Mt1:1", "Jn21:25", 3779), ("Acts1:1", "Acts28:31", 1007))
BIBLE_PACKAGES = ("bible-kjv", "bible-kjv-text")

PODS = (
    "perlintro perlreftut perldsc perlootut perlsyn perldata perlop perlsub perlref perlmod perlobj perlre perlretut "
    "perlvar perlipc perlthrtut"
).split()
POD_PACKAGES = ("perl-doc",)
NO_LINE_BREAKS = "1000000"  # columns; examples keep their lines

# Changes with everything that decides about the texts but for the packages' versions.
RECIPE = hashlib.sha256(repr((RANGES, PODS, NO_LINE_BREAKS, 1)).encode()).hexdigest()[:12]


class TextFailed(RuntimeError):
    pass


@dataclasses.dataclass(frozen=True)
class Text:
    name: str
    content: bytes
    origin: str
    packages: dict[str, str]  # versions by name

    def describe(self) -> dict:
        """What results keep of it."""
        return {
            "file": f"{self.name}.txt",
            "bytes": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "words": len(self.content.split()),
            "origin": self.origin,
            "packages": self.packages,
        }


def _output(command: list[str], folder: pathlib.Path, environment: dict[str, str]) -> bytes:
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"LC_ALL": "C"} | environment, capture_output=True, check=False
        )
    except OSError as e:
        raise TextFailed(f"{command[0]} does not start: {e}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise TextFailed(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.stdout


def _versions(*packages: Package) -> dict[str, str]:
    return {package.name: package.version for package in packages}


def bible(packages: Packages) -> Text:
    """The King James Bible from Genesis to Exodus and from Matthew to Acts, a paragraph for each chapter."""
    program, data = (packages.find(name) for name in BIBLE_PACKAGES)
    parts = []
    for first, last, verses in RANGES:
        # bible looks for its data in the folder it is run in before /usr/lib; -f: a line for each verse, with label.
        command = [str(program.root / "usr/bin/bible"), "-f", f"{first}-{last}"]
        printed = _output(command, data.root / "usr/lib", {}).decode("ascii", errors="replace")
        if clean.count_verses(printed) != verses:
            raise TextFailed(f"{first} to {last} has {clean.count_verses(printed)} verses, not {verses}")
        try:
            parts.append(clean.verses_to_prose(printed))
        except ValueError as e:
            raise TextFailed(f"{first} to {last}: {e}") from None
    origin = f"King James Bible, {', '.join(f'{first} to {last}' for first, last, _ in RANGES)}"
    return Text("bible", clean.join_documents(parts).encode(), origin, _versions(program, data))


def _pod2text(packages: Packages) -> tuple[list[str], dict[str, str]]:
    """Command and environment: the system's, or the one of package perl where there is perl-base alone."""
    if shutil.which("pod2text"):
        return ["pod2text"], {}
    perl = shutil.which("perl")
    if not perl:
        raise PackageMissing("no program 'perl' here; Debian's perl-base has it")
    series = _output([perl, "-e", 'printf "%vd", $^V'], pathlib.Path("/"), {}).decode().rsplit(".", 1)[0]
    found = [packages.find(name) for name in ("perl", f"perl-modules-{series}", f"libperl{series}")]
    folders = [p for package in found for p in sorted(package.root.glob("usr/share/perl/*.*.*"))]
    folders += [p for package in found for p in sorted(package.root.glob("usr/lib/*/perl/*.*.*"))]
    return [perl, str(found[0].root / "usr/bin/pod2text")], {"PERL5LIB": ":".join(map(str, folders))}


def perl(packages: Packages) -> Text:
    """Perl's manual: prose and program text, a paragraph on a line."""
    package = packages.find(POD_PACKAGES[0])
    command, environment = _pod2text(packages)
    documents = []
    for pod in PODS:
        file = next(iter(sorted(package.root.glob(f"usr/share/perl/*/pod/{pod}.pod"))), None)
        if file is None:
            raise TextFailed(f"perl-doc {package.version} has no {pod}.pod")
        printed = _output([*command, "--utf8", "--width", NO_LINE_BREAKS, str(file)], package.root, environment)
        documents.append(clean.pod_text(printed))
    origin = f"Perl's manual, {', '.join(PODS)}"
    return Text("perl", clean.join_documents(documents).encode(), origin, _versions(package))


ALL = {"bible": bible, "perl": perl}
