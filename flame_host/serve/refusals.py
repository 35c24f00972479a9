"""Why a request is refused, in the words and statuses of the wire."""

from __future__ import annotations

from flame_host.api import FlameError


class Refusal(FlameError):
    """A request that is not done.

    Attributes:
        status: name of the gRPC status.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def not_found(text: str) -> Refusal:
    return Refusal("NOT_FOUND", text)


def exists(text: str) -> Refusal:
    return Refusal("ALREADY_EXISTS", text)


def invalid(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text)


def internal(text: str) -> Refusal:
    return Refusal("INTERNAL", text)


def full(text: str) -> Refusal:
    return Refusal("RESOURCE_EXHAUSTED", text)


def unavailable(text: str) -> Refusal:
    return Refusal("UNAVAILABLE", text)
