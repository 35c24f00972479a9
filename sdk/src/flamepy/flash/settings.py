"""What programs tell a platform about volumes and images. Nothing here reads it; it is kept, and travels in the manifest."""

from __future__ import annotations

from typing import Any

from flame_host.api import ConfigError

__all__ = ["FlashApp", "NetworkVolume", "PodTemplate", "ResourceManager", "load_dotenv"]


class _Settings:
    """Keywords as they were given, and as attributes."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None  # what was not said is the platform's choice

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Plain data."""
        return dict(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), repr(sorted(self.__dict__.items(), key=str))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.__dict__.items())})"


class NetworkVolume(_Settings):
    """A disk that workers share: ``NetworkVolume(name="models", size=100)``."""


class PodTemplate(_Settings):
    """The image workers are made of, and its settings."""


class _OfThePlatform:
    """A part of the platform's own deployment, which a worker or a build has no use for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigError(
            f"{type(self).__name__} drives the account of another SDK, and is not part of this one",
            hint="build with  flame build, and deploy what it makes with  flame deploy",
        )


class FlashApp(_OfThePlatform):
    """Not available: see `flame deploy`."""


class ResourceManager(_OfThePlatform):
    """Not available: see `flame deploy`."""


def load_dotenv(*args: Any, **kwargs: Any) -> bool:
    """Read a ``.env`` file if the package ``dotenv`` is there; an archive never holds one."""
    try:
        from dotenv import load_dotenv as load
    except ImportError:
        return False
    return bool(load(*args, **kwargs))
