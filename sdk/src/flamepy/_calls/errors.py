"""Rebuild, from a worker's report, the exception a task raised.

The report is: length of the head (4 bytes, little endian), the head as JSON, and the exception as the session's serializer wrote it
or nothing when it could not. The head tells type, message, notes, frames and cause, so that something sensible can be raised even
when the exception's own type is unknown here.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import json
import linecache
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType, TracebackType
from typing import Any

from flame_host.api import FlameError, NotSerializableError, RemoteError, TaskExitError
from flame_host.api import errors as api_errors
from flamepy._calls.paths import shown

_HOST = os.path.join(os.path.dirname(os.path.dirname(api_errors.__file__)), "engine", "")
_SUPPORT = re.compile(r"/support/[0-9a-f]{16}/(flamepy|flame_\w+|cloudpickle)/")
_CALLER = os.path.join("flamepy", "_runner", "calling.py")


_limits: dict[str, Mapping[str, int]] = {}


def remember_limits(session_id: str, limits: Mapping[str, int] | None) -> None:
    """What the workers of a session may use, to be named when it was not enough."""
    if limits:
        _limits[session_id] = limits


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
        error = _told(head)
    _finish(error, head)
    advice = _advice(error, loads)
    if advice:
        _add_note(error, advice)
    return error


def without_our_frames(error: BaseException) -> TracebackType | None:
    """The traceback to show of an error that is not the task's: ours says all in its message, and its frames are of no use to a caller.

    With FLAME_DEBUG they are kept, and what caused it.
    """
    if not isinstance(error, FlameError) or os.environ.get("FLAME_DEBUG"):
        return error.__traceback__
    error.__cause__ = error.__context__ = None
    return None


def _advice(error: BaseException, loads: Callable[[bytes], Any]) -> str:
    """What a worker has not, and where it is to be had."""
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        source = getattr(loads, "__self__", None)  # the session's; its limits are not in the report
        limit = _limits.get(source.session.session_id, {}).get("memory") if source is not None else None
        if limit:
            allowed = f"{limit / (1 << 20):,.0f} MiB"
            return f"the worker may use {allowed} of memory: raise limits={{'memory': bytes}} of the service, or send less at a time"
        return "the worker could get no more memory from the machine"
    if kind == "BdbQuit":
        return "a worker has no terminal for a debugger: call svc.local(…), or run the program in one process: flame debug program.py"
    if isinstance(error, EOFError) and "reading a line" in str(error):
        return "a worker has no standard input: pass what it asks for as an argument"
    return ""


def _add_note(error: BaseException, note: str) -> None:
    if isinstance(error, FlameError):
        error.hint = error.hint or note
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


def _unusual(head: dict[str, Any]) -> BaseException | None:
    kind = head.get("kind")
    if kind == "exit":
        return TaskExitError(f"the task ended with sys.exit({head['message']})", code=head["message"])
    if kind == "unpicklable-result":
        message = head["message"]
        if not message.startswith("the result"):
            message = f"the result cannot be serialized: {message.removeprefix('self cannot be pickled: ')}"
        return NotSerializableError(message, path=head.get("path", ""), hint="return plain data, or only the part that is needed")
    return None


def _loaded(body: bytes, loads: Callable[[bytes], Any]) -> BaseException | None:
    """The exception as it was sent: itself, or ``(class, args, attributes)`` where its constructor wants other arguments than it keeps."""
    try:
        error = loads(body)
        if isinstance(error, tuple) and len(error) == 3:
            kind, args, attributes = error
            error = kind.__new__(kind, *args)
            error.args = args
            error.__dict__.update(attributes)
    except Exception:  # its class or something in it is unknown here: then it is told about
        return None
    return error if isinstance(error, BaseException) else None


def _told(head: dict[str, Any]) -> BaseException:
    """The exception as far as the report tells: of its own class if this program has loaded that, else a `RemoteError`."""
    kind = _known_type(head["type"])
    if kind is not None:
        try:
            error = kind.__new__(kind)
            message: Any = head["message"]
            if issubclass(kind, KeyError):  # says the repr of what it was given
                message = ast.literal_eval(message)
            error.args = (message,) if message else ()
            if str(error) == head["message"]:
                return error
        except Exception:  # a class that cannot be made like this
            pass
    return _remote(head)


def _remote(head: dict[str, Any]) -> RemoteError:
    name = head["type"]
    return RemoteError(
        f"{name.removeprefix('builtins.')}: {head['message']}" if head["message"] else name,
        type_name=name,
        remote_traceback=shown(head.get("text", "")),
    )


def _finish(error: BaseException, head: dict[str, Any]) -> None:
    if head.get("kind") == "unpicklable-result":  # what happened inside the serializer helps nobody: the error names the part
        return
    frames = list(itertools.dropwhile(_is_ours, head.get("frames") or ()))
    while isinstance(error, FlameError) and frames and _is_ours(frames[-1]):
        frames.pop()
    if isinstance(error, FlameError):
        error.message = shown(error.message)
    error.__traceback__ = traceback_of(frames)
    notes = list(head.get("notes") or ())
    if head.get("kind") == "load":
        notes.append("raised in the worker while it loaded the service" + _import_advice(error))
    elif _import_advice(error):
        notes.append("not installed where the task ran" + _import_advice(error))
    if notes and isinstance(error, FlameError):
        error.hint = error.hint or "; ".join(notes)
    elif notes:
        error.__notes__ = notes  # type: ignore[attr-defined]
    cause = _cause(head.get("cause"))
    if head.get("explicit", True):
        error.__cause__ = cause
    else:
        error.__context__ = cause


def _is_ours(frame: Sequence[Any]) -> bool:
    """The frames between the caller's and the task's: of the engine in this process, the codec, and what calls a callable that was sent."""
    file = str(frame[0])
    return file.startswith(_HOST) or file.endswith(_CALLER) or _SUPPORT.search(file) is not None


def _import_advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"; add what provides {error.name!r} to the project's dependencies, or to Runner(dependencies=[...])"
    return ""


def _cause(head: dict[str, Any] | None) -> BaseException | None:
    """A cause is told about, not pickled: it gets its own type back when that is a class this program has loaded already."""
    if head is None:
        return None
    error = _told(head)
    _finish(error, head)
    return error


def _known_type(name: str) -> type[BaseException] | None:
    module, _, attribute = name.rpartition(".")
    found = vars(builtins).get(attribute) if module == "builtins" else vars(sys.modules.get(module, object)).get(attribute)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def traceback_of(frames: Sequence[Sequence[Any]]) -> TracebackType | None:
    """A traceback that prints as the remote one did; source lines that are not on this machine are remembered from the report."""
    trace: TracebackType | None = None
    for copy, line, function, source in reversed(frames):
        file = _own_file(copy, line or 1, source)
        _remember(file, line or 1, source)
        code = _code(file, line or 1, function)
        # A generator that never starts has a frame with none behind it. The frame of code that has run would keep its callers, and with
        # them all that they held, for as long as the error is kept.
        waiting = FunctionType(code, {"__name__": function})()
        trace = TracebackType(trace, waiting.gi_frame, 0, line or 1)
    return trace


_GENERATOR = (lambda: (yield)).__code__


def _own_file(copy: str, line: int, source: str) -> str:
    """The user's own file in place of the worker's copy, unless that line has been changed since."""
    own = shown(copy)
    return own if own == copy or not source or linecache.getline(own, line).strip() == source.strip() else copy


def _code(file: str, line: int, function: str) -> CodeType:
    """A generator's code that claims to be the function at that line."""
    if sys.version_info < (3, 11):
        return _GENERATOR.replace(co_filename=file, co_name=function, co_firstlineno=line)
    code = _GENERATOR
    # A location table without columns: there is nothing to underline. Each entry covers at most eight code units.
    units = len(code.co_code) // 2
    table = b"".join(bytes((0x80 | 13 << 3 | min(8, units - start) - 1, 0)) for start in range(0, units, 8))
    return code.replace(co_filename=file, co_name=function, co_qualname=function, co_firstlineno=line, co_linetable=table)


def _remember(file: str, line: int, source: str) -> None:
    if not source or os.path.exists(file):
        return
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    lines += ["\n"] * (line - len(lines))
    lines[line - 1] = source + "\n"
    # Without a modification time, linecache.checkcache leaves the entry alone.
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
