"""``flame-host serve`` and ``flame-host status``: a Flame cluster of this machine, and how it is."""

from __future__ import annotations

import http.client
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flame_host.api import ConfigError
from flame_host.cli import output, plugins

_UNAVAILABLE = 3
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def serve(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect; or unix:PATH.")] = "127.0.0.1:8080",
    cache: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the object cache is.")] = "127.0.0.1:9090",
    health: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where /healthz and /status are; '' for nowhere.")] = "127.0.0.1:8079",
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep everything there; without it all goes with the server.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put damaged files of the state aside, keep the rest, then serve.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate chain; clients then use https and grpcs.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(metavar="PEM", help="What programs run here check the certificate by.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Holds the token that callers must present.")] = None,
    client: Annotated[str | None, typer.Option(metavar="REQUIREMENT", help="What stock clients' programs import; '' for none.")] = None,
    drain: Annotated[float, typer.Option(metavar="SECONDS", help="What running tasks have to end at SIGTERM.", min=0)] = 30.0,
    max_message: Annotated[str, typer.Option(metavar="SIZE", help="Of one input; stock clients and programs take 4M at most.")] = "4M",
    max_sessions: Annotated[int, typer.Option(help="Open at a time.", min=1)] = 10_000,
    max_tasks: Annotated[int, typer.Option(help="Waiting or running at a time.", min=1)] = 200_000,
    cache_memory: Annotated[str, typer.Option(metavar="SIZE", help="Of objects held in memory.")] = "256M",
    cache_size: Annotated[str, typer.Option(metavar="SIZE", help="Of objects kept in all.")] = "64G",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a Flame cluster of this machine: sessions and tasks run in workers here; stock Flame clients can use it."""
    try:
        from flame_host.serve.server import Server, run
        from flame_host.serve.server import repair as repaired
        from flame_host.serve.settings import CLIENT, Limits, ServerSettings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google", "pyarrow"):
            raise
        typer.echo(f"flame-host: serving needs {error.name}\n  → pip install 'flame-host[serve]'", err=True)
        raise typer.Exit(_UNAVAILABLE) from None
    logging.basicConfig(level=_level(log_level), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(
        message=_size(max_message, "--max-message"),
        sessions=max_sessions,
        tasks=max_tasks,
        cache_memory=_size(cache_memory, "--cache-memory"),
        cache_disk=_size(cache_size, "--cache-size"),
    )
    settings = ServerSettings(
        listen=listen,
        cache=cache,
        health=health,
        state=state,
        certificate=tls_cert,
        key=tls_key,
        authority=tls_ca,
        token=_token(token_file),
        client=CLIENT if client is None else client,
        drain_seconds=drain,
        limits=limits,
    )
    if repair:
        if state is None:
            raise ConfigError("--repair needs the --state it is to repair")
        for line in repaired(state):
            typer.echo(line)

    def ready(server: Server) -> None:
        typer.echo(f"serving {server.endpoint}  cache {server.cache_endpoint}  state {state or 'none (--state DIR keeps it)'}")
        typer.echo(f"  export FLAME_ENDPOINT={server.endpoint} FLAME_CACHE_ENDPOINT={server.cache_endpoint}")
        sys.stdout.flush()

    run(settings, ready)


def status(
    health: Annotated[str, typer.Option(metavar="HOST:PORT", help="As the server was told.")] = "127.0.0.1:8079",
    as_json: plugins.Json = False,
) -> None:
    """How a server is that runs on this machine; status 1 when there is none, or it is not serving."""
    told = _ask(health)
    if as_json:
        output.print_json(told)
    else:
        output.table(("", ""), [(name.replace("_", " "), value) for name, value in told.items()])
    if told.get("state") != "serving":
        raise typer.Exit(output.FAILED)


def _ask(health: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(health, timeout=5)
    try:
        connection.request("GET", "/status")
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(
            f"no server answers at {health}: {error}", hint="start one with  flame-host serve  or say its --health"
        ) from error
    finally:
        connection.close()


def _size(text: str, option: str) -> int:
    number, unit = text.strip().rstrip("bB"), ""
    if number[-1:].lower() in _SIZES:
        number, unit = number[:-1], number[-1:].lower()
    try:
        value = int(float(number) * _SIZES[unit])
    except (ValueError, KeyError):
        raise ConfigError(f"{option} is {text!r}", hint="write a number of bytes, or 256M, 4G") from None
    if value <= 0:
        raise ConfigError(f"{option} is {text!r}, which leaves room for nothing")
    return value


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--token-file {path}: {error}") from error
    if len(token) < 16:
        raise ConfigError(f"the token in {path} has {len(token)} characters", hint="16 at least: openssl rand -hex 32 > FILE")
    return token


def _level(name: str) -> int:
    levels: Sequence[str] = ("debug", "info", "warning", "error")
    if name.lower() not in levels:
        raise ConfigError(f"--log-level is {name!r}", hint=", ".join(levels))
    return int(getattr(logging, name.upper()))
