"""Rebuild, from a worker's report, the exception a task raised.

The report is: length of the head (4 bytes, little endian), the head as JSON, and the exception as the session's serializer wrote it
or nothing when it could not. The head tells type, message, notes, frames and cause, so that something sensible can be raised even
when the exception's own type is unknown here.
"""

from __future__ import annotations

import builtins
import json
import linecache
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from flame_host.api import FlameError, NotSerializableError, RemoteError, TaskExitError


def split(report: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(report[:4], "little")
    head = json.loads(bytes(report[4 : 4 + length]).decode("utf-8", "surrogatepass"))
    return head, bytes(report[4 + length :])


def kind_of(report: bytes) -> str:
    return str(split(report)[0].get("kind", "raised"))


def rebuild(report: bytes, loads: Callable[[bytes], Any]) -> BaseException:
    """The exception to raise: of the task's own type if that is to be had, with its attributes, notes, cause and traceback.

    Its traceback holds the task's frames only.
    """
    head, body = split(report)
    error = _unusual(head)
    if error is None and body:
        error = _loaded(body, loads)
    if error is None:
        error = _remote(head)
    _finish(error, head)
    return error


def _unusual(head: dict[str, Any]) -> BaseException | None:
    kind = head.get("kind")
    if kind == "exit":
        return TaskExitError(f"the task ended with sys.exit({head['message']})", code=head["message"])
    if kind == "unpicklable-result":
        message = head["message"]
        if not message.startswith("the result"):
            message = f"the result cannot travel: {message}"
        return NotSerializableError(message, path=head.get("path", ""), hint="return plain data, or only the part that is needed")
    return None


def _loaded(body: bytes, loads: Callable[[bytes], Any]) -> BaseException | None:
    try:
        error = loads(body)
    except Exception:  # its class or something in it is unknown here: then it is told about
        return None
    return error if isinstance(error, BaseException) else None


def _remote(head: dict[str, Any]) -> RemoteError:
    name = head["type"]
    return RemoteError(
        f"{name.removeprefix('builtins.')}: {head['message']}" if head["message"] else name,
        type_name=name,
        remote_traceback=head.get("text", ""),
    )


def _finish(error: BaseException, head: dict[str, Any]) -> None:
    error.__traceback__ = traceback_of(head.get("frames") or ())
    notes = list(head.get("notes") or ())
    if head.get("kind") == "load":
        notes.append("raised in the worker while it loaded the service" + _import_advice(error))
    if notes and not isinstance(error, FlameError):
        error.__notes__ = notes  # type: ignore[attr-defined]
    elif notes and not error.hint:
        error.hint = "; ".join(notes)
    cause = _cause(head.get("cause"))
    if head.get("explicit", True):
        error.__cause__ = cause
    else:
        error.__context__ = cause


def _import_advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"; add what provides {error.name!r} to the project's dependencies, or to Runner(dependencies=[...])"
    return ""


def _cause(head: dict[str, Any] | None) -> BaseException | None:
    """A cause is told about, not pickled: it gets its own type back when that is a class this program has loaded already."""
    if head is None:
        return None
    kind = _known_type(head["type"])
    error: BaseException
    if kind is None:
        error = _remote(head)
    else:
        try:
            error = kind.__new__(kind)
            error.args = (head["message"],) if head["message"] else ()
            str(error)
        except Exception:
            error = _remote(head)
    _finish(error, head)
    return error


def _known_type(name: str) -> type[BaseException] | None:
    module, _, attribute = name.rpartition(".")
    found = vars(builtins).get(attribute) if module == "builtins" else vars(sys.modules.get(module, object)).get(attribute)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def traceback_of(frames: list[list[Any]] | tuple[()]) -> TracebackType | None:
    """A traceback that prints as the remote one did; source lines that are not on this machine are remembered from the report."""
    if not frames:
        return None
    from tblib import Traceback

    chain: dict[str, Any] | None = None
    for file, line, function, source in reversed(frames):
        _remember(file, line or 1, source)
        code = {"co_filename": file, "co_name": function}
        frame = {"f_globals": {"__name__": "?"}, "f_locals": {}, "f_code": code, "f_lineno": line or 1}
        chain = {"tb_frame": frame, "tb_lineno": line or 1, "tb_next": chain}
    made: TracebackType | None = Traceback.from_dict(chain).as_traceback()
    return made


def _remember(file: str, line: int, source: str) -> None:
    if not source or os.path.exists(file):
        return
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    lines += ["\n"] * (line - len(lines))
    lines[line - 1] = source + "\n"
    # Without a modification time, linecache.checkcache leaves the entry alone.
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
