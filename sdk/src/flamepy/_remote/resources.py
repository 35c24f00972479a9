"""What a ``@remote`` function needs: the machine it runs on, how many of them, and what is installed there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flame_host.api import ConfigError

__all__ = ["CpuResource", "GpuResource", "Resource"]

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Resource:
    """One kind of worker; functions with the same resource live together, at one endpoint.

    Attributes:
        name: the endpoint's name, by default that of the variable; two resources of one name are the same resource.
        cpu: cores. gpu: devices. memory: bytes, or text like ``"4GiB"``; 0 for as much as there is.
        workers: fewest and most workers kept for it; a single number is the most.
        env: environment variables of its workers. dependencies: requirements (PEP 508) of the functions.
        system_dependencies: packages of the operating system, for the image the workers run in; nothing here installs them.
        options: what only some platform understands; kept, and passed on in the manifest.
        max_concurrency: jobs one worker does at a time; more than one is for ``async`` functions.
    """

    named_after: ClassVar[str] = "variable"
    """What a missing name is taken from: the ``variable`` that holds the resource, or the ``function`` it is put on."""

    name: str = ""
    cpu: int = 1
    gpu: int = 0
    memory: int | str = 0
    workers: tuple[int, int] | int = (0, 3)
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    dependencies: Iterable[str] = ()
    system_dependencies: Iterable[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_concurrency: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or (self.name and not self.name.strip()):
            raise ConfigError(f"a resource needs a name, not {self.name!r}", hint='write  Resource(name="gpu-worker", …)')
        for what in ("cpu", "gpu"):
            amount = getattr(self, what)
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
                raise ConfigError(f"resource {self.name!r}: {what} is {amount!r}; it must be a number, 0 or more")
        if isinstance(self.max_concurrency, bool) or not isinstance(self.max_concurrency, int) or self.max_concurrency < 1:
            raise ConfigError(f"resource {self.name!r}: max_concurrency is {self.max_concurrency!r}; it must be a number, 1 or more")
        object.__setattr__(self, "memory", memory_bytes(self.memory, f"resource {self.name!r}"))
        object.__setattr__(self, "workers", _worker_range(self.workers, self.name))
        for what in ("dependencies", "system_dependencies"):
            object.__setattr__(self, what, _texts(getattr(self, what), f"resource {self.name!r}: {what}"))


@dataclass(frozen=True)
class GpuResource(Resource):
    """A worker with a GPU."""

    gpu: int = 1


@dataclass(frozen=True)
class CpuResource(Resource):
    """A worker without a GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpu:
            raise ConfigError(f"resource {self.name!r} is a CpuResource with gpu={self.gpu}", hint="use GpuResource")


def memory_bytes(memory: int | str, owner: str) -> int:
    if isinstance(memory, str):
        text = memory.strip()
        number = text.rstrip("KMGTiB ")
        unit = text[len(number) :].strip()
        if number.isdigit() and unit in _UNITS:
            return int(number) * _UNITS[unit]
    elif not isinstance(memory, bool) and isinstance(memory, int) and memory >= 0:
        return memory
    raise ConfigError(f"{owner}: memory is {memory!r}", hint='write a number of bytes, or "4GiB"')


def _worker_range(workers: tuple[int, int] | int, name: str) -> tuple[int, int]:
    pair = (0, workers) if isinstance(workers, int) else tuple(workers)
    if len(pair) != 2 or not all(isinstance(number, int) for number in pair) or not 0 <= pair[0] <= pair[1] or pair[1] < 1:
        raise ConfigError(f"resource {name!r}: workers is {workers!r}", hint="write  workers=(fewest, most)  with at least 1 as the most")
    return pair[0], pair[1]


def _texts(values: Iterable[str], what: str) -> tuple[str, ...]:
    texts = (values,) if isinstance(values, str) else tuple(values or ())
    if not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{what} must be a list of text, not {values!r}")
    return texts
