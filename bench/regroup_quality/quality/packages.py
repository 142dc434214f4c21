# SPDX-License-Identifier: MIT
"""Debian packages, unpacked in a folder of ours: nothing is installed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess


class PackageMissing(RuntimeError):
    pass


@dataclasses.dataclass(frozen=True)
class Package:
    name: str
    version: str
    root: pathlib.Path  # under which its files lie: "/" where it is installed


def _run(command: list[str], folder: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PackageMissing(f"no program '{command[0]}' here: this needs a Debian system") from None


class Packages:
    """Finds packages: those installed, then FOLDER/NAME_VERSION_ARCHITECTURE.deb, then what apt downloads there."""

    def __init__(self, folder: pathlib.Path, use_installed: bool = True) -> None:
        self.folder, self.use_installed = folder, use_installed

    def find(self, name: str) -> Package:
        if self.use_installed and shutil.which("dpkg-query"):
            done = _run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", name])
            if done.returncode == 0 and done.stdout.startswith("ii"):
                return Package(name, done.stdout[2:].strip(), pathlib.Path("/"))
        return self._unpacked(self._local(name) or self._downloaded(name))

    def _local(self, name: str) -> pathlib.Path | None:
        return max(self.folder.glob(f"{name}_*.deb"), key=lambda file: file.stat().st_mtime, default=None)

    def _downloaded(self, name: str) -> pathlib.Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        said = []
        # Where the system's lists are missing or too old, lists of our own take their place: no need to be root.
        for own_lists in (False, True):
            done = self._apt(own_lists, "download", name)
            said.append(done.stderr.strip())
            if done.returncode == 0 and (file := self._local(name)):
                return file
        raise PackageMissing(f"apt-get could not download {name}:\n" + "\n".join(filter(None, said)))

    def _apt(self, own_lists: bool, *command: str) -> subprocess.CompletedProcess[str]:
        # Else root's apt would hand over to a user that may not be allowed to write here.
        options = ["-oAPT::Sandbox::User=root"] if os.geteuid() == 0 else []
        if own_lists:
            lists, cache = self.folder / "lists", self.folder / "cache"
            options += [f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oDebug::NoLocking=true"]
            if not lists.exists():
                (lists / "partial").mkdir(parents=True)
                (cache / "archives" / "partial").mkdir(parents=True)
                _run(["apt-get", *options, "update"], self.folder)
        return _run(["apt-get", *options, *command], self.folder)

    def _unpacked(self, file: pathlib.Path) -> Package:
        described = _run(["dpkg-deb", "-f", str(file), "Package", "Version"])
        fields = dict(line.split(": ", 1) for line in described.stdout.splitlines() if ": " in line)
        if described.returncode or "Package" not in fields or "Version" not in fields:
            raise PackageMissing(f"{file} is no whole Debian package; remove it and try again\n{described.stderr}")
        root = self.folder / "unpacked" / file.stem
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        done = _run(["dpkg-deb", "-x", str(file), str(root)])
        if done.returncode:
            raise PackageMissing(f"{file} cannot be unpacked; remove it and try again\n{done.stderr}")
        return Package(fields["Package"], fields["Version"], root)

    def tidy(self) -> None:
        """Leaves the .deb files alone."""
        for rest in ("unpacked", "lists", "cache"):
            shutil.rmtree(self.folder / rest, ignore_errors=True)
