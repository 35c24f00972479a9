"""The key that shared objects are signed with. It stands outside the cache, so that who can write there cannot sign."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from flame_host.api import CacheError, ConfigError

_BYTES = 32


def signing_key(cache: Path) -> bytes:
    """The key of ``FLAME_CACHE_KEY`` (hex), else of the file ``FLAME_CACHE_KEY_FILE``, else of this user's own, made when missing."""
    given = os.environ.get("FLAME_CACHE_KEY", "")
    if given:
        try:
            key = bytes.fromhex(given)
        except ValueError:
            raise ConfigError("FLAME_CACHE_KEY is not hexadecimal") from None
        return _long_enough(key, "FLAME_CACHE_KEY")
    named = os.environ.get("FLAME_CACHE_KEY_FILE", "")
    path = Path(named) if named else _default_path()
    if path.resolve().is_relative_to(cache.resolve()):
        raise ConfigError(f"the signing key {path} stands inside the cache it protects", hint="set FLAME_CACHE_KEY_FILE to another place")
    if not path.exists():
        _make(path)
    return _read(path)


def _default_path() -> Path:
    from platformdirs import user_data_path

    return user_data_path("flame-host") / "cache.key"


def _make(path: Path) -> None:
    make_private(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(_BYTES))
        os.fsync(descriptor)
        # Linking, not renaming: of two processes at once, both must end up with the key of the first.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        os.unlink(draft)


def make_private(directory: Path) -> None:
    """Make it and what is missing above it with mode 0700, whatever the umask."""
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CacheError(f"the signing key {path} is no file")
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CacheError(f"others may read or change the signing key {path}", hint=f"delete it, or: chmod 600 {path}")
    return _long_enough(path.read_bytes(), str(path))


def _long_enough(key: bytes, origin: str) -> bytes:
    if len(key) < 16:
        raise ConfigError(f"the signing key of {origin} has {len(key)} bytes; at least 16 are needed")
    return key
