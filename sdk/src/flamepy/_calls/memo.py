"""Calls of the same content are made once: ``rr.service(fn, memo=True)``."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, CallOptions
from flamepy._calls.future import ObjectFuture
from flamepy._calls.submission import collect

if TYPE_CHECKING:
    from flamepy._calls.submission import CallSite

_MOST = 100_000


class Memo:
    """In the place of a `CallSite`: gives the future of an earlier call with the same method and arguments, by what they encode to.

    A call that failed or was cancelled is made again. References and futures among the arguments count by what they refer to.
    """

    def __init__(self, site: CallSite) -> None:
        self._site = site
        self._futures: dict[bytes, tuple[ObjectFuture[Any], list[Any]]] = {}
        self._lock = threading.Lock()

    def wait_for_arguments(self) -> None:
        self._site.wait_for_arguments()

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions | None = None) -> ObjectFuture[Any]:
        found: list[Any] = []
        buffers: list[Buffer] = []
        data = self._site.dumps((args, dict(sorted(kwargs.items()))), buffers=buffers, reference=partial(collect, found))
        digest = hashlib.blake2b(method.encode() + b"\0" + data, digest_size=32)
        for buffer in buffers:
            digest.update(memoryview(buffer).cast("B") if isinstance(buffer, memoryview) else buffer)  # type: ignore[arg-type]
        for argument in found:  # kept beside the future that is remembered, so that an id is not used again
            named = f"{id(argument)}" if isinstance(argument, ObjectFuture) else f"{argument.key}@{argument.version}"
            digest.update(named.encode())
        key = digest.digest()
        with self._lock:
            future, _ = self._futures.get(key, (None, found))
            if future is None or future.failed():
                if len(self._futures) >= _MOST:
                    self._futures.pop(next(iter(self._futures)))
                future = self._site.call(method, args, kwargs, options)
                self._futures[key] = future, found
            return future
