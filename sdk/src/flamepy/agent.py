"""An agent: a stateful service that is asked again and again."""

from __future__ import annotations

from typing import Any

from flamepy.core import Session, create_session

__all__ = ["Agent"]


class Agent:
    """One session of an application, asked with plain values.

    Args:
        name: of the application. ctx: the execution object, or a `flamepy.RunnerContext`.
    """

    def __init__(self, name: str, ctx: Any = None, **options: Any) -> None:
        self._session: Session = create_session(name, ctx, **options)

    @property
    def id(self) -> str:
        return self._session.id

    def invoke(self, request: Any = None) -> Any:
        """Ask, and wait for the answer."""
        return self._session.run(request).get()

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
