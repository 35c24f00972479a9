"""``/healthz`` and ``/status`` over HTTP, on this machine only: for supervisors, and for ``flame-host status``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from flame_host.serve.settings import host_and_port

_SECONDS = 5.0
_LONGEST = 8192


class Health:
    """A small HTTP server.

    Args:
        status: what there is to say; ``state`` in it says ``serving`` when all is well.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, address: str) -> None:
        host, port = host_and_port(address)
        self._server = await asyncio.start_server(self._answer, host, port, limit=_LONGEST)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 1.0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _SECONDS)
            code, body = self._page(request.split(b" ", 2)[1].partition(b"?")[0])
            kind = "application/json" if body.startswith("{") else "text/plain"
            head = f"HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
            await asyncio.wait_for(writer.drain(), _SECONDS)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, OSError):
            pass  # who asks so is told nothing
        finally:
            writer.close()

    def _page(self, path: bytes) -> tuple[str, str]:
        status = self._status()
        if path == b"/healthz":
            return ("200 OK", "ok\n") if status["state"] == "serving" else ("503 Service Unavailable", f"{status['state']}\n")
        if path == b"/status":
            return "200 OK", json.dumps(status)
        return "404 Not Found", "there is /healthz and /status\n"
