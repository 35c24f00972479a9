"""A client of endpoints that run already: jobs through their queue, requests through their load balancer."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from flame_host.serverless.routing import EndpointError, opener_for

__all__ = ["EndpointJob", "JobClient"]

_QUEUE = "https://api.runpod.ai/v2"
_BALANCER = "https://{id}.api.runpod.ai"
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class EndpointJob:
    """A job at an endpoint, as it stood when it was last asked for.

    Attributes:
        id: the endpoint's. output, error: None as long as there is none.
    """

    def __init__(self, data: dict[str, Any], client: JobClient) -> None:
        self._data = data
        self._client = client

    @property
    def id(self) -> str:
        return str(self._data.get("id", ""))

    @property
    def output(self) -> Any:
        return self._data.get("output")

    @property
    def error(self) -> Any:
        return self._data.get("error")

    @property
    def done(self) -> bool:
        return self._data.get("status") in _ENDED

    async def status(self) -> EndpointJob:
        """Ask again."""
        self._data = await self._client.ask("GET", f"/status/{self.id}", None)
        return self

    async def cancel(self) -> EndpointJob:
        """Take it back."""
        self._data = await self._client.ask("POST", f"/cancel/{self.id}", {})
        return self

    async def wait(self, timeout: float | None = None) -> EndpointJob:
        """Wait until it has ended.

        Raises:
            TimeoutError: it has not by then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not self.done:
            if deadline is not None and time.monotonic() + pause > deadline:
                raise TimeoutError(f"job {self.id} has not ended within {timeout} s; its status is {self._data.get('status')}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            await self.status()
        return self

    def __repr__(self) -> str:
        return f"EndpointJob(id={self.id!r}, status={self._data.get('status')!r})"


class JobClient:
    """Requests to one endpoint: where ``FLAME_ENDPOINTS`` says it stands, else at the platform by its id."""

    def __init__(self, name: str, id: str, image: str) -> None:
        self._name = name
        self._id = id
        self._image = image

    async def run(self, job_input: Any, webhook: str | None = None) -> EndpointJob:
        return EndpointJob(await self.ask("POST", "/run", {"input": job_input, **({"webhook": webhook} if webhook else {})}), self)

    async def runsync(self, job_input: Any, timeout: float) -> EndpointJob:
        return EndpointJob(await self.ask("POST", "/runsync", {"input": job_input}, timeout), self)

    def job(self, id: str) -> EndpointJob:
        return EndpointJob({"id": id}, self)

    async def ask(self, method: str, path: str, body: Any, timeout: float = 60.0) -> dict[str, Any]:
        answer = await self._request(method, self._url(_QUEUE + "/{id}"), path, body, timeout)
        if not isinstance(answer, dict):
            raise self._error(f"answered a {type(answer).__name__}, not an object")
        return answer

    async def http(self, method: str, path: str, data: Any = None, *, timeout: float = 60.0) -> Any:
        """A request to the endpoint's own routes; its answer as JSON."""
        return await self._request(method, self._url(_BALANCER), path, data, timeout)

    def _url(self, pattern: str) -> str:
        given = json.loads(os.environ.get("FLAME_ENDPOINTS") or "{}")
        for key in (self._id, self._name):
            if key and key in given:
                return str(given[key]).rstrip("/")
        if not self._id:
            what = f"with image={self._image!r} is deployed by the platform" if self._image else "has no id="
            raise EndpointError(
                f"endpoint {self._name!r} {what}, and no URL of it is known",
                resource=self._name,
                hint='set FLAME_ENDPOINTS={"' + self._name + '": "https://…"}, or write  Endpoint(id=…)',
            )
        return pattern.format(id=self._id)

    async def _request(self, method: str, url: str, path: str, body: Any, timeout: float) -> Any:
        return await asyncio.to_thread(self._blocking, method, url, path, body, timeout)

    def _blocking(self, method: str, url: str, path: str, body: Any, timeout: float) -> Any:
        opener, headers = opener_for(url)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, headers, method=method)
        try:
            with opener.open(request, timeout=timeout) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            raise self._error(f"answered {error.code} {error.reason}: {said}", url) from error
        except OSError as error:
            raise self._error(f"cannot be reached: {getattr(error, 'reason', error)}", url) from error
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text.decode("utf-8", "replace")

    def _error(self, what: str, url: str = "") -> EndpointError:
        shown = self._name or self._id
        return EndpointError(f"endpoint {shown!r}{f' at {url}' if url else ''} {what}", resource=shown, url=url)
