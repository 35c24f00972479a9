"""Which cluster an endpoint means, and what else is needed to use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

from flame_host.api import ConfigError

TEMPLATE_VARIABLE = "FLAME_RUNNER_TEMPLATE"
"""Tells programs within a task which template the program outside was using."""
_OPTIONS = ("ca_file", "cache", "template")
_CACHE_PORT = 9090


@dataclass(frozen=True)
class Cluster:
    """Attributes:
    endpoint: without options. target: ``host:port``. ca_file: certificates to trust, empty for the system's own.
    cache: endpoint of the cluster's object cache. template: application that Runners are made after; empty leaves the choice to us.
    """

    endpoint: str
    target: str
    encrypted: bool
    ca_file: str
    cache: str
    template: str


def cluster_of(endpoint: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """Read ``http(s)://host:port?cache=…&template=…&ca_file=…``; what is left out comes from the environment, then by default.

    Raises:
        ConfigError: it is no such endpoint.
    """
    parts = urlsplit(endpoint)
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = [name for name in options if name not in _OPTIONS]
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/") or unknown:
        reason = f" (unknown option {unknown[0]!r})" if unknown else ""
        raise ConfigError(
            f"{endpoint!r:.200} is no endpoint of a Flame cluster{reason}", hint="write http://host:8080, or https:// with TLS"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname

    def option(name: str, variable: str) -> str:
        return options.get(name, [""])[0] or environment.get(variable, "")

    ca_file = option("ca_file", "FLAME_CA_FILE")
    cache = option("cache", "FLAME_CACHE_ENDPOINT") or f"{'grpcs' if parts.scheme == 'https' else 'grpc'}://{host}:{_CACHE_PORT}"
    if ca_file and not cache.startswith("grpc:") and "?" not in cache:
        cache += f"?ca_file={quote(ca_file)}"
    return Cluster(
        endpoint=f"{parts.scheme}://{host}:{port}",
        target=f"{host}:{port}",
        encrypted=parts.scheme == "https",
        ca_file=ca_file,
        cache=cache,
        template=option("template", TEMPLATE_VARIABLE),
    )
