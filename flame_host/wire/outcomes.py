"""How things ended, in codes and texts: what an executor manager and its users get to see."""

from __future__ import annotations

import base64
import json
import traceback
from enum import IntEnum

from flame_host.api import (
    CacheError,
    ConfigError,
    FlameError,
    NegotiationError,
    PackageError,
    PluginError,
    ProvisionError,
    SerializationError,
    TaskExitError,
    TaskTimeoutError,
    WorkerError,
)

MESSAGE_LIMIT = 4 << 20
"""Bytes of one gRPC message, everywhere in a cluster."""
OUTPUT_LIMIT = MESSAGE_LIMIT - (64 << 10)
"""Bytes an output may have: the message around it, and those it is copied into on its way, need room too."""
TEXT_LIMIT = 64 << 10
"""Characters of an error text; a traceback's head and tail say more than its middle."""
_REPORT = "flame-report:"
_REPORT_LIMIT = 64 << 10


class ReturnCode(IntEnum):
    """Anything but 0 fails; a cluster shows the code and acts on no difference between them."""

    OK = 0
    FAILED = -1
    RAISED = 1
    BAD_PAYLOAD = 10
    BAD_SETTING = 11
    PACKAGE = 12
    PROVISION = 13
    WORKER = 14
    CACHE = 15
    EXITED = 16
    TIMED_OUT = 17


_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ReturnCode], ...] = (
    (SerializationError, ReturnCode.BAD_PAYLOAD),
    ((ConfigError, NegotiationError, PluginError), ReturnCode.BAD_SETTING),
    (PackageError, ReturnCode.PACKAGE),
    (ProvisionError, ReturnCode.PROVISION),
    (WorkerError, ReturnCode.WORKER),
    (CacheError, ReturnCode.CACHE),
    (TaskExitError, ReturnCode.EXITED),
    (TaskTimeoutError, ReturnCode.TIMED_OUT),
)


class Failure(Exception):
    """An end whose code and text are known already.

    Attributes:
        code: never `ReturnCode.OK`. text: what the user reads.
    """

    def __init__(self, code: ReturnCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def failure_of(error: BaseException) -> Failure:
    """Code and full text of any exception: our own speak for themselves, others need their traceback."""
    if isinstance(error, Failure):
        return Failure(error.code, shortened(error.text))
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), ReturnCode.FAILED)
    if isinstance(error, FlameError):
        return Failure(code, shortened(f"{type(error).__name__}: {error}"))
    return Failure(code, shortened("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()))


def failure_of_report(report: bytes) -> Failure:
    """From a worker's error report: its head as JSON after a length, then the exception, which is not opened here."""
    try:
        head = json.loads(report[4 : 4 + int.from_bytes(report[:4], "little")].decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):  # a task has written to the worker's sockets
        return Failure(ReturnCode.FAILED, "the worker's report of the error is damaged")
    kind, message = head.get("kind", "raised"), str(head.get("message", ""))
    text = str(head.get("text", "")).rstrip() or f"{head.get('type')}: {message}"
    if kind == "exit":
        return Failure(ReturnCode.EXITED, shortened(f"TaskExitError: the task ended with sys.exit({message})\n{text}"))
    if kind == "unpicklable-result":
        return Failure(ReturnCode.BAD_PAYLOAD, shortened(f"NotSerializableError: the result cannot travel: {message}\n{text}"))
    if kind == "load":
        return Failure(ReturnCode.BAD_PAYLOAD, shortened(f"the worker cannot load the execution object: {message}\n{text}"))
    return Failure(ReturnCode.RAISED, shortened(text))


def with_report(text: str, report: bytes) -> str:
    """Attach the report to a failure's text, which is all of a failure that a cluster passes on."""
    return f"{text}\n{_REPORT}{base64.b64encode(report).decode()}" if len(report) <= _REPORT_LIMIT else text


def split_report(message: str) -> tuple[str, bytes]:
    """Undo `with_report`; the report is empty when there is none."""
    text, mark, encoded = message.rpartition(f"\n{_REPORT}")
    try:
        return (text, base64.b64decode(encoded, validate=True)) if mark else (message, b"")
    except ValueError:  # the text of somebody else, which only looks alike
        return message, b""


def shortened(text: str) -> str:
    """Cut the middle out of a text that is too long, and make it fit for protobuf, which takes no lone surrogates."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
