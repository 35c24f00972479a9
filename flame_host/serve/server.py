"""One server, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from flame_host import Host, __version__
from flame_host._private import make_private
from flame_host.api import ConfigError, LogRecord
from flame_host.serve import objects as object_files
from flame_host.serve import store as store_files
from flame_host.serve.cluster import Cluster
from flame_host.serve.executors import Executors, make_host
from flame_host.serve.frontend import Frontend, TokenCheck
from flame_host.serve.health import Health
from flame_host.serve.objects import Objects
from flame_host.serve.settings import ServerSettings, host_and_port, joined
from flame_host.serve.store import Store
from flame_host.wire.flame.v1 import frontend_pb2_grpc

log = logging.getLogger(__name__)

_STORE = "cluster.db"
_FRAMING = 64 << 10
_END_SECONDS = 10.0


class Server:
    """Made in an event loop, then ``start`` and ``stop``.

    Args:
        make: makes the host whose plugins do the work.

    Attributes:
        endpoint, cache_endpoint: what clients are to be told.
    """

    def __init__(self, settings: ServerSettings, make: Callable[[], Host] = make_host) -> None:
        settings.check()
        self.settings = settings
        self.endpoint = ""
        self.cache_endpoint = ""
        self._make = make
        self._since = time.time()
        self._state = "starting"
        self._ends = contextlib.ExitStack()
        self._health = Health(self.status)
        self._cluster: Cluster | None = None
        self._objects: Objects | None = None
        self._grpc: Any = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when clients are answered.

        Raises:
            ConfigError: it cannot serve so; says why.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop(drain=0)
            raise

    async def _start(self) -> None:
        settings, limits = self.settings, self.settings.limits
        directory = self._directory()
        store = Store(directory / _STORE)
        self._ends.callback(store.close)
        self.cache_endpoint = self._free_cache_endpoint()
        self._objects = Objects(directory, self.cache_endpoint, memory=limits.cache_memory, disk=limits.cache_disk)
        self._ends.callback(self._objects.close)
        self._serve_cache(self._objects)
        host = self._make()
        self._ends.callback(host.add_log_sink(_echo))
        self._grpc = self._bind()
        variables = {"FLAME_ENDPOINT": self.endpoint, "FLAME_CACHE_ENDPOINT": self.cache_endpoint}
        if settings.authority is not None:
            variables["FLAME_CA_FILE"] = str(settings.authority.absolute())
        executors = Executors(host, self._objects, variables, directory, client=settings.client)
        self._ends.callback(executors.close)
        self._cluster = Cluster(store, executors, limits, settings.node)
        self._ends.callback(self._cluster.close)
        self._cluster.restore()
        frontend_pb2_grpc.add_FrontendServicer_to_server(Frontend(self._cluster, settings.node), self._grpc)
        self._watch = asyncio.create_task(self._cluster.watch())
        await self._grpc.start()
        if settings.health:
            try:
                await self._health.start(settings.health)
            except OSError as error:
                raise ConfigError(f"--health {settings.health}: {error.strerror}", hint="choose another address, or --health ''") from error
        self._state = "serving"

    async def stop(self, drain: float | None = None) -> int:
        """Let what runs end, keep the rest; returns how many tasks are left for another server. Idempotent."""
        self._state = "draining"
        left = 0
        if self._cluster is not None:
            left = await self._cluster.drain(self.settings.drain_seconds if drain is None else drain)
            self._cluster.close()
            await asyncio.sleep(0)
        if self._grpc is not None:
            await self._grpc.stop(0.5)
            self._grpc = None
        if self._watch is not None:
            self._watch.cancel()
        if self._cluster is not None:
            await self._cluster.settle_background()
            self._cluster = None
        await self._health.stop()
        await asyncio.to_thread(self._close_all)
        self._state = "stopped"
        return left

    def _close_all(self) -> None:
        self._ends.close()

    def status(self) -> dict[str, Any]:
        """For people who look after it."""
        told: dict[str, Any] = {
            "state": self._state,
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self._since, 1),
            "endpoint": self.endpoint,
            "cache_endpoint": self.cache_endpoint,
            "keeps": str(self.settings.state) if self.settings.state else "",
        }
        if self._cluster is not None and self._objects is not None:
            open_sessions = [session for session in self._cluster.sessions.values() if session.is_open]
            told |= {
                "applications": len(self._cluster.applications),
                "sessions": len(open_sessions),
                "executors": sum(len(session.running.engine.executors) for session in open_sessions if session.running is not None),
                "tasks_pending": self._cluster.tasks.pending,
                "tasks_done": self._cluster.tasks.done,
                "objects": self._objects.count,
                "object_bytes": self._objects.size,
            }
        return told

    # ------------------------------------------------------------------------------------------------ parts

    def _directory(self) -> Path:
        if self.settings.state is not None:
            return make_private(self.settings.state.expanduser().absolute())
        return Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="flame-state-")))

    def _free_cache_endpoint(self) -> str:
        """What references name has to be known before there is a server that could be asked for its port."""
        host, port = host_and_port(self.settings.cache)
        if port == 0:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.bind((host, 0))
                port = probe.getsockname()[1]
        return f"{'grpcs' if self.settings.tls else 'grpc'}://{joined(host, port)}"

    def _serve_cache(self, objects: Objects) -> None:
        try:
            from flame_host.serve.flight import CacheService
        except ModuleNotFoundError as error:
            if error.name != "pyarrow":
                raise
            raise ConfigError("the object cache needs pyarrow", hint="pip install 'flame-host[serve]'") from error
        location = self.cache_endpoint.replace("grpcs://", "grpc+tls://")
        try:
            service = CacheService(objects, location, tls=self._certificate(), token=self.settings.token)
        except OSError as error:
            raise ConfigError(f"--cache {self.settings.cache}: {error}", hint="is another server running? choose another port") from error
        self._ends.callback(service.shutdown)

    def _bind(self) -> Any:
        limit = self.settings.limits.message
        options = [
            ("grpc.max_receive_message_length", limit + _FRAMING),
            ("grpc.max_send_message_length", 2 * limit + _FRAMING),  # a task's input and output in one
            ("grpc.so_reuseport", 0),
        ]
        interceptors = [TokenCheck(self.settings.token)] if self.settings.token else []
        server = grpc.aio.server(options=options, interceptors=interceptors)
        address = self.settings.listen
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:").removeprefix("//")).absolute()
            self._bind_socket(server, path)
            self.endpoint = f"unix:{path}"
            return server
        certificate = self._certificate()
        host, _ = host_and_port(address)
        try:
            if certificate is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, grpc.ssl_server_credentials([(certificate[1], certificate[0])]))
        except RuntimeError as error:
            raise ConfigError(f"--listen {address}: {error}", hint="is another server running? choose another port") from error
        self.endpoint = f"{'https' if certificate else 'http'}://{joined(host, port)}"
        return server

    def _bind_socket(self, server: Any, path: Path) -> None:
        """Only this user may connect: gRPC makes the file with what the umask leaves."""
        path.unlink(missing_ok=True)
        earlier = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise ConfigError(f"--listen unix:{path}: {error}") from error
        finally:
            os.umask(earlier)
        self._ends.callback(path.unlink, missing_ok=True)

    def _certificate(self) -> tuple[bytes, bytes] | None:
        """Certificate and key."""
        if self.settings.certificate is None or self.settings.key is None:
            return None
        try:
            return self.settings.certificate.read_bytes(), self.settings.key.read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS cannot be set up: {error}") from error


def run(settings: ServerSettings, ready: Callable[[Server], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once.

    Args:
        ready: called when clients are answered.
    """
    asyncio.run(_run(settings, ready))


async def _run(settings: ServerSettings, ready: Callable[[Server], None]) -> None:
    loop = asyncio.get_running_loop()
    server = Server(settings)
    came = asyncio.Event()
    with _signals(loop, came):
        await server.start()
        ready(server)
        await came.wait()
        log.info("told to end: running tasks have %g s", settings.drain_seconds)
        left = await server.stop()
    if left:
        kept = "they run when a server takes up this state" if settings.state else "they are lost: this server had no --state"
        log.warning("%d task%s had not ended; %s", left, "" if left == 1 else "s", kept)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, came: asyncio.Event) -> Iterator[None]:
    def on_signal() -> None:
        if came.is_set():
            os._exit(128 + signal.SIGTERM)  # the guardian takes the workers along
        came.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def repair(state: Path) -> list[str]:
    """Put damaged files of a state aside and keep what can be read; returns what was done."""
    told = []
    if (state / _STORE).exists():
        told.append(f"{_STORE}: {store_files.repair(state / _STORE)}")
    told.append(f"objects.db: {object_files.repair(state)}")
    return told


def _echo(record: LogRecord) -> None:
    """Workers' output goes where ours goes, with the session it belongs to."""
    for line in record.text.splitlines():
        sys.stderr.write(f"[{record.session_id}] {line}\n")
    sys.stderr.flush()
