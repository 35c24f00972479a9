"""Requests to the HTTP routes of a program, passed on to the workers that answer them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from flamepy.build.jobs import new_id

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture
    from flamepy.build.deployment import Deployment

__all__ = ["HOP_BY_HOP", "Asked", "asked_of"]

HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers that are of one connection, and not passed on."""
_OF_THE_WORKER = ("/ping", "/health", "/openapi.json")
"""What an HTTP endpoint answers besides its routes."""


@dataclass(frozen=True)
class Asked:
    """A request to the routes of a resource.

    Attributes:
        path: without the resource's name.
    """

    deployment: Deployment
    resource: str
    path: str
    query: str

    def submit(self, method: str, headers: Sequence[tuple[str, str]], body: bytes) -> ObjectFuture[Any]:
        """Pass it on; the future is of status, headers and body."""
        request = {
            "method": method,
            "path": self.path,
            "query": self.query,
            "headers": [(name, value) for name, value in headers if name.lower() not in HOP_BY_HOP],
            "body": base64.b64encode(body).decode(),
        }
        return self.deployment.submit(self.resource, {"id": new_id(), "request": request})


def asked_of(deployment: Deployment, method: str, target: str) -> Asked | None:
    """What a request is for, with the resource's name in front of the path or without; None if it is for no route.

    Args:
        target: path and query as they came.
    """
    parts = urlsplit(target)
    path = unquote(parts.path)
    for resource in deployment.manifest.get("routes") or {}:
        inner = unquote(parts.path.removeprefix(f"/{quote(resource, safe='')}"))
        if inner == path:
            continue
        if (method == "GET" and inner in _OF_THE_WORKER) or deployment.answers(resource, method, inner):
            return Asked(deployment, resource, inner, parts.query)
    home = deployment.route_of(method, path)
    return None if home is None else Asked(deployment, home, path, parts.query)
