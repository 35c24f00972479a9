"""How a server is to run, and whether it may."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flame_host.api import ConfigError

CLIENT = "flamepy>=0.6,<0.7"
"""What programs of stock clients import in a worker."""


@dataclass(frozen=True)
class Limits:
    """What one server takes on; more is refused, and the answer says which limit it was.

    Attributes:
        message: bytes of a message, both ways; clients of a cluster take no more than the default.
        sessions: open ones. kept_sessions: closed ones that can still be looked at; older ones go, with their objects.
        tasks: that have not ended. input_bytes: of those. executors: of one session, where it names no number of its own.
        cache_memory, cache_disk: bytes of objects held in memory, and kept in all.
    """

    message: int = 4 << 20
    sessions: int = 10_000
    kept_sessions: int = 1_000
    tasks: int = 200_000
    input_bytes: int = 2 << 30
    executors: int = 128
    cache_memory: int = 256 << 20
    cache_disk: int = 64 << 30


@dataclass(frozen=True)
class ServerSettings:
    """One server.

    Attributes:
        listen: of the frontend: ``host:port``, or ``unix:PATH``. cache: of the object cache, ``host:port``. health: of ``/healthz`` and
            ``/status``, ``host:port`` on this machine only. Port 0 lets the system choose; an empty ``health`` means none.
        state: directory for everything that is to be kept; None keeps it as long as the server runs.
        certificate, key, authority: files in PEM, for TLS; the last is what clients check it by. token: what callers must present.
        client: requirement of the package that programs of stock clients import; empty for none.
        drain_seconds: that running tasks have to end when the server is told to.
        node: name of this machine in lists.
    """

    listen: str = "127.0.0.1:8080"
    cache: str = "127.0.0.1:9090"
    health: str = "127.0.0.1:8079"
    state: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    token: str = field(default="", repr=False)
    client: str = CLIENT
    drain_seconds: float = 30.0
    node: str = field(default_factory=socket.gethostname)
    limits: Limits = field(default_factory=Limits)

    @property
    def tls(self) -> bool:
        return self.certificate is not None

    def check(self) -> None:
        """Whether a server may run so: nobody but this machine's users gets in without TLS and a token.

        Raises:
            ConfigError: it may not; says what is missing.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs both a certificate and its key", hint="give --tls-cert and --tls-key")
        for name, address in (("--listen", self.listen), ("--cache", self.cache)):
            if not is_local(address) and not (self.tls and self.token):
                raise ConfigError(
                    f"{name} {address} can be reached from other machines, where whoever reaches it runs code here",
                    hint="give --tls-cert, --tls-key and --token-file as well, or listen on 127.0.0.1 and use an SSH tunnel",
                )
        if self.health and not is_local(self.health):
            raise ConfigError(f"--health {self.health} can be reached from other machines", hint="it has no token: use 127.0.0.1")
        if self.health.startswith("unix:") or self.cache.startswith("unix:"):
            raise ConfigError("--cache and --health are host:port; only --listen may be a Unix socket")


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    if address.startswith("unix:"):
        return True
    host, _ = host_and_port(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(address: str) -> tuple[str, int]:
    """Raises `ConfigError` when it is no ``host:port``."""
    try:
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port is not None and not parts.path:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ConfigError(f"{address!r:.200} is no address", hint="write host:port, such as 127.0.0.1:8080; port 0 takes a free one")


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
