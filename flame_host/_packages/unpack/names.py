"""Whether a member's name may be written, whatever it stands for."""

# Imported by the child that unpacks: nothing heavy at run time.
from __future__ import annotations

import unicodedata

from flame_host.api import ArchiveLimitError, UnsafeArchiveError

COMPONENT_BYTES = 255


def check_name(name: str, name_bytes: int) -> None:
    """What a quick look at the name did not settle: characters and lengths. Components are judged where directories are entered."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise UnsafeArchiveError("not-unicode", name, "a name is not valid Unicode") from None
    if len(encoded) > name_bytes:
        raise ArchiveLimitError("name-bytes", f"a name of {len(encoded)} bytes; {name_bytes} are allowed")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise UnsafeArchiveError("control-character", name, "a name contains a control character")
    if "\\" in name:
        raise UnsafeArchiveError("backslash", name, "a name contains a backslash, which separates directories on some systems")
    for component in name.split("/"):
        if len(component.encode()) > COMPONENT_BYTES:
            raise UnsafeArchiveError("component-too-long", name, f"a part of a name is longer than {COMPONENT_BYTES} bytes")


def bad_component(component: str, name: str) -> UnsafeArchiveError:
    """Why a name with this component, or with a slash in front, is refused."""
    if name[:1] == "/":
        return UnsafeArchiveError("absolute-path", name, "a name is absolute")
    if component == "..":
        return UnsafeArchiveError("parent-path", name, "a name leads upwards")
    if not name:
        return UnsafeArchiveError("empty-name", name, "a member has no name")
    return UnsafeArchiveError("empty-component", name, "a name has an empty part or a '.' in it")


def without_dot(name: str) -> str:
    return name[2:] if name[:2] == "./" else name


def fold(name: str) -> str:
    """One spelling for all names that a case-insensitive or normalising file system takes for the same."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
