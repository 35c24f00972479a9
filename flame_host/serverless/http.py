"""HTTP routes of an endpoint as an ASGI application, and one request to it without a server.

The application is one of FastAPI, which a build adds to the requirements of resources with routes; nothing of it is imported before.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
import logging
import os
import traceback
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from flame_host.serverless.execution import on_loop, original, users_part
from flame_host.serverless.plain import to_json

__all__ = ["create_app", "request_of", "serve", "with_requests"]

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
logger = logging.getLogger("flame_host.handler")


def create_app(routes: Mapping[tuple[str, str], Any], handler: Callable[[Mapping[str, Any]], Any] | None = None, *, title: str = "") -> Any:
    """Make the application.

    Arguments are taken from the path, the query, and the JSON body: of a body's object by name, or all of it as the one argument.
    ``GET /ping`` and ``GET /health`` tell that the worker is well.

    Args:
        routes: method and path → function.
        handler: answers jobs of other endpoints at ``POST /runsync``.
    """
    from fastapi import FastAPI

    app = FastAPI(title=title or "endpoint")
    taken = {path for _, path in routes}

    async def well() -> dict[str, str]:
        return {"status": "healthy"}

    for (method, path), function in routes.items():
        app.add_api_route(path, _endpoint(original(function), method, path), methods=[method], response_model=None)
    for path in ("/ping", "/health"):
        if path not in taken:
            app.add_api_route(path, well, methods=["GET"])
    if handler is not None and "/runsync" not in taken:
        app.add_api_route("/runsync", _jobs(handler), methods=["POST"], include_in_schema=False, response_model=None)
    return app


def serve(app: Any) -> None:
    """Serve it until the process is stopped, where the platform says: ``PORT``, by default 80, on ``HOST``, by default all addresses."""
    import uvicorn

    # A container's own address is not known in advance, and nobody else lives in it.
    uvicorn.run(app, host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ.get("PORT") or 80), log_level="warning")


def _jobs(handler: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    from fastapi import Body

    async def runsync(job: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008  # FastAPI's way to say it
        answer = await asyncio.to_thread(handler, job)
        if isinstance(answer, dict) and answer.get("error"):
            return {"status": "FAILED", "error": answer["error"], "output": answer}
        return {"status": "COMPLETED", "output": answer}

    return runsync


# ---------------------------------------------------------------------- from a function to FastAPI's idea of one


def _endpoint(function: Callable[..., Any], method: str, path: str) -> Callable[..., Any]:
    """The function with a signature by which FastAPI finds its arguments where a client puts them."""
    signature = inspect.signature(function)
    hints = _hints(function)
    in_path = {part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{") and part.endswith("}")}
    rest = [
        parameter
        for name, parameter in signature.parameters.items()
        if name not in in_path and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    shown = [signature.parameters[name] for name in in_path if name in signature.parameters]
    own = [parameter.replace(annotation=hints.get(parameter.name, Any)) for parameter in shown]
    plain = method in _WITH_BODY and not any(_is_fastapis(hints.get(parameter.name), parameter.default) for parameter in rest)
    if plain and any(hints.get(parameter.name) is bytes for parameter in rest):
        return _called(function, [*own, *(_uploaded(parameter, hints) for parameter in rest)])
    if plain and (rest or open_ended):
        return _called(function, own, body=rest, open_ended=open_ended)
    if open_ended:
        return _called(function, own, query=True)
    return _called(
        function, [*own, *(parameter.replace(annotation=hints.get(parameter.name, Any if plain else str)) for parameter in rest)]
    )


def _is_fastapis(hint: Any, default: Any) -> bool:
    """Whether FastAPI itself knows where such an argument comes from: models, requests, ``Query()`` and the like."""
    import pydantic

    if type(default).__module__.startswith("fastapi"):
        return True
    if typing.get_origin(hint) is typing.Annotated:
        return True
    return inspect.isclass(hint) and (issubclass(hint, pydantic.BaseModel) or hint.__module__.startswith(("fastapi", "starlette")))


def _uploaded(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> inspect.Parameter:
    from fastapi import File, Form

    hint = hints.get(parameter.name, Any)
    kind: Any = File if hint is bytes else Form
    default = kind() if parameter.default is parameter.empty else kind(parameter.default)
    return parameter.replace(annotation=hint, default=default, kind=parameter.KEYWORD_ONLY)


def _called(
    function: Callable[..., Any],
    parameters: list[inspect.Parameter],
    *,
    body: list[inspect.Parameter] | None = None,
    open_ended: bool = False,
    query: bool = False,
) -> Callable[..., Any]:
    """What FastAPI calls.

    Args:
        parameters: that FastAPI finds. body: those that are in the body, or else in the query.
        open_ended: the function takes whatever else the body has. query: it takes whatever the query has.
    """
    from fastapi import HTTPException, Request

    async def endpoint(**given: Any) -> Any:
        request = given.pop("request_itself", None)
        if body is not None:
            given |= await _gathered(request, body, _hints(function), open_ended)
        elif query and request is not None:
            given = {**request.query_params, **given}
        try:
            return await _answered(function, given)
        except HTTPException:
            raise
        except Exception as error:
            return _told(function, error)

    shown = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in parameters]
    if body is not None or query:
        shown.append(inspect.Parameter("request_itself", inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    endpoint.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    endpoint.__name__, endpoint.__doc__ = function.__name__, function.__doc__
    return endpoint


async def _gathered(request: Any, parameters: list[inspect.Parameter], hints: Mapping[str, Any], open_ended: bool) -> dict[str, Any]:
    """Arguments by name: of the body's object, or all of the body as the one argument; what is not there, of the query.

    Raises:
        RequestValidationError: with every one that is missing or of another type.
    """
    from fastapi.exceptions import RequestValidationError

    value = await _json_of(request)
    names = {parameter.name for parameter in parameters}
    only = next(iter(names)) if len(names) == 1 and not open_ended else ""
    if only and value is not _NOTHING and not _is_by_name(value, parameters[0], hints.get(only)):
        value = {only: value}
    if value is _NOTHING:
        value = {}
    if not isinstance(value, dict):
        raise RequestValidationError([{"type": "dict_type", "loc": ("body",), "msg": "Input should be an object", "input": value}])
    given = {key: entry for key, entry in value.items() if open_ended or key in names}
    wrong: list[dict[str, Any]] = []
    for parameter in parameters:
        name, hint = parameter.name, hints.get(parameter.name, Any)
        place = "body" if name in given or name not in request.query_params else "query"
        if place == "query":
            listed = request.query_params.getlist(name)
            given[name] = listed if typing.get_origin(hint) in (list, set, tuple) else listed[-1]
        if name in given:
            given[name] = _validated(given[name], hint, (place, name), wrong)
        elif parameter.default is parameter.empty:
            wrong.append({"type": "missing", "loc": ("body", name), "msg": "Field required", "input": value})
    if wrong:
        raise RequestValidationError(wrong)
    return given


def _is_by_name(value: Any, parameter: inspect.Parameter, hint: Any) -> bool:
    """Whether a body holds the one argument under its name, rather than being it."""
    if not isinstance(value, dict):
        return False
    return value.keys() == {parameter.name} or hint in _SCALARS or (value == {} and parameter.default is not parameter.empty)


_NOTHING = object()
_SCALARS = (str, int, float, bool)


async def _json_of(request: Any) -> Any:
    from fastapi.exceptions import RequestValidationError

    text = await request.body()
    try:
        return json.loads(text) if text else _NOTHING
    except ValueError as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": f"not JSON: {error}", "input": {}}]) from error


def _validated(value: Any, hint: Any, place: tuple[str, str], wrong: list[dict[str, Any]]) -> Any:
    import pydantic

    try:
        return pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.ValidationError as error:
        wrong += [{**entry, "loc": (*place, *entry["loc"])} for entry in error.errors(include_url=False)]
        return value


def _told(function: Callable[..., Any], error: Exception) -> Any:
    """The answer to a request whose function failed."""
    from fastapi.responses import JSONResponse

    return JSONResponse(_failure(function, error), status_code=500)


def _failure(function: Callable[..., Any], error: Exception) -> dict[str, str]:
    trace = users_part(error.__traceback__)
    logger.warning("%s failed: %s", function.__name__, error, exc_info=(type(error), error, trace))
    return {
        "error": str(error) or type(error).__name__,
        "error_type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "traceback": "".join(traceback.format_exception(type(error), error, trace)),
    }


async def _answered(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    from fastapi import Response
    from fastapi.responses import StreamingResponse

    value = function(**given) if _returns_at_once(function) else await asyncio.to_thread(function, **given)
    if inspect.isawaitable(value):
        value = await value
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return StreamingResponse(_pieces(function, value), media_type="application/x-ndjson")
    if isinstance(value, Response):
        return value
    return Response(value, media_type="application/octet-stream") if isinstance(value, bytes) else to_json(value)


async def _pieces(function: Callable[..., Any], values: Any) -> AsyncIterator[bytes]:
    """Text and bytes as they are; anything else as lines of JSON, the last of which tells what went wrong."""
    end = object()
    lines = True
    try:
        while True:
            value = await anext(values, end) if inspect.isasyncgen(values) else await asyncio.to_thread(next, values, end)
            if value is end:
                return
            if isinstance(value, (str, bytes)):
                lines = False
                yield value.encode() if isinstance(value, str) else value
            else:
                yield json.dumps(to_json(value)).encode() + b"\n"
    except Exception as error:
        if not lines:  # in the midst of text it would not be noticed; that the answer is cut off is
            raise
        yield json.dumps(_failure(function, error)).encode() + b"\n"
    finally:
        await _closed(values)


async def _closed(values: Any) -> None:
    """A client may have left it half way."""
    if inspect.isasyncgen(values):
        await values.aclose()
    else:
        with contextlib.suppress(ValueError):  # it is at work in a thread that nothing can stop
            values.close()


def _returns_at_once(function: Callable[..., Any]) -> bool:
    """Whether calling it only makes what is then awaited or gone through."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        return {}


# ---------------------------------------------------------------------- one request, without a server


def with_requests(handler: Callable[[Mapping[str, Any]], Any], app: Any) -> Callable[[Mapping[str, Any]], Any]:
    """A handler that also takes requests, as ``{"request": {…}}`` beside ``input``: how a server without a port of its own asks."""

    def either(job: Mapping[str, Any]) -> Any:
        return request_of(app, job["request"]) if "request" in job else handler(job)

    return either


def request_of(app: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request: ``{"method", "path", "query", "headers", "body"}`` → ``{"status", "headers", "body"}``, bodies in base64."""
    return dict(on_loop(_exchanged(app, request)))


async def _exchanged(app: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(request.get("body") or "")
    headers = [(str(name).lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in request.get("headers") or ()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request["method"], "scheme": "http",
        "path": request["path"], "raw_path": request["path"].encode(), "query_string": str(request.get("query") or "").encode(),
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    answer: dict[str, Any] = {"status": 500, "headers": []}
    pieces: list[bytes] = []
    unread = [{"type": "http.request", "body": body, "more_body": False}]
    ended = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if unread:
            return unread.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
            answer["headers"] = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                ended.set()

    try:
        await app(scope, receive, send)
    except Exception:  # it was answered, and is raised again for the log of a server
        if not pieces:
            raise
    return {**answer, "body": base64.b64encode(b"".join(pieces)).decode()}
