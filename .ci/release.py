"""Build, check and version the distributions. ``make release`` and ``make version`` run it; so does the release workflow.

::

    python .ci/release.py dist [--no-smoke]   build all into dist/, check contents and metadata, use them from an empty environment
    python .ci/release.py version 0.2.0       write a version into every distribution
    python .ci/release.py agree [v0.2.0]      fail unless every version is the same, and that of the tag
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PROJECTS = (ROOT, ROOT / "sdk", ROOT / "sdk" / "flmctl", *sorted((ROOT / "plugins").iterdir()))
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
VERSIONED = tuple(ROOT / name for name in ("flame_host/_version.py", "sdk/src/flamepy/__init__.py"))
_VERSION = re.compile(r'(?m)^(version|__version__) = "([^"]+)"')
_PIN = re.compile(r'("flame-[\w-]+(?:\[[\w,]+\])?)==([\w.]+)"')


def files_with_versions() -> list[Path]:
    return [*(project / "pyproject.toml" for project in PROJECTS), *VERSIONED]


def versions() -> dict[str, set[str]]:
    """Every version named, with the places that name it."""
    found: dict[str, set[str]] = {}
    for path in files_with_versions():
        text = path.read_text()
        for pattern in (_VERSION, _PIN):
            for match in pattern.finditer(text):
                found.setdefault(match[2], set()).add(str(path.relative_to(ROOT)))
    return found


def agree(tag: str = "") -> str:
    found = versions()
    if len(found) != 1:
        sys.exit("versions differ:\n" + "\n".join(f"  {version}: {', '.join(sorted(places))}" for version, places in found.items()))
    (version,) = found
    if tag and tag.removeprefix("v") != version:
        sys.exit(f"the tag is {tag}, the distributions are {version}; run  make version V={tag.removeprefix('v')}")
    return version


def set_version(version: str) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        sys.exit(f"{version!r} is no version like 1.2.3")
    for path in files_with_versions():
        text = _VERSION.sub(lambda match: f'{match[1]} = "{version}"', path.read_text(), count=1)
        path.write_text(_PIN.sub(lambda match: f'{match[1]}=={version}"', text))
    print(agree())


def build(target: Path = DIST) -> list[Path]:
    """A wheel and an sdist of each; the wheel is made of the sdist, as an installer without wheels would."""
    shutil.rmtree(target, ignore_errors=True)
    for project in PROJECTS:
        subprocess.run([UV, "build", "-q", "--no-build-isolation", "--python", sys.executable, "-o", target, project], check=True)
    return sorted(target.glob("*.whl"))


def tracked(project: Path) -> Iterator[str]:
    """Files of a project's import packages, as they are to be in its distributions."""
    source = project / "src" if (project / "src").is_dir() else project / "flame_host" if project == ROOT else None
    if source is None:
        return
    base = source if source.name == "src" else project
    names = subprocess.run(["git", "ls-files", "-z", source], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.split("\0"):
        if name:
            yield (ROOT / name).relative_to(base).as_posix()


def problems(target: Path = DIST) -> Iterator[str]:
    """Whatever a distribution lacks: files, metadata, its licence."""
    for project in PROJECTS:
        wheel, sdist, facts = _made(project, target)
        for name in tracked(project):
            if name not in wheel:
                yield f"{facts['Name']}: the wheel lacks {name}"
            if not any(member.endswith("/" + name) for member in sdist):
                yield f"{facts['Name']}: the sdist lacks {name}"
        if not any(member.endswith("licenses/LICENSE") for member in wheel):
            yield f"{facts['Name']}: the wheel lacks its licence"
        for field in ("Name", "Version", "Summary", "License-Expression", "Requires-Python", "Description-Content-Type"):
            if not facts[field]:
                yield f"{facts['Name']}: no {field}"
        for text in facts.get_all("Requires-Dist") or ():
            if text.startswith("flame-") and f"=={facts['Version']}" not in text:
                yield f"{facts['Name']}: {text} does not move with the version"


def _made(project: Path, target: Path) -> tuple[set[str], set[str], object]:
    name = re.search(r'(?m)^name = "([^"]+)"', (project / "pyproject.toml").read_text())[1].replace("-", "_")  # type: ignore[index]
    (wheel,) = target.glob(f"{name}-[0-9]*.whl")
    (sdist,) = target.glob(f"{name}-[0-9]*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        members = set(archive.namelist())
        metadata = next(member for member in members if member.endswith(".dist-info/METADATA"))
        facts = Parser().parsestr(archive.read(metadata).decode())
    with tarfile.open(sdist) as archive:
        return members, {member.name for member in archive.getmembers() if member.isfile()}, facts


def dist(*options: str) -> None:
    version = agree()
    made = build()
    found = list(problems())
    if found:
        sys.exit("\n".join(found))
    print(f"{len(made)} distributions of {version} in {DIST.relative_to(ROOT)}/")
    if "--no-smoke" not in options:
        smoke = ROOT / "tests" / "release"
        raise SystemExit(subprocess.run([sys.executable, "-m", "pytest", "-q", smoke]).returncode)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["help"]
    known = {"dist": dist, "version": set_version, "agree": agree}
    if command not in known:
        sys.exit(__doc__)
    result = known[command](*arguments)
    if result:
        print(result)
