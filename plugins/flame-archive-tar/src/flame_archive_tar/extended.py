"""Extended headers: PAX records and GNU long names."""

from __future__ import annotations

from flame_host.api import ArchiveError, UnsafeArchiveError

FOLLOWED = ("path", "linkpath", "size")
UTF8 = "ISO-IR 10646 2000 UTF-8"


def parse_records(data: bytes) -> dict[str, str]:
    """The records we follow, of a header for one member; what changes a file's extent is refused."""
    found = {}
    for key, value in _records(data):
        if key in FOLLOWED:
            found[key] = value
            if not value:
                raise UnsafeArchiveError("pax-empty", "", f"an extended header empties {key!r}")
            if key == "size" and not (value.isascii() and value.isdigit() and len(value) < 20):
                rule = "negative-size" if value.startswith("-") else "size-overflow"
                raise UnsafeArchiveError(rule, "", f"an extended header gives the size {value[:40]!r}")
        else:
            _refuse_tricks(key, value)
    return found


def parse_global(data: bytes) -> None:
    """Check a header for all members: remarks such as git's commit id pass, names and sizes do not."""
    for key, value in _records(data):
        if key in FOLLOWED:
            raise UnsafeArchiveError("global-header", "", f"a global header sets {key!r} for every member")
        _refuse_tricks(key, value)


def parse_long_name(data: bytes) -> str:
    text, _, rest = data.partition(b"\0")
    if rest.count(0) != len(rest):
        raise UnsafeArchiveError("name-after-nul", text[:100].decode("utf-8", "replace"), "something is hidden behind the end of a name")
    return _decode(text)


def _records(data: bytes) -> list[tuple[str, str]]:
    """All records, each ``"<length> <key>=<value>\\n"``."""
    found: dict[str, str] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise ArchiveError("an extended header is damaged")
        name = _decode(key)
        if name in found:
            raise UnsafeArchiveError("pax-duplicate", "", f"an extended header sets {name!r} twice")
        found[name] = _decode(value) if name in FOLLOWED or name == "hdrcharset" else ""
        position = end
    return list(found.items())


def _refuse_tricks(key: str, value: str) -> None:
    if key.startswith(("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")):
        raise UnsafeArchiveError("sparse", "", f"a sparse file ({key})")
    if key == "hdrcharset" and value != UTF8:
        raise UnsafeArchiveError("hdrcharset", "", f"names in the character set {value[:40]!r}")


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise UnsafeArchiveError("not-unicode", text[:100].decode("utf-8", "replace"), "a name is not UTF-8") from None
