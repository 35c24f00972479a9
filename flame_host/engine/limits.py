"""What a worker's process may use, in the kernel's words."""

from __future__ import annotations

from collections.abc import Mapping

from flame_host.api import ConfigError

_NAMES = {"memory": "as", "cpu": "cpu", "open_files": "nofile", "file_size": "fsize", "processes": "nproc"}


def rlimits(limits: Mapping[str, int]) -> dict[str, int]:
    """Names and values for ``setrlimit``.

    Raises:
        ConfigError: a limit that is not known, or no positive number.
    """
    for name, value in limits.items():
        if name not in _NAMES:
            raise ConfigError(f"unknown limit {name!r}; known: {', '.join(_NAMES)}")
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ConfigError(f"limit {name} is {value!r}; it must be a whole number above 0")
    return {_NAMES[name]: value for name, value in limits.items()}
