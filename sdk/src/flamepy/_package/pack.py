"""Which files of a project travel, and the archive made of them.

The rules, later ones deciding: version-control data and caches; the documents' defaults; ``.gitignore`` (nested ones too);
``.flameignore``; ``exclude`` and the Runner's own excludes; what looks like a secret; ``include``. All are patterns as in
``.gitignore``. As with git, a pattern does not bring back what lies in a directory that is left out, unless ``include`` names a path
inside it.

The project itself is only read. Archives are kept in the host's directory under ``packs/``, where an unchanged project finds the
archive of the last time without reading a single file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flame_host.api import Archiver, ConfigError, Member, MemberKind, PackageError
from flamepy._config.flame_yaml import DEFAULT_EXCLUDES
from flamepy._package.listing import Listing
from flamepy._package.secrets import SECRETS

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr", "CVS/")
_CACHES = (
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".tox/", ".nox/", ".cache/", ".ipynb_checkpoints/", "node_modules/",
    "*.egg-info/", ".eggs/", ".DS_Store", ".coverage", ".idea/", ".vscode/", ".flameignore", "*.pyo", "*.swp",
)  # fmt: skip
_MOST_FILES = 200_000
_WHOLE = 4 << 20  # bytes up to which a file is read at once
_KEPT = 14 * 24 * 3600 * 1_000_000_000  # nanoseconds an archive is kept after its last use
_SETTLED = 2_000_000_000  # nanoseconds after which a file's time stamp is trusted to tell a later change

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


@dataclass(frozen=True)
class Pack:
    """A finished archive.

    Attributes:
        fresh: made just now; otherwise it was there from an earlier time.
    """

    path: Path
    digest: str
    size: int
    files: int
    fresh: bool


class _Rules:
    def __init__(self, source: str, patterns: Sequence[str], *, base: str = "", secret: bool = False, keep: bool = False) -> None:
        self.source = source
        self.patterns = patterns
        self.base = base
        self.secret = secret
        self.keep = keep

    @cached_property
    def _spec(self) -> GitIgnoreSpec:
        from pathspec import GitIgnoreSpec

        return GitIgnoreSpec.from_lines(self.patterns)

    def decide(self, path: str) -> tuple[bool, str] | None:
        """``(is in, why)``, or None when no pattern matches."""
        if not path.startswith(self.base):
            return None
        result = self._spec.check_file(path[len(self.base) :])
        if result.include is None or result.index is None or (self.secret and not result.include):
            return None
        return bool(result.include) == self.keep, f"{self.source}: {self.patterns[result.index]}"

    def may_match_below(self, directory: str) -> bool:
        """Whether one of the patterns names a path inside a directory."""
        return any(pattern.strip().lstrip("/").startswith(directory) for pattern in self.patterns)


class _Walk:
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
            self.never.append(
                _Rules(
                    "the host's own directory",
                    ["/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", never.resolve().relative_to(root).as_posix()) + "/"],
                )
            )
        # Behind everything but include: neither a nested .gitignore nor an exclude brings a secret back.
        secrets = _Rules("looks like a secret", SECRETS, secret=True)
        self.last = [_Rules("exclude", own), secrets, _Rules("include", includes, keep=True)]
        self.include = self.last[-1]
        flameignore = _lines(root / ".flameignore")
        if flameignore:
            self.last.insert(0, _Rules(".flameignore", flameignore))

    def decisions(self) -> Iterator[Decision]:
        yield from self._below("", [])

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
                yield self._judge(path, nested) or self._file(entry, path)

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

    def _file(self, entry: os.DirEntry[str], path: str) -> Decision:
        if entry.is_symlink() and not self._points_inside(entry.path) and not os.path.isfile(entry.path):
            return Decision(path, False, "a link that leads out of the project")
        mode = entry.stat().st_mode if not entry.is_symlink() else 0
        if mode and not stat.S_ISREG(mode):
            return Decision(path, False, "neither a file nor a directory")
        return Decision(path, True)

    def _points_inside(self, link: str) -> bool:
        target = os.readlink(link)
        if os.path.isabs(target):
            return False
        inside = os.path.normpath(os.path.join(os.path.dirname(link), target))
        return inside.startswith(str(self.root) + os.sep) and os.path.exists(inside)


def explain(root: str | Path, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> list[Decision]:
    """Why each file is in the package or out of it; a directory left out as a whole is one entry."""
    return list(_Walk(checked_root(root), tuple(excludes), tuple(includes)).decisions())


def collect_files(root: str | Path, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> list[str]:
    """The files that make up the package, relative to the project and sorted."""
    return _listed(_Walk(checked_root(root), tuple(excludes), tuple(includes)), None)


def _listed(walk: _Walk, listing: Listing | None) -> list[str]:
    """The files, from an earlier listing where that still holds."""
    known = listing.read() if listing is not None else None
    if known is None:
        decisions = list(walk.decisions())
        secrets = [decision.path for decision in decisions if decision.secret]
        files = sorted(decision.path for decision in decisions if decision.included)
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


def checked_root(root: str | Path) -> Path:
    """The project's directory, made absolute; one that cannot be meant is refused."""
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"the project directory {path} does not exist")
    if path == Path(path.anchor) or path == Path.home().resolve():
        raise ConfigError(
            f"{path} is not a project: all of it would be packed",
            hint="change into the project's directory, give Runner(project=PATH), or Runner(package=False) to send no files",
        )
    return path


def members(root: Path, files: Iterable[str]) -> Iterator[Member]:
    """The files as an archiver takes them."""
    inside = str(root) + os.sep
    for name in files:
        path = root / name
        if path.is_symlink():
            target = os.readlink(path)
            if not os.path.isabs(target) and os.path.normpath(path.parent / target).startswith(inside):
                yield Member(name, MemberKind.SYMLINK, link=target)
                continue
        status = path.stat()
        executable = bool(status.st_mode & 0o111)
        if status.st_size <= _WHOLE:
            content = path.read_bytes()
            yield Member(name, MemberKind.FILE, len(content), executable, content=content)
        else:
            yield Member(name, MemberKind.FILE, status.st_size, executable, content=_pieces(path, status.st_size))


def pack(root: str | Path, archiver: Archiver, cellar: Path, *, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> Pack:
    """Make the archive of a project, or find the one that was made of it before.

    Args:
        cellar: directory archives are kept in.
    """
    project = checked_root(root)
    walk = _Walk(project, tuple(excludes), tuple(includes), never=cellar.parent)
    files = _listed(walk, Listing(cellar, project, [*excludes, "/", *includes]))
    started = time.time_ns()
    key, newest = _quick_key(project, files, archiver.name)
    cellar.mkdir(mode=0o700, parents=True, exist_ok=True)
    index = cellar / f"{key}.json"
    known = _known(index, cellar)
    if known is not None:
        os.utime(known[0])
        return Pack(known[0], known[1], known[2], len(files), fresh=False)
    part = cellar / f".{os.getpid()}-{started}.part"
    try:
        with part.open("xb") as target:
            archiver.write(members(project, files), target)
        digest = _digest(part)
        archive = cellar / f"{digest}{archiver.suffixes[0]}"
        size = part.stat().st_size
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)
    if newest < started - _SETTLED:  # a file this young could change again without its time stamp telling
        entry = cellar / f".{os.getpid()}-{started}.json"
        entry.write_text(json.dumps({"archive": archive.name, "digest": digest, "size": size}))
        os.replace(entry, index)
    _sweep(cellar, started)
    return Pack(archive, digest, size, len(files), fresh=True)


def _quick_key(root: Path, files: Sequence[str], archiver: str) -> tuple[str, int]:
    """A key of names, sizes and times, which change when contents do; and the newest time."""
    hasher = hashlib.sha256(f"1 {archiver} {root}\n".encode())
    newest = 0
    for name in files:
        status = os.lstat(root / name)
        link = os.readlink(root / name) if stat.S_ISLNK(status.st_mode) else ""
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        facts = f"{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}\0{link}\n"
        hasher.update(facts.encode("utf-8", "surrogateescape"))
    return hasher.hexdigest(), newest


def _known(index: Path, cellar: Path) -> tuple[Path, str, int] | None:
    try:
        entry = json.loads(index.read_text())
        archive = cellar / entry["archive"]
        return (archive, entry["digest"], entry["size"]) if archive.stat().st_size == entry["size"] else None
    except (OSError, ValueError, KeyError):
        return None


def _sweep(cellar: Path, now: int) -> None:
    """Remove what nobody has used for long, half-made files too."""
    for entry in os.scandir(cellar):
        with contextlib.suppress(OSError):  # another program is quicker
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime_ns < now - _KEPT:
                os.unlink(entry)


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as source:
        while left:
            piece = source.read(min(1 << 20, left))
            if not piece:
                raise PackageError(f"{path} became shorter while it was packed", hint="do not write to the project while it is packed")
            left -= len(piece)
            yield piece


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
