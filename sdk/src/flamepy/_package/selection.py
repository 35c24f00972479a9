"""Which files of a project travel.

The rules, later ones deciding: version-control data and caches; the documents' defaults; ``.gitignore`` (nested ones too);
``.flameignore``; ``exclude`` and the Runner's own excludes; what looks like a secret; ``include``. All are patterns as in
``.gitignore``. As with git, a pattern does not bring back what lies in a directory that is left out, unless ``include`` names a path
inside it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flame_host.api import PackageError
from flamepy._config.flame_yaml import DEFAULT_EXCLUDES
from flamepy._package.listing import Listing
from flamepy._package.project import checked_root
from flamepy._package.secrets import SECRETS

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr", "CVS/")
_CACHES = (
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".tox/", ".nox/", ".cache/", ".ipynb_checkpoints/", "node_modules/",
    "*.egg-info/", ".eggs/", ".DS_Store", ".coverage", ".idea/", ".vscode/", ".flameignore", "*.pyo", "*.swp",
    ".flame/", ".flame-package.json",
)  # fmt: skip
_MOST_FILES = 200_000

logger = logging.getLogger("flamepy.package")


@dataclass(frozen=True)
class Decision:
    """Why a path is in the package, or out of it.

    Attributes:
        path: relative to the project, ``/``-separated; a directory that is left out as a whole ends in ``/``.
        reason: the pattern that decided and where it stands; empty for what no pattern matched.
        secret: left out because it looks like a secret.
    """

    path: str
    included: bool
    reason: str = ""
    secret: bool = False


class _Rules:
    def __init__(
        self, source: str, patterns: Sequence[str], *, base: str = "", secret: bool = False, keep: bool = False, above: str = ""
    ) -> None:
        self.source = source
        self.patterns = patterns
        self.base = base
        self.secret = secret
        self.keep = keep
        self.above = above

    @cached_property
    def _spec(self) -> GitIgnoreSpec:
        from pathspec import GitIgnoreSpec

        try:
            return GitIgnoreSpec.from_lines(self.patterns)
        except (ValueError, re.error):  # git skips what is no pattern, and goes on
            self.patterns = [line for line in self.patterns if _is_pattern(line)]
            return GitIgnoreSpec.from_lines(self.patterns)

    def decide(self, path: str) -> tuple[bool, str] | None:
        """``(is in, why)``, or None when no pattern matches."""
        if self.above:
            path = self.above + path
        elif not path.startswith(self.base):
            return None
        result = self._spec.check_file(path[len(self.base) :])
        if result.include is None or result.index is None or (self.secret and not result.include):
            return None
        return bool(result.include) == self.keep, f"{self.source}: {self.patterns[result.index]}"

    def may_match_below(self, directory: str) -> bool:
        """Whether one of the patterns names a path inside a directory."""
        return any(pattern.strip().lstrip("/").startswith(directory) for pattern in self.patterns)


class Walk:
    """Args:
    never: a directory that is in no package: the host's own, should it stand in the project.
    """

    def __init__(self, root: Path, excludes: Sequence[str], includes: Sequence[str], never: Path | None = None) -> None:
        own = [pattern for pattern in excludes if pattern not in DEFAULT_EXCLUDES]
        self.root = root
        self.visited: list[str] = []
        self.first = [
            _Rules("cache", _CACHES),
            _Rules("default", DEFAULT_EXCLUDES),
        ]
        self.never = [_Rules("version control", _VERSION_CONTROL)]
        if never is not None and never.resolve().is_relative_to(root) and never.resolve() != root:
            place = re.sub(r"([\\*?\[\]!# ])", r"\\\1", never.resolve().relative_to(root).as_posix())
            self.never.append(_Rules("the host's own directory", [f"/{place}/"]))
        # Behind everything but include: neither a nested .gitignore nor an exclude brings a secret back.
        secrets = _Rules("looks like a secret", SECRETS, secret=True)
        self.last = [_Rules("exclude", own), secrets, _Rules("include", includes, keep=True)]
        self.include = self.last[-1]
        flameignore = _lines(root / ".flameignore")
        if flameignore:
            self.last.insert(0, _Rules(".flameignore", flameignore))

    def decisions(self) -> Iterator[Decision]:
        yield from self._below("", list(_from_above(self.root)))

    def _below(self, directory: str, nested: list[_Rules]) -> Iterator[Decision]:
        self.visited.append(directory)
        gitignore = _lines(self.root / directory / ".gitignore")
        if gitignore:
            nested = [*nested, _Rules(f"{directory}.gitignore", gitignore, base=directory)]
        try:
            entries = sorted(os.scandir(self.root / directory), key=lambda entry: entry.name)
        except PermissionError as error:
            raise PackageError(f"{self.root / directory} cannot be read: {error}", hint="leave it out with [tool.flame] exclude") from error
        for entry in entries:
            path = directory + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._directory(entry, path + "/", nested)
            else:
                verdict = self._judge(path, nested)
                if verdict is None or verdict.included:
                    checked = self._file(entry, path, asked=verdict is not None and verdict.reason.startswith("include"))
                    verdict = verdict if verdict is not None and checked.included else checked
                yield verdict

    def _directory(self, entry: os.DirEntry[str], path: str, nested: list[_Rules]) -> Iterator[Decision]:
        verdict = self._judge(path, nested)
        if verdict is None and os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            verdict = Decision(path, False, "a virtual environment")
        if verdict is None or verdict.included:
            yield from self._below(path, nested)
        elif self.include.may_match_below(path):
            yield from (decision for decision in self._below(path, nested) if decision.reason.startswith("include"))
        else:
            yield verdict

    def _judge(self, path: str, nested: list[_Rules]) -> Decision | None:
        verdict = None
        for rules in (*self.first, *nested, *self.last, *self.never):
            decided = rules.decide(path)
            if decided is not None:
                verdict = Decision(path, decided[0], decided[1], secret=rules.secret and not decided[0])
        return verdict

    def _file(self, entry: os.DirEntry[str], path: str, *, asked: bool) -> Decision:
        if entry.is_symlink():
            if link_inside(self.root, entry.path) is not None:
                return Decision(path, True)
            if asked and os.path.isfile(entry.path):
                return Decision(path, True, "include: the content of what it links to")
            return Decision(path, False, OUTWARDS)
        if not stat.S_ISREG(entry.stat().st_mode):
            return Decision(path, False, "neither a file nor a directory")
        return Decision(path, True)


OUTWARDS = "a link that leads out of the project, or nowhere"


def link_inside(root: Path, link: str | Path) -> str | None:
    """Where a link leads, relatively, when that is inside the project and there; else None."""
    target = os.readlink(link)
    place = os.path.dirname(link)
    inside = os.path.normpath(os.path.join(place, target))
    if not inside.startswith(str(root) + os.sep) or not os.path.exists(inside):
        return None
    return os.path.relpath(inside, place) if os.path.isabs(target) else target


def explain(root: str | Path, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> list[Decision]:
    """Why each file is in the package or out of it; a directory left out as a whole is one entry."""
    return list(Walk(checked_root(root), tuple(excludes), tuple(includes)).decisions())


def collect_files(root: str | Path, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> list[str]:
    """The files that make up the package, relative to the project and sorted."""
    return listed(Walk(checked_root(root), tuple(excludes), tuple(includes)), None)


def listed(walk: Walk, listing: Listing | None) -> list[str]:
    """The files, from an earlier listing where that still holds."""
    known = listing.read() if listing is not None else None
    if known is None:
        decisions = list(walk.decisions())
        secrets = [decision.path for decision in decisions if decision.secret]
        files = sorted(decision.path for decision in decisions if decision.included)
        outwards = [decision.path for decision in decisions if decision.reason == OUTWARDS]
        if outwards:
            note = "left out of the package: links that lead out of the project, or nowhere: %s ([tool.flame] include takes their contents)"
            logger.warning(note, _some(outwards))
        if listing is not None:
            listing.write(walk.visited, files, secrets)
    else:
        files, secrets = known
    if secrets:
        note = "left out of the package, for they look like secrets: %s (bring them in with [tool.flame] include)"
        logger.warning(note, _some(secrets))
    if len(files) > _MOST_FILES:
        raise PackageError(
            f"{walk.root} has {len(files)} files, too many for a package", hint="is it the project? leave data out with exclude"
        )
    return files


def _from_above(root: Path) -> Iterator[_Rules]:
    """Ignore files between the project and the top of its repository, and the repository's own: git heeds them, too."""
    above = []
    for directory in root.parents if not (root / ".git").exists() else ():
        above.append(directory)
        if (directory / ".git").exists():
            break
    else:
        above = []
    repository = above[-1] if above else root
    for directory in reversed(above):
        patterns = _lines(directory / ".gitignore")
        if patterns:
            yield _Rules(str(directory / ".gitignore"), patterns, above=root.relative_to(directory).as_posix() + "/")
    patterns = _lines(repository / ".git" / "info" / "exclude")
    if patterns:
        prefix = root.relative_to(repository).as_posix() + "/" if repository != root else ""
        yield _Rules(".git/info/exclude", patterns, above=prefix)


def _is_pattern(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").removeprefix("\ufeff").split("\n")
        return [line.removesuffix("\r") for line in lines if line.strip() and not line.startswith("#")]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(ascii_only, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def ascii_only(name: str) -> str:
    """A name that can be printed anywhere."""
    return name if name.isprintable() else ascii(name)
