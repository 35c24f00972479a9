"""Endpoints of caches, ``grpc://host:port`` and ``grpcs://host:port?ca_file=/path``, and connections to them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flame_host.api import CacheError, ConfigError

SCHEMES = ("grpc", "grpcs", "grpc+tls")
DEFAULT_PORT = 9090
CA_VARIABLE = "FLAME_CA_FILE"


@dataclass(frozen=True)
class Location:
    """A cache's address.

    Attributes:
        endpoint: without path and query, as references name it. path: what follows, without the slash.
        ca_file: certificates to trust, empty for the system's own.
    """

    endpoint: str
    path: str
    ca_file: str

    @property
    def encrypted(self) -> bool:
        return not self.endpoint.startswith("grpc:")


def location_of(url: str) -> Location:
    """Raises `CacheError` for what is no address of a cache."""
    parts = urlsplit(url)
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if parts.scheme not in SCHEMES or not parts.hostname or not port:
        raise CacheError(f"{url!r:.200} is no endpoint of a Flame cache", hint="write grpc://host:9090, or grpcs:// where it has TLS")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    endpoint = f"{parts.scheme}://{host}:{port}"
    given = parse_qs(parts.query).get("ca_file", [""])[0]
    if given:
        _trusted[endpoint] = given
    return Location(endpoint, parts.path.strip("/"), _trusted.get(endpoint) or os.environ.get(CA_VARIABLE, ""))


_trusted: dict[str, str] = {}
"""Endpoint → certificates once given for it: URLs of packages travel without."""


def connect(location: Location) -> Any:
    """A Flight client; it connects when it is first used."""
    from pyarrow import flight

    options: dict[str, Any] = {}
    if location.encrypted and location.ca_file:
        try:
            options["tls_root_certs"] = Path(location.ca_file).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the certificates in {location.ca_file} cannot be read: {error}", hint=f"check ca_file or {CA_VARIABLE}"
            ) from error
    scheme = "grpc+tls" if location.encrypted else "grpc+tcp"
    return flight.connect(f"{scheme}://{location.endpoint.partition('://')[2]}", **options)
