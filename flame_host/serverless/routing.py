"""Calls from one endpoint to a function of another: found by the manifest, made over HTTP.

Where an endpoint stands is told by ``FLAME_ENDPOINTS``, a JSON object ``{resource: url}``, over the manifest's own ``endpoints``. A
call is a ``POST`` to ``<url>/runsync``; a worker that answers "in progress" is asked at ``<url>/status/<id>`` until it is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from flame_host.api import ApplicationError, ConfigError, RemoteError
from flame_host.serverless.formats import Codec, Formats, argument_limit, decode, encode, result_limit
from flame_host.serverless.manifest import find_manifest, who_am_i

__all__ = ["EndpointError", "RemoteTraceback", "Router"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_TAKEN_BACK = {"CANCELLED": "it was cancelled", "TIMED_OUT": "it took longer than the endpoint allows"}
_ROOM = 1 << 20  # bytes an answer may have besides the result


class EndpointError(ApplicationError):
    """Another endpoint is not known, cannot be reached, or does not answer as an endpoint does.

    Attributes:
        resource: the endpoint's name. url: where it was looked for, empty when that is not known.
    """

    def __init__(self, message: str, *, resource: str, url: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.resource = resource
        self.url = url


class RemoteTraceback(Exception):
    """Cause of an exception that was raised at another endpoint: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Router:
    """Where the functions of this deployment live, and the way there.

    Args:
        manifest: instead of the one that is found.
    """

    def __init__(self, manifest: Mapping[str, Any] | None = None) -> None:
        self._manifest = find_manifest() if manifest is None else manifest
        self._formats = Formats(self._manifest)
        self._endpoints = {**(self._manifest.get("endpoints") or {}), **_endpoints_of_environment()}
        self._me = self._own_name()
        self._homes: dict[tuple[str, str], tuple[str, str]] = dict(_homes(self._manifest))

    def home_of(self, module: str, qualname: str, resource: str) -> tuple[str, str]:
        """Resource and registered name of a function.

        Args:
            resource: what its decoration says, for a function the manifest does not know.
        """
        return self._homes.get((module, qualname), (resource, qualname))

    def is_here(self, resource: str) -> bool:
        """Whether this very process serves it."""
        return resource == self._me

    def call(self, resource: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of another endpoint.

        Raises:
            EndpointError: the way there failed. RemoteError, or the function's own exception: the function failed.
        """
        return self._ask(resource, {"function_name": name, "execution_type": "function", **self._encoded(args, kwargs)})

    def call_method(
        self,
        resource: str,
        name: str,
        constructor: tuple[tuple[Any, ...], Mapping[str, Any]],
        method: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Call a method of the instance that another endpoint keeps for these constructor arguments."""
        encoded = self._encoded(args, kwargs)
        job_input = {"function_name": name, "execution_type": "class", **self._encoded(*constructor), "method_name": method}
        return self._ask(resource, {**job_input, "method_args": encoded["args"], "method_kwargs": encoded["kwargs"]})

    def _own_name(self) -> str:
        me = who_am_i()
        if me in (self._manifest.get("resources") or {}):
            return me
        # A platform's own identifier of an endpoint is the end of its address.
        return next((name for name, url in self._endpoints.items() if me and str(url).rstrip("/").endswith(f"/{me}")), me)

    def _encoded(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        codec = self._formats.default
        limit = argument_limit()
        return {
            "format": codec.format,
            "args": [encode(value, codec, limit, f"args[{index}]") for index, value in enumerate(args)],
            "kwargs": {key: encode(value, codec, limit, f"kwargs[{key!r}]") for key, value in kwargs.items()},
        }

    def _ask(self, resource: str, job_input: dict[str, Any]) -> Any:
        url = self._endpoints.get(resource)
        if not url:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise EndpointError(
                f"{job_input['function_name']} lives at endpoint {resource!r}, and no URL of that is known; known are: {known}",
                resource=resource,
                hint='set FLAME_ENDPOINTS={"' + resource + '": "https://…"}',
            )
        exchange = _Exchange(resource, str(url).rstrip("/"))
        output = exchange.run({"input": {**job_input, "errors": "nested"}})
        codec = self._formats.codec(output.get("format") or job_input["format"])
        if output.get("success"):
            return decode(output.get("result"), codec, result_limit(), f"the result of {resource}")
        raise _rebuilt(output, codec, self._formats)


def _homes(manifest: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for resource, entry in (manifest.get("resources") or {}).items():
        for function in entry.get("functions") or ():
            # What was defined under one name may be served under another; a call knows the one it was defined by.
            name = function.get("name", "")
            module, _, qualname = (function.get("original") or f"{function.get('module', '')}:{name}").partition(":")
            yield (module, qualname), (resource, name)


def _endpoints_of_environment() -> dict[str, str]:
    given = os.environ.get("FLAME_ENDPOINTS", "")
    if not given:
        return {}
    try:
        table = json.loads(given)
    except ValueError as error:
        raise ConfigError(f"FLAME_ENDPOINTS is not JSON: {error}", hint='write  {"resource": "https://…"}') from error
    if not isinstance(table, dict) or not all(isinstance(url, str) for url in table.values()):
        raise ConfigError("FLAME_ENDPOINTS must be an object of names and URLs", hint='write  {"resource": "https://…"}')
    return table


def _rebuilt(output: Mapping[str, Any], codec: Codec, formats: Formats) -> BaseException:
    """The exception of a failed job, with its own type when that can be had."""
    failure = output.get("failure")
    if not isinstance(failure, Mapping):  # a worker that does not know about nested errors
        failure = {"error": output.get("error") or "the job failed without saying why", "traceback": output.get("traceback", "")}
    text, trace = str(failure.get("error")), str(failure.get("traceback") or "")
    loaded: Any = None
    if failure.get("exception") and not formats.pickle_denied:
        with contextlib.suppress(Exception):  # its class may not be known on this side
            loaded = decode(failure["exception"], codec, result_limit(), "the exception")
    kind = str(failure.get("type") or "")
    error: BaseException
    if isinstance(loaded, BaseException):
        error = loaded
    else:
        error = RemoteError(f"{kind.removeprefix('builtins.')}: {text}" if kind else text, type_name=kind, remote_traceback=trace)
    if trace:
        error.__cause__ = RemoteTraceback(trace)
    return error


class _Exchange:
    """One job at another endpoint, from the request to its output."""

    def __init__(self, resource: str, url: str) -> None:
        self._resource = resource
        self._url = url
        self._deadline = time.monotonic() + float(os.environ.get("FLAME_ENDPOINT_TIMEOUT") or 600)
        self._opener, self._headers = opener_for(url)

    def run(self, job: dict[str, Any]) -> Mapping[str, Any]:
        answer = self._request("POST", "/runsync", job)
        pause = _FIRST_PAUSE
        while answer.get("status") in ("IN_QUEUE", "IN_PROGRESS"):
            if time.monotonic() + pause > self._deadline:
                raise self._error("did not finish the job in time", "raise FLAME_ENDPOINT_TIMEOUT")
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            answer = self._request("GET", f"/status/{answer.get('id')}", None)
        if answer.get("status") in _TAKEN_BACK:
            raise self._error(f"took the job back: {_TAKEN_BACK[answer['status']]}")
        output = answer.get("output") if "status" in answer else answer
        if isinstance(output, list) and len(output) == 1:  # of a worker that streams, to which this was one value
            output = output[0]
        if isinstance(output, Mapping) and "success" in output:
            return output
        if answer.get("error"):
            return {"success": False, "error": answer["error"]}
        raise self._error(f"answered something else than a job's output: {str(answer)[:200]}")

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=self._headers, method=method)
        limit = result_limit() * 4 // 3 + _ROOM
        try:
            with self._opener.open(request, timeout=max(0.1, self._deadline - time.monotonic())) as response:
                text = response.read(limit + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            raise self._error(f"answered {error.code} {error.reason}: {said}") from error
        except (OSError, ValueError) as error:
            raise self._error(f"cannot be reached: {getattr(error, 'reason', error)}") from error
        if len(text) > limit:
            raise self._error(f"answered more than {limit} bytes", "raise FLAME_MAX_RESULT_BYTES")
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise self._error(f"answered something else than JSON: {text[:200]!r}") from error
        if not isinstance(answer, dict):
            raise self._error(f"answered a {type(answer).__name__}, not an object")
        return answer

    def _error(self, what: str, hint: str = "") -> EndpointError:
        return EndpointError(f"endpoint {self._resource!r} at {self._url} {what}", resource=self._resource, url=self._url, hint=hint)


def opener_for(url: str) -> tuple[urllib.request.OpenerDirector, dict[str, str]]:
    """How requests to an endpoint are made: no redirects, no proxy to this machine itself, and the key never in the clear."""
    loopback = urlsplit(url).hostname in _LOOPBACK
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"}
    key = os.environ.get("FLAME_ENDPOINT_KEY") or os.environ.get("RUNPOD_API_KEY")
    if key and (loopback or url.startswith("https:")):
        headers["Authorization"] = f"Bearer {key}"
    return urllib.request.build_opener(*handlers), headers


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and the key would travel with it."""

    def redirect_request(self, *_: Any) -> None:
        return None
