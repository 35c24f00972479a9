"""What one side can do, and what an engine is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Capabilities", "Capability"]


@dataclass(frozen=True)
class Capability:
    """One thing on offer.

    Attributes:
        name: the key users type. version: major version of the format, where it has one.
        traits: ``"executes-code"``, ``"same-python"``, ``"cross-language"``.
        distribution: the distribution that brings it, for messages.
    """

    name: str
    version: int = 1
    traits: frozenset[str] = frozenset()
    distribution: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What one side can do; of an engine's connection also what the engine is like, for a client to decide by in place of a name.

    Attributes:
        families: what is on offer (``"archivers"`` …), best first.
        python: ``major.minor``. platform: as `sysconfig.get_platform` says it.
        runs_in_process: calls run in the client's own process, and nothing is installed for them.
        shares_memory: what is put into ``Connection.objects`` reaches workers without being sent.
        sees_client_files: packages that stand on the client's machine reach its hosts: they read them under the same paths, or the engine
            carries them there.
        provisions_here: environments of its workers are made by the host that connected it, see `HostServices.provision`.
        outlives_client: its applications and sessions are there after the client has gone, for other programs to use.
        storage: URL below which packages are put when nobody has said where; empty when there is no such place.
    """

    families: Mapping[str, Sequence[Capability]]
    python: str = ""
    platform: str = ""
    runs_in_process: bool = False
    shares_memory: bool = False
    sees_client_files: bool = False
    provisions_here: bool = False
    outlives_client: bool = False
    storage: str = ""

    def of(self, family: str) -> Sequence[Capability]:
        """What a family has on offer; nothing, of one that is not known."""
        return self.families.get(family, ())
