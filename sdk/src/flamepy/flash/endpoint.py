"""``@Endpoint(…)`` and ``@remote(…)`` as RunPod Flash has them; they mean what ours mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flame_host.api import ConfigError
from flamepy._remote.decorator import decorate
from flamepy._remote.resources import Resource
from flamepy.flash.jobs import EndpointJob, JobClient
from flamepy.flash.types import EndpointResource

__all__ = ["HTTP_METHODS", "RESERVED_PATHS", "Endpoint", "remote"]

HTTP_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
RESERVED_PATHS = ("/ping", "/execute")
"""``/ping`` is how a load balancer asks whether a worker is well."""


def remote(
    resource_config: Resource | Endpoint | None = None,
    dependencies: Iterable[str] | None = None,
    system_dependencies: Iterable[str] | None = None,
    accelerate_downloads: bool = True,
    local: bool = False,
    method: str | None = None,
    path: str | None = None,
    **_: Any,
) -> Any:
    """Say which resource a function or class runs on; calls of it are awaited, whatever it is.

    Args:
        method, path: the HTTP route it answers, on a load-balanced resource.
    """
    if resource_config is not None and not isinstance(resource_config, (Resource, Endpoint)):
        return decorate(resource_config, None, (), awaited=True)
    resource = resource_config.resource if isinstance(resource_config, Endpoint) else resource_config
    route = checked_route(method, path) if method or path else None

    def put(target: Any) -> Any:
        return target if local else decorate(target, resource, tuple(dependencies or ()), awaited=True, route=route)

    return put


def checked_route(method: str | None, path: str | None) -> tuple[str, str]:
    """Method and path of a route.

    Raises:
        ConfigError: with what is wrong.
    """
    if not method or not path:
        raise ConfigError("a route needs both method= and path=", hint='write  method="POST", path="/predict"')
    method = str(method).upper()
    if method not in HTTP_METHODS:
        raise ConfigError(f"{method!r} is no HTTP method of a route", hint=f"one of {', '.join(HTTP_METHODS)}")
    if not path.startswith("/"):
        raise ConfigError(f"the path of a route starts with a slash, {path!r} does not")
    if path in RESERVED_PATHS:
        raise ConfigError(f"the path {path} is reserved", hint="/ping tells whether the worker is well")
    return method, path


class Endpoint:
    """One endpoint: a decorator for functions and classes, for HTTP routes, or with ``id=`` or ``image=`` a client of one that runs.

    Args:
        name: by default that of the decorated function.
        gpu: one or several of `GpuGroup` and `GpuType`. cpu: one or several of `CpuInstanceType`, or text like ``"cpu3c-2-4"``.
        workers: ``(fewest, most)``, or the most.
        max_concurrency: jobs one worker does at a time, for ``async`` functions.
        options: what else the platform understands, such as ``volume`` and ``idle_timeout``; kept in the manifest.
    """

    def __init__(self, name: str | None = None, *, id: str | None = None, image: str | None = None, **options: Any) -> None:
        if id is not None and image is not None:
            raise ConfigError("Endpoint takes id= or image=, not both", hint="id= is one that runs, image= one that is to be deployed")
        self.id = id
        self.image = image
        try:
            self.resource = EndpointResource(name or "", **options)
        except TypeError as error:
            raise ConfigError(str(error)) from error
        self._routes: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def is_client(self) -> bool:
        """Whether it stands for code that is not of this program."""
        return self.id is not None or self.image is not None

    def __call__(self, target: Any) -> Any:
        if self.is_client:
            raise ConfigError("an Endpoint with id= or image= is a client, and decorates nothing", hint="write  Endpoint(name=…)")
        if self._routes:
            raise ConfigError(f"endpoint {self.name!r} has routes; put {target.__name__} on one of them, or on another endpoint")
        return decorate(target, self.resource, (), awaited=True)

    def get(self, path: str, data: Any = None, **options: Any) -> Any:
        return self._http("GET", path, data, options)

    def post(self, path: str, data: Any = None, **options: Any) -> Any:
        return self._http("POST", path, data, options)

    def put(self, path: str, data: Any = None, **options: Any) -> Any:
        return self._http("PUT", path, data, options)

    def delete(self, path: str, data: Any = None, **options: Any) -> Any:
        return self._http("DELETE", path, data, options)

    def patch(self, path: str, data: Any = None, **options: Any) -> Any:
        return self._http("PATCH", path, data, options)

    def _http(self, method: str, path: str, data: Any, options: dict[str, Any]) -> Any:
        """A request of a client, or the decorator of a route."""
        if self.is_client:
            return self._client.http(method, path, data, **options)
        if data is not None or options:
            raise ConfigError(f"a route takes a path only, not {data!r}", hint="requests are for an Endpoint with id= or image=")
        return self._route(method, path)

    def _route(self, method: str, path: str) -> Callable[[Any], Any]:
        route = checked_route(method, path)
        if route in self._routes:
            raise ConfigError(f"endpoint {self.name!r} has the route {method} {path} twice")
        self._routes.add(route)
        return lambda target: decorate(target, self.resource, (), awaited=True, route=route)

    @property
    def _client(self) -> JobClient:
        return JobClient(self.resource.name, self.id or "", self.image or "")

    async def run(self, input_data: Any, *, webhook: str | None = None) -> EndpointJob:
        """Give a job to the endpoint, and go on at once."""
        return await self._client.run(input_data, webhook)

    async def runsync(self, input_data: Any, timeout: float = 60.0) -> EndpointJob:
        """Give a job to the endpoint, and wait until it is done."""
        return await self._client.runsync(input_data, timeout)

    async def status(self, job_id: str) -> EndpointJob:
        """How a job stands."""
        return await self._client.job(job_id).status()

    async def cancel(self, job_id: str) -> EndpointJob:
        """Take a job back."""
        return await self._client.job(job_id).cancel()

    def __repr__(self) -> str:
        kind = f"id={self.id!r}" if self.id else f"image={self.image!r}" if self.image else f"name={self.name!r}"
        return f"Endpoint({kind})"
