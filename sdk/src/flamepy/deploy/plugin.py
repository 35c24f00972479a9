"""Registration; what works is imported when it is asked to."""

from __future__ import annotations

from collections.abc import Mapping

from flame_host.api import Release, hookimpl


class DirectoryDeployer:
    """A directory that holds the archive, and a process of this machine that serves it.

    Options: ``path``, where the directories are; ``port``, by default a free one, which the next releases keep.
    """

    name = "directory"

    def deploy(self, release: Release) -> Mapping[str, str]:
        from flamepy.deploy.directory import Place

        return Place(release.application, release.options).serve(release)

    def endpoints(self, application: str, options: Mapping[str, str]) -> Mapping[str, str]:
        from flamepy.deploy.directory import Place

        return Place(application, options).endpoints()

    def undeploy(self, application: str, options: Mapping[str, str]) -> bool:
        from flamepy.deploy.directory import Place

        return Place(application, options).remove()


@hookimpl
def flame_deployers() -> list[object]:
    return [DirectoryDeployer()]
