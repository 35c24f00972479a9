"""Every error that reaches a user, in one tree.

::

    FlameError
    ├── ConfigError              a setting is wrong (also ValueError)
    ├── PluginError              a plugin is missing, broken or clashes
    ├── NegotiationError         what is wanted cannot be served; lists every problem
    ├── PackageError
    │   ├── PackageNotFoundError (also FileNotFoundError)
    │   ├── DigestMismatchError
    │   ├── StoreError           a store refused, timed out or broke off
    │   └── ArchiveError         the archive is damaged
    │       ├── UnsafeArchiveError   the archive breaks a safety rule
    │       └── ArchiveLimitError    the archive exceeds a budget
    ├── ProvisionError
    │   ├── InterpreterNotFoundError
    │   └── InstallError         the installer failed; carries its log
    ├── SerializationError
    │   ├── NotSerializableError     says which part cannot be serialized
    │   └── FormatNotAllowedError    the payload names a format the plan does not admit
    ├── CacheError
    │   ├── ObjectNotFoundError  (also KeyError)
    │   └── VersionConflictError
    ├── ApplicationError
    │   ├── ApplicationExistsError
    │   └── ApplicationNotFoundError
    ├── SessionError
    │   ├── SessionNotFoundError
    │   └── ClosedError          used after close
    ├── WorkerError              infrastructure, not the user's code; retried
    │   ├── WorkerStartError
    │   ├── WorkerCrashedError
    │   └── StateLostError       a stateful service lost its worker
    └── TaskError                the user's code ended in an unusual way
        ├── TaskTimeoutError     (also TimeoutError)
        ├── TaskExitError        the task called sys.exit
        └── RemoteError          the task's exception, when its own type cannot be serialized

An error says what happened, then what to do (``hint``); facts are attributes. ``stage``, ``provider`` and ``application`` are
filled in once, at the boundary where they are known (see `FlameError.locate`).

Longer than 300 lines: one tree in one place, so that nobody adds a second error for what has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from flame_host.api.redaction import without_secrets

__all__ = [
    "ApplicationError",
    "ApplicationExistsError",
    "ApplicationNotFoundError",
    "ArchiveError",
    "ArchiveLimitError",
    "CacheError",
    "ClosedError",
    "ConfigError",
    "DigestMismatchError",
    "FlameError",
    "FormatNotAllowedError",
    "InstallError",
    "InterpreterNotFoundError",
    "NegotiationError",
    "NotSerializableError",
    "ObjectNotFoundError",
    "PackageError",
    "PackageNotFoundError",
    "PluginError",
    "Problem",
    "ProvisionError",
    "RemoteError",
    "SerializationError",
    "SessionError",
    "SessionNotFoundError",
    "StateLostError",
    "StoreError",
    "TaskError",
    "TaskExitError",
    "TaskTimeoutError",
    "UnsafeArchiveError",
    "VersionConflictError",
    "WorkerCrashedError",
    "WorkerError",
    "WorkerStartError",
]

E = TypeVar("E", bound="FlameError")
_LONGEST = 64 << 10
"""Characters of a message; what was read from a package or a peer may be any length."""


def presentable(text: str) -> str:
    """A message as people may see it: no credentials of URLs, and no more than anybody reads."""
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return without_secrets(text)


class FlameError(Exception):
    """Base of all errors of this project.

    Attributes:
        message: what happened, without the hint.
        hint: what to do about it; empty when there is nothing to advise.
        stage: the step of the way of the data (``"fetch"``, ``"install"``, ``"start worker"`` …).
        provider: name of the plugin's provider at work, if one was.
        application: name of the application, once known.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        message, hint = presentable(message), presentable(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.stage = ""
        self.provider = ""
        self.application = ""

    def locate(self: E, *, stage: str = "", provider: str = "", application: str = "") -> E:
        """Add where it happened; what is already known stays."""
        self.stage = self.stage or stage
        self.provider = self.provider or provider
        self.application = self.application or application
        return self

    def __str__(self) -> str:
        facts = [
            f"{label} {value}"
            for label, value in (("application", self.application), ("stage", self.stage), ("provider", self.provider))
            if value
        ]
        text = self.message
        if facts:
            text += f" [{', '.join(facts)}]"
        if self.hint:
            text += f"\n  → {self.hint}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[FlameError], args: tuple[object, ...], state: dict[str, object]) -> FlameError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(FlameError, ValueError):
    """A setting is wrong; the message names the file and line or the variable."""


class PluginError(FlameError):
    """A plugin is missing, broken, incompatible, or clashes with another."""


class NegotiationError(FlameError):
    """What the application wants cannot be served.

    Attributes:
        problems: one entry for every refusal, none left out.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  {index}. {problem}" for index, problem in enumerate(self.problems, 1))
        super().__init__(f"cannot agree on {count} point{'s' if count > 1 else ''}:\n{lines}")


class Problem:
    """One refusal: who wants what from which line, what there is, what would work."""

    def __init__(
        self,
        *,
        family: str,
        wanted: Sequence[str],
        origin: str,
        offered: Sequence[str],
        working: Sequence[str] = (),
        distribution: str = "",
        reason: str = "",
    ) -> None:
        """Args:
        origin: the config line that asks. offered: what the refusing side has. working: names that would be agreed on.
        distribution: what to install to get what is wanted. reason: why it was refused, when it is on offer.
        """
        self.family = family
        self.wanted = tuple(wanted)
        self.origin = origin
        self.offered = tuple(offered)
        self.working = tuple(working)
        self.distribution = distribution
        self.reason = reason

    @property
    def fixes(self) -> tuple[str, ...]:
        """Each thing that would mend it, as a line to type."""
        fixes = []
        if self.distribution:
            fixes.append(f"pip install {self.distribution}")
        if self.working:
            names = ", ".join(f'"{name}"' for name in self.working)
            fixes.append(f"write  {self.family} = [{names}]")
        return tuple(fixes)

    def __str__(self) -> str:
        text = f"{self.origin} wants {self.family} {', '.join(self.wanted) or '(nothing)'}"
        text += f"; on offer: {', '.join(self.offered) or 'none'}"
        if self.reason:
            text += f" ({self.reason})"
        return text + "".join(f"\n     → {fix}" for fix in self.fixes)


class PackageError(FlameError):
    """The application's package cannot be published, fetched or unpacked."""


class PackageNotFoundError(PackageError, FileNotFoundError):
    """Nothing stands at the package's URL."""


class DigestMismatchError(PackageError):
    """The bytes fetched are not the bytes published; they were discarded."""


class StoreError(PackageError):
    """A store refused, timed out or broke off."""


class ArchiveError(PackageError):
    """The archive is damaged or not of the format it claims."""


class UnsafeArchiveError(ArchiveError):
    """The archive breaks a safety rule; nothing of it was kept.

    Attributes:
        rule: short stable name of the rule (``"absolute-path"`` …).
        member: the member's name as the archive spells it.
    """

    def __init__(self, rule: str, member: str, message: str) -> None:
        super().__init__(f"{message}: {member!r} (rule {rule})" if member else f"{message} (rule {rule})")
        self.rule = rule
        self.member = member


class ArchiveLimitError(ArchiveError):
    """The archive exceeds a budget.

    Attributes:
        budget: which one: ``"members"``, ``"expanded-bytes"``, ``"ratio"`` …
    """

    def __init__(self, budget: str, message: str) -> None:
        super().__init__(f"{message} (budget {budget})", hint="if you trust this package, raise the budget in the host's settings")
        self.budget = budget


class ProvisionError(FlameError):
    """The environment of an application cannot be made."""


class InterpreterNotFoundError(ProvisionError):
    """No interpreter of the wanted version is to be had."""


class InstallError(ProvisionError):
    """The installer failed.

    Attributes:
        log: the installer's whole output, kept on disk.
        tail: its last lines.
    """

    def __init__(self, message: str, *, log: Path | None = None, tail: str = "", hint: str = "") -> None:
        text = message
        if tail:
            text += "\n" + "\n".join(f"  | {line}" for line in tail.splitlines())
        if log is not None:
            text += f"\n  whole log: {log}"
        super().__init__(text, hint=hint)
        self.log = log
        self.tail = presentable(tail)


class SerializationError(FlameError):
    """A value cannot be written or read in the agreed format."""


class NotSerializableError(SerializationError):
    """A value cannot be serialized.

    Attributes:
        path: the part at fault, as an expression: ``"self.lock"``, ``"args[0]['x']"``.
    """

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class FormatNotAllowedError(SerializationError):
    """A payload names a format that the plan or the policy does not admit; it was not read."""


class CacheError(FlameError):
    """The cache cannot do what was asked."""


class ObjectNotFoundError(CacheError, KeyError):
    """No object stands under that key (any more)."""


class VersionConflictError(CacheError):
    """The object has another version than the update expected."""


class ApplicationError(FlameError):
    """An application cannot be registered, found or removed."""


class ApplicationExistsError(ApplicationError):
    """An application of that name is registered already."""


class ApplicationNotFoundError(ApplicationError):
    """No application of that name is registered."""


class SessionError(FlameError):
    """A session cannot be opened or used."""


class SessionNotFoundError(SessionError):
    """No session of that id is known."""


class ClosedError(SessionError):
    """Something was used after it was closed."""


class WorkerError(FlameError):
    """The machinery failed, not the user's code; stateless tasks are retried."""


class WorkerStartError(WorkerError):
    """A worker process did not get ready; the message carries what it printed."""


class WorkerCrashedError(WorkerError):
    """A worker process ended in the middle of a task.

    Attributes:
        exit_code: its exit status, or None when a signal ended it.
        signal: the signal's number, or None.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, signal: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.signal = signal


class StateLostError(WorkerError):
    """A stateful service lost its worker and with it its state."""


class TaskError(FlameError):
    """The user's code ended in a way that is neither a value nor an exception of its own."""


class TaskTimeoutError(TaskError, TimeoutError):
    """The task ran longer than allowed and was stopped."""


class TaskExitError(TaskError):
    """The task called ``sys.exit`` or raised SystemExit.

    Attributes:
        code: what it passed, as text.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RemoteError(TaskError):
    """An exception raised by the task whose own type cannot be serialized.

    Attributes:
        type_name: its qualified type, ``"package.module.Name"``.
        remote_traceback: the traceback as text.
    """

    def __init__(self, message: str, *, type_name: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback
