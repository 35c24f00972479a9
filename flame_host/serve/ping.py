"""The program of flmping: sleeps, takes memory, and says so."""

from __future__ import annotations

import json
import socket
import time

from flame_host.wire.contexts import SessionContext, TaskContext
from flame_host.wire.instance import serve


class Ping:
    """See `flame_host.wire.contexts.Service`."""

    def on_session_enter(self, context: SessionContext) -> None:
        """Nothing to prepare."""

    def on_task_invoke(self, context: TaskContext) -> bytes:
        begun = time.monotonic()
        wanted = json.loads(context.input) if context.input else {}
        memory = bytearray(wanted.get("memory") or 0)
        time.sleep((wanted.get("duration") or 0) / 1000)
        took = int((time.monotonic() - begun) * 1000)
        message = f"Completed on <{socket.gethostname()}> in <{took}> milliseconds with <{len(memory)} B> memory"
        return json.dumps({"message": message}).encode()

    def on_session_leave(self) -> None:
        """Nothing to put away."""


if __name__ == "__main__":
    serve(Ping())
