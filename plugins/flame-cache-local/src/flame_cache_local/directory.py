"""Objects in a directory that the processes of one user on one machine share."""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import secrets
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from flame_cache_local.object_file import Draft, Header, read_header, read_payload
from flame_cache_local.signing import make_private, signing_key
from flame_host.api import CacheError, ClosedError, ObjectNotFoundError, ObjectRef, Payload, VersionConflictError
from flame_host.api.keys import parts_of

_TRASH = ".trash"
_SUFFIX = ".object"
_REMEMBERED = 4096
_VANISHED = (errno.ENOENT, errno.ENOTDIR)


class DirectoryStore:
    """``<root>/<application>/<session>/<object>.object``, written apart and renamed, so that a reader sees all of it or nothing.

    Changes of a session take turns by ``flock`` on its directory; reading takes no lock. Contents are checked against their digests
    the first time this store reads a file; a file that was not touched since (inode and change time) is not hashed again.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        try:
            _own(self._root)
            # Of this directory: an object copied here from another cache of the user is none of this one.
            self._secret = hmac.digest(signing_key(self._root), os.fsencode(self._root.resolve()), "sha256")
        except OSError as error:
            raise CacheError(f"cannot use {root} as a cache: {error}") from error
        self._verified: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._closed = False

    @property
    def endpoint(self) -> str:
        return self._root.as_uri()

    def put(self, key: str, payload: Payload) -> ObjectRef:
        if len(parts_of(key, 2, 3)) == 2:
            key = f"{key}/{secrets.token_hex(16)}"
        return self._write(key, payload, must_exist=False, if_version=None)

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        return self._write(ref.key, payload, must_exist=True, if_version=if_version)

    def get(self, ref: ObjectRef) -> Payload:
        with self._reading(ref.key) as file:
            if file is None:
                raise _missing(ref.key)
            header = read_header(file, ref.key, self._secret)
            self._check_newer(header, file)
            # The digest tells a key that was deleted and stored again from the object the reference was made for.
            if ref.version not in (0, header.version) or (ref.version and ref.digest and ref.digest != header.digest):
                raise ObjectNotFoundError(f"{ref.key} was replaced; version {ref.version} of then is not kept")
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
            payload = read_payload(file, header, verify=identity not in self._verified)
            self._remember(identity)
            return payload

    def delete(self, key: str) -> int:
        parts = parts_of(key, 2, 3)
        self._check_open()
        with _as_cache_error(f"cannot delete {key}"):
            if len(parts) == 3:
                return self._delete_one(key)
            application = self._root / _file_name(parts[0])
            if parts[1] != "*":
                return self._drop(application / _file_name(parts[1]))
            sessions = list(application.iterdir()) if application.is_dir() else []
            gone = sum(map(self._drop, sessions))
            with contextlib.suppress(OSError):  # somebody opened a session meanwhile
                application.rmdir()
            return gone

    def close(self) -> None:
        self._closed = True

    def _write(self, key: str, payload: Payload, *, must_exist: bool, if_version: int | None) -> ObjectRef:
        target = self._path(key)
        if must_exist and not target.exists():
            raise _missing(key)
        with _as_cache_error(f"cannot store {key}"):
            for _ in range(100):
                try:
                    for directory in (target.parent.parent, target.parent):
                        # Not pathlib's exist_ok: it looks again, and raises when the session was deleted between its two looks.
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(directory, 0o700)
                    header = self._write_once(key, target, payload, must_exist, if_version)
                    return ObjectRef(self.endpoint, key, header.version, header.format, header.size, header.digest)
                except OSError as error:
                    if error.errno not in _VANISHED:
                        raise
                    # Its session was deleted in this very moment.
        raise CacheError(f"cannot store {key}: its session is being deleted again and again")

    def _write_once(self, key: str, target: Path, payload: Payload, must_exist: bool, if_version: int | None) -> Header:
        part = target.parent / f".{secrets.token_hex(8)}.part"
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                draft = Draft(file, key, payload)
                with _locked(target.parent):
                    version, made = self._version(key)
                    if must_exist and not version:
                        raise _missing(key)
                    if if_version is not None and if_version != version:
                        raise VersionConflictError(
                            f"{key} has version {version}, not {if_version}", hint="get it again and repeat the change"
                        )
                    header = draft.finish(version + 1, self._secret, made)
                    os.replace(part, target)
                    self._newest[key] = header.made
                    return header
        finally:
            part.unlink(missing_ok=True)

    def _version(self, key: str) -> tuple[int, int]:
        """The current version and when it was made, both 0 for none."""
        with self._reading(key) as file:
            if file is None:
                return 0, 0
            header = read_header(file, key, self._secret)
            return header.version, header.made

    def _delete_one(self, key: str) -> int:
        path = self._path(key)
        try:
            with _locked(path.parent):
                path.unlink()
        except OSError as error:
            if error.errno not in _VANISHED:
                raise
            return 0
        return 1

    def _drop(self, session: Path) -> int:
        """Move a session away in one step, then delete it at leisure."""
        trash = self._root / _TRASH
        trash.mkdir(mode=0o700, exist_ok=True)
        doomed = trash / secrets.token_hex(16)
        try:
            with _locked(session):
                session.rename(doomed)
        except OSError as error:
            if error.errno not in _VANISHED:
                raise
            return 0
        count = sum(1 for path in doomed.iterdir() if path.name.endswith(_SUFFIX))
        shutil.rmtree(doomed, ignore_errors=True)
        return count

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO | None]:
        try:
            # Not blocking, and no link followed: whatever else stands there is no object, and must not be waited for.
            file = os.fdopen(os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise CacheError(f"cannot read {key}: what stands there is no file")
        except OSError as error:
            if error.errno not in _VANISHED:
                raise CacheError(f"cannot read {key}: {error}") from error
            yield None
            return
        with file:
            yield file

    def _check_newer(self, header: Header, file: BinaryIO) -> None:
        """What this store has seen of a key never gets older: who can write files could put an earlier one back, signature and all."""
        seen = self._newest.get(header.key, 0)
        if header.made < seen and self._stands_there(header.key, file):  # else it was replaced since we opened it
            raise CacheError(f"the stored object {header.key} was put back to an earlier one", hint="see who writes into the cache")
        self._newest[header.key] = max(seen, header.made)
        while len(self._newest) > _REMEMBERED:
            with contextlib.suppress(KeyError):
                self._newest.popitem(last=False)

    def _stands_there(self, key: str, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.stat(self._path(key)), os.fstat(file.fileno()))
        except OSError:
            return False

    def _remember(self, identity: tuple[int, ...]) -> None:
        self._verified[identity] = None
        while len(self._verified) > _REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was quicker
                self._verified.popitem(last=False)

    def _path(self, key: str) -> Path:
        self._check_open()
        application, session, name = parts_of(key, 3)
        return self._root / _file_name(application) / _file_name(session) / (_file_name(name) + _SUFFIX)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the cache {self.endpoint} was closed")


def _own(root: Path) -> None:
    """Make the directory, or make sure that it is ours alone."""
    make_private(root)
    status = root.stat()
    if status.st_uid != os.getuid():
        raise CacheError(f"{root} belongs to another user", hint="choose a directory of your own")
    if status.st_mode & 0o077:
        if any(root.iterdir()):
            raise CacheError(f"others may look into {root}", hint=f"chmod 700 {root}, if nobody else is meant to")
        root.chmod(0o700)


def _file_name(part: str) -> str:
    """A key's part as a file name: no leading dot (those are ours), no more than 200 bytes."""
    name = quote(part, safe=" +=,@()")
    name = "%2E" + name[1:] if name.startswith(".") else name
    return name if len(name) <= 200 else "%-" + sha256(part.encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory alone. FileNotFoundError when it was moved away while we waited."""
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            raise FileNotFoundError(errno.ENOENT, "was deleted meanwhile", str(directory))
        yield
    finally:
        os.close(descriptor)


def _missing(key: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(f"there is no object {key}", hint="it was deleted, or its session was closed")


@contextlib.contextmanager
def _as_cache_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"{what}: {error}") from error
