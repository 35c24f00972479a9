"""``flame dev``: a directory served as it is, and again after every change."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flame_host.api import FlameError
from flamepy._package.project import checked_root
from flamepy.build.modules import project_files
from flamepy.build.processes import Overtaken, unless
from flamepy.build.project import build_project
from flamepy.build.record import ARTEFACTS
from flamepy.build.server import HandlerServer

__all__ = ["DevServer"]

logger = logging.getLogger("flamepy.serve")
_LOOKS = 0.3
"""Seconds between two looks at the files."""
_INSTALL_FILES = ("pyproject.toml", "requirements.txt")


class DevServer:
    """Builds a project for this machine, serves it, and does so again when one of its files changes.

    A change that cannot be built leaves what is served as it is, and is told on the page and by ``say``.

    Args:
        say: told what happens, line by line.
        reload: whether changes are looked for. token: what requests have to show; by default a random one.
    """

    def __init__(
        self,
        project: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        say: Callable[[str], None] | None = None,
        reload: bool = True,
        token: str = "",
    ) -> None:
        self._root = checked_root(project)
        self._say = say or (lambda text: None)
        self._count = 0
        self._seen = self._look()
        self.server = HandlerServer(self._built(), host=host, port=port, token=token)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flame-dev", daemon=True)
        if reload:
            self._thread.start()

    @property
    def url(self) -> str:
        return self.server.url

    def wait(self) -> None:
        """Until it is closed, or interrupted."""
        self.server.wait()

    def close(self) -> None:
        """Stop looking and serving."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.server.close()

    def __enter__(self) -> DevServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _built(self) -> Path:
        # By turns, so that the one that is served stays as it is until the other is there.
        self._count += 1
        archive = self._root / ARTEFACTS / ".dev" / f"archive-{self._count % 2}.tar.gz"
        return build_project(self._root, output=archive, target="here", kept=archive.parent).archive

    def _look(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that decides on what is served."""
        seen = {}
        for name in (*project_files(self._root), *_INSTALL_FILES):
            try:
                status = os.stat(self._root / name)
            except OSError:
                continue
            seen[name] = (status.st_mtime_ns, status.st_size)
        return seen

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOKS):
            now = self._seen_now()
            if now == self._seen:
                continue
            changed = sorted(name for name in now.keys() | self._seen.keys() if now.get(name) != self._seen.get(name))
            self._seen = now
            self._say(f"changed: {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}")
            self._serve_anew()

    def _serve_anew(self) -> None:
        try:
            with unless(lambda: self._stopped.is_set() or self._seen_now() != self._seen):
                archive = self._built()
            self.server.replace(archive)
        except Overtaken:  # an import that does not end must keep nobody from mending it, nor from leaving
            return
        except (FlameError, OSError) as error:
            self._tell(f"not served, because it cannot be built:\n{error}", str(error))
        except Exception as error:  # ends neither the server nor the looking
            logger.exception("building %s failed", self._root)
            self._tell(f"not served, because building it failed: {error!r}", repr(error))
        else:
            self._say("served anew")

    def _tell(self, text: str, problem: str) -> None:
        self.server.problem = problem
        self._say(text)

    def _seen_now(self) -> dict[str, tuple[int, int]]:
        """What there is to see, or what was seen before when the project cannot be looked at."""
        try:
            return self._look()
        except FlameError:
            return self._seen
