"""An exception as bytes, so that the other side can rebuild it, or at least tell about it.

Standard library only, Python 3.8 syntax. The reader is `flame_host.api.reports`.
"""

from __future__ import annotations

import json
import os
import struct
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

_LENGTH = struct.Struct("<I")
_LONGEST_TEXT = 256 << 10  # characters of an error's message, traceback or note
_MOST_NOTES = 100
_LARGEST_ERROR = 16 << 20  # bytes of an exception that is sent itself
_OURS = os.path.dirname(__file__) + os.sep


def error_report(
    error: BaseException,
    dumps: Callable[[Any], Any] | None = None,
    kind: str = "raised",
    path: str = "",
    loads: Callable[[Any], object] | None = None,
) -> bytes:
    """Length, that many bytes of JSON (type, message, text, notes, frames, kind, cause, path), then the exception itself as ``dumps``
    writes it, or nothing when it cannot be serialized, or not be read again by ``loads``."""
    head = json.dumps(_describe(error, kind, path), default=str).encode("utf-8", "surrogatepass")
    body = b""
    if dumps is not None:
        body = _serialized(error, dumps, loads)
        if len(body) > _LARGEST_ERROR:
            body = b""
    return _LENGTH.pack(len(head)) + head + body


def _serialized(error: BaseException, dumps: Callable[[Any], Any], loads: Callable[[Any], object] | None) -> bytes:
    """The exception itself; or class, arguments and attributes, where its constructor wants other arguments than it keeps.

    An exception that cannot be serialized at all is told about all the same.
    """
    try:
        body = bytes(dumps(error))
        if loads is not None:
            loads(body)
        return body
    except BaseException:
        try:
            return bytes(dumps((type(error), error.args, dict(error.__dict__))))
        except BaseException:
            return b""


def _describe(error: BaseException, kind: str = "", path: str = "", seen: tuple[int, ...] = ()) -> dict[str, Any]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and (id(cause) in seen or len(seen) > 10):
        cause = None
    return {
        "type": type(error).__module__ + "." + type(error).__qualname__,
        "message": _bounded(_text_of(error)),
        "text": _bounded(_formatted(error)),
        "notes": [_bounded(str(note)) for note in list(getattr(error, "__notes__", ()))[:_MOST_NOTES]],
        "frames": _frames(error.__traceback__),
        "kind": kind,
        "path": path or getattr(error, "path", "") or "",
        "explicit": error.__cause__ is not None,
        "cause": _describe(cause, seen=(*seen, id(error))) if cause is not None else None,
    }


def _bounded(text: str) -> str:
    """Head and tail of what nobody would read, and the host would have to keep."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return "%s\n... %d characters left out ...\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return "<str() of the exception raised %s>" % type(broken).__name__


def _formatted(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
    except Exception:
        lines = ["%s: %s\n" % (type(error).__qualname__, _text_of(error))]
    return "".join(lines)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _frames(trace: TracebackType | None) -> list[list[Any]]:
    try:
        summary = traceback.extract_tb(_without_ours(trace), limit=-100)
        return [[frame.filename, frame.lineno, frame.name, frame.line or ""] for frame in summary]
    except Exception:
        return []
