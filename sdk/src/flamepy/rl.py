"""The names the reinforcement-learning examples import."""

from __future__ import annotations

from flamepy.core import RunnerContext, RunnerRequest, RunnerServiceKind, create_session, get_object, put_object
from flamepy.runner import FlameAsyncRunner, FlameRunner, ObjectFuture, ObjectRef, Runner, RunnerService

__all__ = [
    "FlameAsyncRunner", "FlameRunner", "ObjectFuture", "ObjectRef", "Runner", "RunnerContext", "RunnerRequest", "RunnerService",
    "RunnerServiceKind", "create_session", "get_object", "put_object",
]  # fmt: skip
