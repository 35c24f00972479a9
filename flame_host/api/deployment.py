"""Contract of those who serve what ``flame build`` made: an archive in, endpoints out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Deployer", "Release"]


@dataclass(frozen=True)
class Release:
    """What is to be served.

    Attributes:
        application: a name of letters, digits, ``.``, ``_`` and ``-``; the next release of it takes this one's place.
        archive: the file as it was built, which may be gone afterwards. digest: its SHA-256.
        manifest: of the build. options: ``--option key=value``; one that means nothing to the deployer is an error.
    """

    application: str
    archive: Path
    digest: str
    manifest: Mapping[str, Any]
    options: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Deployer(Protocol):
    """Brings what ``flame build`` made to where its resources are served."""

    @property
    def name(self) -> str: ...

    def deploy(self, release: Release) -> Mapping[str, str]:
        """Serve it in place of what the application served before; returns resource → URL.

        Returns when every resource can be given jobs. When it fails, what was served before still is.

        Raises:
            FlameError: with what to do about it.
        """
        ...

    def endpoints(self, application: str, options: Mapping[str, str]) -> Mapping[str, str]:
        """What is served of it now, resource → URL; empty if nothing is."""
        ...

    def undeploy(self, application: str, options: Mapping[str, str]) -> bool:
        """End and remove all that `deploy` made of it; False if there was nothing."""
        ...
