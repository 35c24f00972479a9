"""Output of workers: shown as it comes, and remembered for `ObjectFuture.logs`."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field

from flame_host.api import LogRecord
from flamepy._calls import screen
from flamepy._calls.paths import shown

_REMEMBERED = 1 << 20  # characters of output kept for each session, and for all closed ones together
_MOST_CLOSED = 100  # closed sessions whose output is kept at all


@dataclass
class _SessionOutput:
    label: str
    mode: str
    logger: logging.Logger | None
    records: deque[tuple[int, str]] = field(default_factory=deque)
    size: int = 0
    partial: dict[tuple[int, str], str] = field(default_factory=dict)


class TaskLogs:
    """Receives the log records of one client; each session says whether its output is shown."""

    def __init__(self) -> None:
        self._sessions: dict[str, _SessionOutput] = {}
        self._closed: deque[str] = deque()
        self._lock = threading.Lock()

    def watch(self, session_id: str, label: str, mode: str, logger: logging.Logger | None = None) -> None:
        """Args:
        mode: ``all``, ``errors`` (what was written to standard error) or ``none``. logger: gets the lines in place of `sys.stderr`.
        """
        with self._lock:
            self._sessions.setdefault(session_id, _SessionOutput(label, mode, logger))

    def forget(self, session_id: str) -> None:
        """Show what is left of a closed session; what it printed is remembered until later ones have printed as much."""
        with self._lock:
            output = self._sessions.get(session_id)
            rests = list(output.partial.items()) if output is not None else []
            if output is not None and session_id not in self._closed:
                self._closed.append(session_id)
                self._drop_oldest()
        for (worker, _), rest in rests:
            if output is not None and rest:
                self._show(output, worker, rest)
        if output is not None:
            output.partial.clear()

    def _drop_oldest(self) -> None:
        size = sum(self._sessions[session_id].size for session_id in self._closed)
        while len(self._closed) > 1 and (size > _REMEMBERED or len(self._closed) > _MOST_CLOSED):
            size -= self._sessions.pop(self._closed.popleft()).size

    def __call__(self, record: LogRecord) -> None:
        output = self._sessions.get(record.session_id)
        if output is None:
            return
        with self._lock:
            output.records.append((record.task, record.text))
            output.size += len(record.text)
            while output.size > _REMEMBERED and len(output.records) > 1:
                output.size -= len(output.records.popleft()[1])
            if output.mode == "none" or (output.mode == "errors" and record.stream != "stderr"):
                return
            key = (record.worker, record.stream)
            *lines, rest = (output.partial.get(key, "") + record.text).split("\n")
            output.partial[key] = rest
        for line in lines:
            self._show(output, record.worker, line)

    def of(self, session_id: str, number: int) -> str:
        """What one task printed; of the whole session when the number is negative."""
        output = self._sessions.get(session_id)
        if output is None:
            return ""
        with self._lock:
            return "".join(text for task, text in output.records if number < 0 or task == number)

    @staticmethod
    def _show(output: _SessionOutput, worker: int, line: str) -> None:
        line = shown(line)
        if output.logger is not None:
            output.logger.info("%s", line, extra={"service": output.label, "worker": worker})
            return
        # A line of JSON is meant for a program, which could not read it with a prefix.
        prefix = "" if line.startswith("{") and line.endswith("}") else f"({output.label} {worker}) "
        screen.line(f"{prefix}{line}")
