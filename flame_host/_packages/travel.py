"""A package of this machine on its way to another one, that does not see this one's directories."""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flame_host._packages.files import FORMAT, SUFFIX, FileStore
from flame_host._private import make_private
from flame_host.api import Limits, PackageError, PackageNotFoundError, PackageRef

_LENGTH = struct.Struct("<Q")


def export_package(root: Path, package: PackageRef) -> bytes | None:
    """All of a package that stands on this machine; None for one that any machine fetches from its store.

    Args:
        root: the host's.

    Raises:
        PackageError: it is not there any more.
    """
    if urlsplit(package.url).scheme != "file":
        return None
    path = Path(unquote(urlsplit(package.url).path))
    try:
        content = path.read_bytes()
        parts = [content]
        if package.format == FORMAT:
            store = FileStore(root, Limits())
            parts += [store.place(digest).read_bytes() for digest in _digests(content)]
    except OSError as error:
        raise PackageNotFoundError(f"there is no package at {package.url}", hint="run the program again: it is packed anew") from error
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def import_package(root: Path, package: PackageRef, fetch: Callable[[], bytes | memoryview]) -> PackageRef:
    """Have it below another host's root; returns where it stands there.

    Nothing of it is believed: every content is named by its digest, and checked when it is used.

    Args:
        fetch: gives what `export_package` gave; asked only when the package is not there already.

    Raises:
        PackageError: it is damaged.
    """
    lists = root / "packs"
    make_private(lists)
    given = Path(unquote(urlsplit(package.url).path))
    path = lists / (f"{package.digest}{SUFFIX}" if package.format == FORMAT else f"{package.digest}-{given.name}")
    if given.parent == lists and _is_there(given, package):  # the same machine
        return package
    if not _is_there(path, package):
        content, *contents = _parts(memoryview(fetch()))
        store = FileStore(root, Limits())
        for one in contents:
            store.add(bytes(one))
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        part.write_bytes(content)
        os.replace(part, path)
    return replace(package, url=path.as_uri())


def _is_there(path: Path, package: PackageRef) -> bool:
    if not path.is_file() or path.stat().st_size != package.size:
        return False
    os.utime(path)
    return True


def _digests(listing: bytes) -> list[str]:
    return sorted({entry[3] for entry in json.loads(listing)["files"]})


def _parts(data: memoryview) -> list[memoryview]:
    parts, offset = [], 0
    while offset < len(data):
        (size,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if size > len(data) - offset:
            raise PackageError("a package has arrived incompletely")
        parts.append(data[offset : offset + size])
        offset += size
    if not parts:
        raise PackageError("a package has arrived empty")
    return parts
