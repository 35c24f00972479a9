"""The cache provider ``local``: objects in this process's memory, or in a directory the processes of this machine share."""

from __future__ import annotations

import threading
from urllib.parse import unquote, urlsplit

from flame_host.api import CacheError, ObjectStore


class LocalCache:
    """Opens ``local:`` (this process's memory) and ``file:///directory``.

    ``local:`` is one space: all who open it in this process see the same objects, which go when the last of them closes it.
    ``local:name`` is another space of the same kind.
    """

    name = "local"
    schemes = ("local", "file")

    def __init__(self) -> None:
        from flame_cache_local.memory import Space

        self._spaces: dict[str, Space] = {}
        self._lock = threading.Lock()

    def open(self, endpoint: str) -> ObjectStore:
        endpoint = endpoint or "local:"
        parts = urlsplit(endpoint)
        if parts.scheme == "local":
            return self._open_memory(endpoint)
        if parts.scheme != "file":
            raise CacheError(f"{endpoint} is no endpoint of the local cache", hint="write local: or file:///absolute/directory")
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise CacheError(f"{endpoint} does not name a directory of this machine", hint="write file:///absolute/directory")
        from flame_cache_local.directory import DirectoryStore

        return DirectoryStore(unquote(parts.path))

    def _open_memory(self, endpoint: str) -> ObjectStore:
        from flame_cache_local.memory import MemoryStore, Space

        with self._lock:
            space = self._spaces.setdefault(endpoint, Space())
            space.users += 1
        return MemoryStore(endpoint, space, self._leave)

    def _leave(self, endpoint: str) -> None:
        with self._lock:
            space = self._spaces[endpoint]
            space.users -= 1
            if space.users == 0:
                del self._spaces[endpoint]
