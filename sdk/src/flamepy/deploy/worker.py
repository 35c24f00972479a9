"""The process that serves one directory: ``python -m flamepy.deploy.worker DIRECTORY PORT``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from flame_host.api import FlameError
from flamepy.build.server import HandlerServer
from flamepy.deploy.directory import Place, write_json

_LOOKS = 0.2
"""Seconds between two looks at what is wanted."""


def main(directory: Path, port: int) -> None:
    """Serve what the directory's note wants, and what it wants next, until terminated."""
    place = Place(directory.name, {"path": str(directory.parent)})
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with (directory / "lock").open("a") as lock, contextlib.ExitStack() as undo:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        server: HandlerServer | None = None
        seen: object = None
        served: object = None  # after a release that failed, the note wants again what never went away
        while not stopped.wait(0 if seen is None else _LOOKS):
            wanted = place.read("wanted.json")
            if not wanted or wanted["order"] in (seen, served):
                continue
            seen = wanted["order"]
            try:
                if server is None:
                    server = undo.enter_context(HandlerServer(directory / wanted["archive"], port=port, token=place.token_file.read_text()))
                else:
                    server.replace(directory / wanted["archive"])
            except (FlameError, OSError) as error:
                write_json(directory / "served.json", {**place.read("served.json"), **_state(seen, server), "problem": str(error)})
                if server is None:
                    return
            else:
                write_json(directory / "served.json", {**_state(seen, server), "digest": wanted["digest"]})
                served = seen


def _state(order: object, server: HandlerServer | None) -> dict[str, Any]:
    resources = {} if server is None else {name: server.url_of(name) for name in server.manifest["resources"]}
    return {"pid": os.getpid(), "order": order, "resources": resources}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
