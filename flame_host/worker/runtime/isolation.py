"""What keeps one task from another: what every task finds as it was, and the kernel's limits of the process.

Runs in the application's interpreter: standard library only, Python 3.8 syntax.

State is compared, not trusted to have been changed through the front door. Comparing all of it costs some 15 µs, so it is done when a
task has done something that is noticed (an audit event, one of the functions watched here), when the worker has nothing else to do,
and once a millisecond when it always has. What is put back, and what is not, stands in docs/explanation/trust.md.
"""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]  # as `signal` has it, without the enumerations
import fcntl
import functools
import gc
import importlib.util
import os
import signal
import socket
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import ModuleType
    from typing import Any

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_DIRTYING = frozenset({"os.chdir", "os.fchdir", "os.putenv", "os.unsetenv", "resource.setrlimit", "resource.prlimit"})
_WATCHED = {
    "_signal": ("signal", "alarm", "setitimer", "pthread_sigmask", "siginterrupt", "set_wakeup_fd"),
    "os": ("dup2", "umask", "nice", "sched_setaffinity"),
    "time": ("tzset",),
    "_locale": ("setlocale",),
}
"""Functions that leave no audit event. Watched before the application's first module is imported, which may keep them under any name."""
_ALSO_AT = {"_signal": "signal", "os": "posix"}
_STANDARD = (0, 1, 2)
# As they are before they are watched: what we do ourselves is no reason to look again.
_umask, _dup2, _setaffinity, _tzset = os.umask, os.dup2, os.sched_setaffinity, time.tzset
_sigmask, _set_wakeup_fd, _setlocale = _signal.pthread_sigmask, _signal.set_wakeup_fd, _locale.setlocale
_SPARE = 200  # our copies of the standard descriptors stand above this, out of the way of tasks that close a few
_INTERVAL = 0.001


class Home:
    """What every task finds as it was when the execution object had been loaded."""

    def __init__(self) -> None:
        """Begin to notice; see `remember`."""
        self.dirty = False
        self.variables: set[bytes] = set()
        self.next_look = 0.0
        for module, names in _WATCHED.items():
            self._watch(sys.modules[module], names, sys.modules.get(_ALSO_AT.get(module, "")))

        def notice(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _DIRTYING:
                self.dirty = True
                if event in ("os.putenv", "os.unsetenv"):
                    self.variables.add(os.fsencode(arguments[0]))

        sys.addaudithook(notice)

    def _watch(self, module: ModuleType, names: Sequence[str], also: ModuleType | None) -> None:
        for name in names:
            function = getattr(module, name, None)
            if function is None:
                continue
            watched = self._noticed(function)
            setattr(module, name, watched)
            if also is not None and getattr(also, name, None) is function:
                setattr(also, name, watched)

    def _noticed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            self.dirty = True
            return function(*args, **kwargs)

        return noticed

    def remember(self) -> None:
        """From here on, this is home."""
        self.cwd = os.getcwd()
        self.environment = dict(os.environ)
        self.encoded = dict(_encoded())
        self.handlers: dict[int, Any] = {}
        for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}):
            handler = _signal.getsignal(number)
            if handler is not None:  # None: not set by Python
                self.handlers[number] = handler
        self.numbers, self.told = tuple(self.handlers), list(self.handlers.values())
        self.mask = _sigmask(signal.SIG_BLOCK, ())
        self.timers = [timer for timer in _TIMERS if signal.getitimer(timer)[0] == 0]
        self.umask = _umask(0o077)
        _umask(self.umask)
        self.streams = _streams()
        self.descriptors = [_identity(number) for number in _STANDARD]
        self.spare = [_copy(number) for number in _STANDARD]
        self.settings = _settings()
        self.affinity = os.sched_getaffinity(0)
        self.limits = _limits()
        self.dirty = False
        self.variables.clear()

    def look(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Compare and put back, if it is time to."""
        now = clock()
        if self.dirty or now >= self.next_look:
            self.next_look = now + _INTERVAL
            self.restore()

    def restore(self) -> None:
        """Put back what is not as it was."""
        self._signals()
        if _streams() != self.streams:
            sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__ = self.streams  # type: ignore[misc]
        for number, identity, spare in zip(_STANDARD, self.descriptors, self.spare):
            if identity is not None and _identity(number) != identity and _identity(spare) == identity:
                _dup2(spare, number)
        _umask(self.umask)
        self._directory()
        self._variables()
        if _settings() != self.settings:
            _set(self.settings)
        if os.sched_getaffinity(0) != self.affinity:
            _setaffinity(0, self.affinity)
        if self.dirty:
            self._limits_again()
        self.dirty = False

    def _signals(self) -> None:
        for timer in self.timers:
            if _signal.getitimer(timer)[0]:
                signal.setitimer(timer, 0)
        if list(map(_signal.getsignal, self.numbers)) != self.told:
            for number, handler in self.handlers.items():
                if _signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
        if _sigmask(signal.SIG_BLOCK, ()) != self.mask:
            _sigmask(signal.SIG_SETMASK, self.mask)
        _set_wakeup_fd(-1)

    def _directory(self) -> None:
        try:
            here = os.getcwd()
        except OSError:  # the task has removed it
            here = ""
        if here != self.cwd:
            try:
                os.chdir(self.cwd)
            except OSError:
                os.makedirs(self.cwd, 0o700, exist_ok=True)
                os.chdir(self.cwd)

    def _variables(self) -> None:
        if _encoded() != self.encoded:
            os.environ.clear()
            os.environ.update(self.environment)
        for name in self.variables:  # os.putenv goes past os.environ
            if name in self.encoded:
                os.putenv(name, self.encoded[name])
            else:
                os.unsetenv(name)
        if self.variables:
            self.variables.clear()
            _tzset()

    def _limits_again(self) -> None:
        import resource

        for which, (soft, _) in self.limits.items():
            hard = resource.getrlimit(which)[1]
            if hard != resource.RLIM_INFINITY and (soft > hard or soft == resource.RLIM_INFINITY):
                soft = hard  # who lowers a hard limit has lowered it for good
            if resource.getrlimit(which)[0] != soft:
                resource.setrlimit(which, (soft, hard))


def _encoded() -> dict[bytes, bytes]:
    """The variables as bytes; compared so, it takes a tenth of the time."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]


def _streams() -> list[Any]:
    return [sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__]


def _identity(number: int) -> tuple[int, int, int] | None:
    """What a descriptor stands for; None when it is closed."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_rdev


def _copy(number: int) -> int:
    """Out of the way; where the limit of open files leaves no such place, wherever there is one; -1 for what is closed."""
    for lowest in (_SPARE, 0):
        try:
            return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError:
            continue
    return -1


def _settings() -> list[Any]:
    """Of the interpreter: what is quick to ask and has one right value for all tasks."""
    return [
        _setlocale(_locale.LC_ALL, None),
        socket.getdefaulttimeout(),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        gc.isenabled(),
        gc.get_threshold(),
        sys.gettrace(),
        sys.getprofile(),
        sys.excepthook,
        sys.unraisablehook,
        sys.displayhook,
        threading.excepthook,
        list(sys.argv),
        time.tzname,
    ]


def _set(settings: list[Any]) -> None:
    locale, timeout, depth, interval, collects, threshold, trace, profile, excepthook, unraisable, display, threads, argv, _ = settings
    _setlocale(_locale.LC_ALL, locale)
    socket.setdefaulttimeout(timeout)
    sys.setrecursionlimit(depth)
    sys.setswitchinterval(interval)
    (gc.enable if collects else gc.disable)()
    gc.set_threshold(*threshold)
    sys.settrace(trace)
    sys.setprofile(profile)
    sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook = excepthook, unraisable, display, threads
    sys.argv[:] = argv
    _tzset()


def _limits() -> dict[int, tuple[int, int]]:
    import resource

    numbers = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {number: resource.getrlimit(number) for number in numbers}


def limit(limits: Mapping[str, int]) -> None:
    """Kernel limits of this process, by the names of ``resource`` without RLIMIT_."""
    if not limits:
        return
    import resource

    for name, value in limits.items():
        which = getattr(resource, "RLIMIT_" + name.upper())
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # Over the soft limit of CPU time comes SIGXCPU, which says what happened; over the hard one a SIGKILL.
        resource.setrlimit(which, (value, value + 1 if name == "cpu" and value != hard else value))


# ---------------------------------------------------------------------------------------------- code by import path


def inside(paths: Collection[str]) -> Callable[[str], bool]:
    """Whether a module belongs to the package, asked before it is imported: of a payload that names code, nothing else may be run.

    A package that was built and installed is known by what its installer noted; ``paths`` is empty then.
    """
    roots = tuple(os.path.realpath(path) + os.sep for path in paths)

    def allow(module: str) -> bool:
        top = module.partition(".")[0]
        if roots and _stands_below(top, roots):
            return True
        if not roots and top in _installed_from_here():
            return True
        raise ValueError(
            "policy says pickle = deny, so code is named by its import path and has to stand inside the package; %.100r does not; "
            "nothing was imported" % module
        )

    return allow


def _stands_below(top: str, roots: tuple[str, ...]) -> bool:
    """Where an import would find it, all of its places; what is loaded already is found where it was loaded from."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else [])]
    return bool(places) and all(os.path.realpath(place).startswith(roots) for place in places)


def _installed_from_here() -> set[str]:
    """Top-level modules of what was installed from a file or directory of this machine, as the package itself is."""
    from importlib import metadata

    found = set()
    for distribution in metadata.distributions():
        if '"file:' in (distribution.read_text("direct_url.json") or ""):
            for file in distribution.files or ():
                first = file.parts[0]
                if first.endswith(".py"):
                    found.add(first[:-3])
                elif len(file.parts) > 1 and "." not in first:
                    found.add(first)
                elif first.endswith(".so"):
                    found.add(first.partition(".")[0])
    return found
