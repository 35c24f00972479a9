"""What of the machine each worker has been given, for services that say what they need."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flame_host.api import ConfigError, Resources, SessionSpec

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def this_machine(variables: Mapping[str, str] = os.environ) -> tuple[Resources, tuple[str, ...]]:
    """What there is to give: cores this process may use, its memory, and the GPUs that it sees, by the names CUDA gives them.

    GPUs are those of ``CUDA_VISIBLE_DEVICES`` where that is set, else those of the driver.
    """
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = tuple(name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1")
    else:
        try:
            gpus = tuple(str(number) for number in range(len(os.listdir("/proc/driver/nvidia/gpus"))))
        except OSError:
            gpus = ()
    return Resources(cpu=len(os.sched_getaffinity(0)), memory=_memory(), gpu=len(gpus)), gpus


def _memory() -> int:
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found)


@dataclass(eq=False)
class Share:
    """What one worker has.

    Attributes:
        gpus: names for ``CUDA_VISIBLE_DEVICES``.
    """

    wanted: Resources
    gpus: tuple[str, ...]


class Room(Protocol):
    """Who gives executors their share of what there is to run on; `Shares` does on this machine. Thread-safe, and nothing waits here."""

    def check(self, wanted: Resources) -> None:
        """Raises ConfigError for what can never be had."""
        ...

    def take(self, who: object, wanted: Resources, priority: int) -> Share | None: ...
    def leave(self, who: object) -> None: ...
    def give_back(self, share: Share) -> None: ...


@dataclass
class Shares:
    """The machine, and what has been given away of it. Thread-safe; nothing waits here.

    Who does not get a share asks again (a session does so in its ticks). Those that wait are served by priority, then by when they
    came, strictly: one that needs much is not passed over for ever by many that need little.
    """

    total: Resources
    gpus: tuple[str, ...] = ()
    _given: list[Share] = field(default_factory=list)
    _waiting: dict[object, int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def check(self, wanted: Resources) -> None:
        """Raises ConfigError when no worker could ever have that much."""
        lacking = [
            f"{name}={_shown(name, need)} (it has {_shown(name, has)})"
            for name in ("cpu", "memory", "gpu")
            if (need := getattr(wanted, name)) > (has := getattr(self.total, name))
        ]
        if lacking:
            raise ConfigError(
                f"no worker on this machine can have {', '.join(lacking)}",
                hint="ask for less with resreq=, or use an engine on a larger machine",
            )

    def take(self, who: object, wanted: Resources, priority: int) -> Share | None:
        """A share for a worker of ``who``, or None: then ``who`` waits, until it gets one or `leave`s."""
        with self._lock:
            ranks = {**self._waiting, who: priority}
            # Equal priorities keep the order in which they came: a dictionary does.
            first = max(ranks, key=lambda one: ranks[one])
            if first is who and self._fits(wanted):
                self._waiting.pop(who, None)
                taken = {name for share in self._given for name in share.gpus}
                share = Share(wanted, tuple(name for name in self.gpus if name not in taken)[: wanted.gpu])
                self._given.append(share)
                return share
            self._waiting.setdefault(who, priority)
            return None

    def leave(self, who: object) -> None:
        """It needs no more; the next one's turn comes."""
        if self._waiting:
            with self._lock:
                self._waiting.pop(who, None)

    def give_back(self, share: Share) -> None:
        with self._lock:
            self._given.remove(share)

    @property
    def waiting(self) -> bool:
        """Somebody waits, so what is idle should be given back now."""
        return bool(self._waiting)

    def _fits(self, wanted: Resources) -> bool:
        return all(
            sum(getattr(share.wanted, name) for share in self._given) + getattr(wanted, name) <= getattr(self.total, name) + 1e-9
            for name in ("cpu", "memory", "gpu")
        )


def check_resources(spec: SessionSpec, machine: Room) -> None:
    """Raises ConfigError for what can never be had, and for a priority among nobody."""
    if spec.resources is not None:
        machine.check(spec.resources)
    elif spec.priority:
        raise ConfigError(
            "priority= orders the services that wait for a part of the machine, and this one does not say what it needs",
            hint='say so with resreq="cpu=1"; single calls have a priority of their own: svc.options(priority=…)',
        )


def _shown(name: str, amount: float) -> str:
    return f"{amount / (1 << 30):.1f}G" if name == "memory" else f"{amount:g}"
