"""Packages in a directory of this machine, or of a file system that client and host share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from flame_host.api import DigestMismatchError, PackageNotFoundError, StoreError, whole_file

_CHUNK = 1 << 20
_STALE_SECONDS = 24 * 3600.0
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]{0,199}")


class FileStore:
    """Serves ``file:///directory/name``.

    A file gets its name only when it is complete and on disk: it is written without one, flushed, then linked. Where a file system has
    no files without names it is ``.name.<random>.part`` meanwhile, which nothing fetches and a later publication sweeps away after a day.
    """

    schemes = ("file",)

    def publish(self, source: Path, location: str, *, name: str, digest: str, overwrite: bool = False) -> str:
        directory = path_of(location)
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot be the name of a package", hint="use one path component that does not begin with a dot")
        target = directory / name
        with _as_store_error(f"cannot publish {name} to {location}"):
            directory.mkdir(parents=True, exist_ok=True)
            _sweep(directory)
            # The bytes that stand there are hashed each time: a digest kept beside them could be older than they are.
            if target.exists() and _digest_of(target) == digest:
                return target.as_uri()
            if target.exists() and not overwrite:
                raise _taken(target)
            self._write(source, target, digest, overwrite)
        return target.as_uri()

    def _write(self, source: Path, target: Path, digest: str, overwrite: bool) -> None:
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            with _open_regular(source) as reader, whole_file(part) as writer:
                written = _copy(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
                if written != digest:
                    raise DigestMismatchError(f"{source} has SHA-256 {written}, not {digest}; it was not published")
            if overwrite:
                os.replace(part, target)
            else:
                _link(part, target, digest)
            _flush_directory(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def fetch(self, url: str, target: Path, *, size_limit: int, deadline: float) -> None:
        until = time.monotonic() + deadline
        source = path_of(url)
        with _as_store_error(f"cannot fetch {url}"):
            try:
                reader = _open_regular(source)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise PackageNotFoundError(f"there is no package at {url}", hint="publish it, or check the path") from error
            with reader:
                status = os.fstat(reader.fileno())
                if status.st_size > size_limit:
                    raise StoreError(f"{url} has {status.st_size} bytes, more than the {size_limit} allowed")
                with target.open("xb") as writer:
                    try:
                        _copy(reader, writer, limit=size_limit, until=until, what=url)
                    except BaseException:
                        target.unlink(missing_ok=True)
                        raise

    def delete(self, url: str) -> None:
        path = path_of(url)
        with _as_store_error(f"cannot delete {url}"):
            if path.is_dir() and not path.is_symlink():
                raise StoreError(f"{url} is a directory; only packages are deleted")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()


def path_of(url: str) -> Path:
    """The absolute path a ``file:`` URL names; percent-encoding is undone."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"{url!r:.200} is no URL: {error}") from error
    if parts.scheme != "file":
        raise StoreError(f"{url} is not a file: URL")
    if parts.netloc not in ("", "localhost"):
        raise StoreError(f"{url} names the host {parts.netloc!r}", hint="file URLs reach this machine only: write file:///absolute/path")
    if parts.query or parts.fragment:
        raise StoreError(f"{url} has a query or a fragment", hint="write ? as %3F and # as %23 when they belong to the path")
    if not parts.path.startswith("/"):
        raise StoreError(f"{url} is not absolute", hint="write file:///absolute/path")
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if "\0" in path:
        raise StoreError(f"{url!r} holds a NUL character")
    return Path(path)


def _copy(reader: BinaryIO, writer: BinaryIO, *, limit: int | None = None, until: float | None = None, what: str = "") -> str:
    """Copy to the end and return the SHA-256; the size is counted here, too, because a file may grow while it is read."""
    seen, hasher = 0, hashlib.sha256()
    while chunk := reader.read(_CHUNK):
        seen += len(chunk)
        if limit is not None and seen > limit:
            raise StoreError(f"{what} has more than the {limit} bytes allowed")
        if until is not None and time.monotonic() > until:
            raise StoreError(f"{what} was not read within its deadline; {seen} bytes had come")
        hasher.update(chunk)
        writer.write(chunk)
    return hasher.hexdigest()


def _open_regular(path: Path) -> BinaryIO:
    """Open a file that is one. A fifo would wait for ever for its other end, and opening a device does something to it."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode):
        # Not blocking: it may have become a fifo since we looked.
        reader = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            return reader
        reader.close()
    raise StoreError(f"{path} is not a regular file")


def _digest_of(path: Path) -> str:
    hasher = hashlib.sha256()
    with _open_regular(path) as reader:
        while chunk := reader.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _link(part: Path, target: Path, digest: str) -> None:
    """Give the part its name unless somebody took it meanwhile: of two publishers at once, the second sees the first."""
    try:
        os.link(part, target)
    except FileExistsError:
        if _digest_of(target) != digest:
            raise _taken(target) from None
    except OSError:
        # A file system without hard links; renaming is atomic there too, but two publishers within this instant both succeed.
        if target.exists() and _digest_of(target) != digest:
            raise _taken(target) from None
        os.replace(part, target)


def _taken(target: Path) -> StoreError:
    return StoreError(
        f"{target} holds another package of that name", hint="publish under another name, or ask for overwrite=True to replace it"
    )


def _sweep(directory: Path) -> None:
    oldest = time.time() - _STALE_SECONDS
    for part in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            if part.lstat().st_mtime < oldest:
                part.unlink()


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_store_error(what: str) -> Iterator[None]:
    try:
        yield
    except PackageNotFoundError:  # is an OSError, too
        raise
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error
