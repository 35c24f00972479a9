"""What a case of the corpora is, and the bad names that every format must refuse."""

from __future__ import annotations

from typing import NamedTuple

from flame_host.api import ArchiveError, ArchiveLimitError, Limits, UnsafeArchiveError

DEFAULT = Limits()


class Case(NamedTuple):
    """One hostile archive and the error it must end in; ``mark`` is the rule or the budget, empty for plain damage."""

    name: str
    format: str
    data: bytes
    error: type[ArchiveError]
    mark: str
    limits: Limits


def unsafe(name: str, format: str, data: bytes, rule: str) -> Case:
    return Case(name, format, data, UnsafeArchiveError, rule, DEFAULT)


def damaged(name: str, format: str, data: bytes) -> Case:
    return Case(name, format, data, ArchiveError, "", DEFAULT)


def over(name: str, format: str, data: bytes, budget: str, limits: Limits = DEFAULT) -> Case:
    return Case(name, format, data, ArchiveLimitError, budget, limits)


def mark_of(error: ArchiveError) -> str:
    return getattr(error, "rule", "") or getattr(error, "budget", "")


# Title, bytes of the name, rule.
BAD_NAMES = [
    ("absolute", b"/etc/passwd", "absolute-path"),
    ("absolute, one part", b"/passwd", "absolute-path"),
    ("absolute, two slashes", b"//etc/passwd", "absolute-path"),
    ("parent", b"../outside", "parent-path"),
    ("parent far up", b"../../../../../../etc/outside", "parent-path"),
    ("parent inside", b"a/../b", "parent-path"),
    ("parent through a directory", b"a/../../outside", "parent-path"),
    ("parent behind a dot", b"./../outside", "parent-path"),
    ("parent alone", b"..", "parent-path"),
    ("parent at the end", b"a/..", "parent-path"),
    ("dot alone", b".", "empty-component"),
    ("dot inside", b"a/./b", "empty-component"),
    ("dot twice", b"././a", "empty-component"),
    ("empty part", b"a//b", "empty-component"),
    ("newline", b"a\nb", "control-character"),
    ("tab", b"a\tb", "control-character"),
    ("bell", b"a\x07b", "control-character"),
    ("escape sequence", b"a\x1b[2Jb", "control-character"),
    ("delete", b"a\x7fb", "control-character"),
    ("C1 control", "a\x85b".encode(), "control-character"),
    ("backslash", b"a\\b", "backslash"),
    ("backslash parent", b"..\\..\\outside", "backslash"),
    ("drive", b"C:\\outside", "backslash"),
    ("component of 256 bytes", b"a" * 256, "component-too-long"),
    ("component of 256 bytes in 128 characters", "é".encode() * 128, "component-too-long"),
    ("component of 256 bytes above a file", b"a" * 256 + b"/b", "component-too-long"),
]

# Title, bytes of the name, budget.
LARGE_NAMES = [
    ("name of 1025 bytes", b"/".join([b"a" * 204] * 5) + b"b", "name-bytes"),
    ("65 deep", b"/".join([b"d"] * 65), "depth"),
    ("500 deep", b"/".join([b"d"] * 500), "depth"),
]

# Title, the two names, rule.
CLASHES = [
    ("same name", "a", "a", "duplicate"),
    ("same name, one with a dot", "a", "./a", "duplicate"),
    ("case", "readme", "README", "duplicate"),
    ("case of a directory", "Docs/a", "docs/b", "duplicate"),
    ("composition", "caf\u00e9", "cafe\u0301", "duplicate"),
    ("composition of a directory", "caf\u00e9/a", "cafe\u0301/b", "duplicate"),
    ("sharp s", "stra\u00dfe", "STRASSE", "duplicate"),
    ("Kelvin sign", "\u212a", "k", "duplicate"),
    ("case and composition", "CAF\u00c9", "cafe\u0301", "duplicate"),
    ("file, then below it", "a", "a/b", "not-a-directory"),
    ("file, then below it in another case", "a", "A/b", "not-a-directory"),
    ("directory, then a file of its name", "a/b", "a", "duplicate"),
]
