"""What a task prints goes to the host line by line, marked with the task. Standard library only, Python 3.8 syntax."""

from __future__ import annotations

import io
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 8192  # characters kept of a line that does not end


class TaskOutput(io.TextIOBase):
    """Standard output or error of the user's code. ``send`` takes the number of the descriptor and the bytes."""

    def __init__(self, send: Callable[[int, bytes], None], name: str, fd: int) -> None:
        self._send = send
        self._fd = fd
        self.partial = ""
        self._lock = threading.RLock()
        self.name = "<%s>" % name
        self.buffer = io.FileIO(fd, "w", closefd=False)

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """A task may close what it thinks is its own; the next one prints all the same."""
        self.flush()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        with self._lock:
            self.partial += text
            if "\n" in self.partial or len(self.partial) > _LONGEST:
                head, newline, self.partial = self.partial.rpartition("\n")
                self._emit(head + newline if newline else self._take())
        return len(text)

    def flush(self) -> None:
        with self._lock:
            if self.partial:
                self._emit(self._take())

    def _take(self) -> str:
        rest, self.partial = self.partial, ""
        return rest

    def _emit(self, text: str) -> None:
        self._send(self._fd, text.encode("utf-8", "backslashreplace"))
