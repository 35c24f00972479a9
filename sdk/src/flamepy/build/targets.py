"""What an archive is for: platform and Python of the workers, and what their image has already."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from packaging import tags

from flamepy.build.errors import BuildError

__all__ = ["TARGETS", "Target", "target_of"]

_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_MANYLINUX = re.compile(r"(x86_64|aarch64)-manylinux_2_(\d+)")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Target:
    """Attributes:
    python: ``"3.11"``, empty for this one. platform: as the installer names it, ``"x86_64-manylinux_2_28"``; empty for this one.
    name: of a kind of workers that is known here. image: distributions that its GPU image has. modules: what can be imported there.
    size_limit: most bytes of an archive.
    """

    python: str = ""
    platform: str = ""
    name: str = ""
    image: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    size_limit: int = 500 * MEBIBYTE
    pythons: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.python and not re.fullmatch(r"3\.\d+(\.\d+)?", self.python):
            raise BuildError(f"python {self.python!r} is no version", hint="write  --python 3.11")
        if self.pythons and self.python and ".".join(self.python.split(".")[:2]) not in self.pythons:
            raise BuildError(f"{self.name} has no Python {self.python}", hint=f"choose one of: {', '.join(self.pythons)}")

    @property
    def is_this(self) -> bool:
        """Whether what is installed for it can be imported here."""
        if self.python not in ("", _HERE):
            return False
        return not self.platform or any(tag.platform in _platforms(self.platform) for tag in tags.sys_tags())

    def tags(self) -> Iterator[tags.Tag]:
        """Of the wheels it takes, the best first."""
        if not self.platform:
            yield from tags.sys_tags()
            return
        version = [int(part) for part in (self.python or _HERE).split(".")[:2]]
        platforms = _platforms(self.platform)
        yield from tags.cpython_tags(version, platforms=platforms)
        yield from tags.compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)


def _platforms(platform: str) -> list[str]:
    """Platform tags of wheels for it, the newest first."""
    found = _MANYLINUX.fullmatch(platform)
    if not found:
        return [platform.replace("-", "_")]
    listed = []
    for minor in range(int(found[2]), 4, -1):
        listed.append(f"manylinux_2_{minor}_{found[1]}")
        listed += [f"{_LEGACY[minor]}_{found[1]}"] if minor in _LEGACY else []
    return [*listed, f"linux_{found[1]}"]


_RUNPOD = Target(
    platform="x86_64-manylinux_2_28",
    name="runpod",
    image=frozenset({"torch", "torchvision", "torchaudio", "triton"}),
    modules=frozenset(
        {
            "torch",
            "torchvision",
            "torchaudio",
            "triton",
            "PIL",
            "numpy",
            "filelock",
            "fsspec",
            "jinja2",
            "mpmath",
            "networkx",
            "sympy",
            "typing_extensions",
        }
    ),
    size_limit=1500 * MEBIBYTE,
    pythons=("3.10", "3.11", "3.12", "3.13"),
)
TARGETS = {"runpod": _RUNPOD, "here": Target()}
"""By name: workers of RunPod, and this machine."""


def target_of(name: str, python: str, platform: str, *, flash: bool) -> Target:
    """The target that is asked for.

    Args:
        name: empty for ``runpod`` if the program is written for its SDK, else ``here``.
        python, platform: over what the target has itself.
        flash: whether the program is written for RunPod Flash.
    """
    if name and name not in TARGETS:
        raise BuildError(f"target {name!r} is not known", hint=f"choose one of: {', '.join(sorted(TARGETS))}; or name a --platform")
    chosen = TARGETS[name or ("runpod" if flash and not platform else "here")]
    if not python and chosen.pythons:
        python = _HERE if _HERE in chosen.pythons else "3.12"
    return replace(chosen, python=python or chosen.python, platform=platform or chosen.platform)
