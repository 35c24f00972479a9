"""``flame run --handler``: a built archive behind HTTP, as the serverless platform would have it.

::

    with HandlerServer("archive.tar.gz") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        requests.post(f"{server.url}/runsync", json={"input": {"function_name": "infer", "args": []}}, headers=headers)

``POST /runsync`` gives the finished job, ``POST /run`` its identifier, ``GET`` or ``POST /status/<id>`` how it stands, ``POST
/cancel/<id>`` takes it back, ``/stream/<id>`` gives what a generator has yielded since. Each is there for the archive as a whole, where
the function's name finds the resource, and below ``/<resource>``, which is also how the resources reach each other. HTTP routes of the
program are answered at their own paths, and below ``/<resource>``. ``GET /`` says what is served.

A request carries code to run (a pickle), so nobody is listened to who does not show the server's token, a random one unless one is
given: ``Authorization: Bearer <token>``. Other users of this machine can reach the port, and so can a page in a browser. A browser is
led to ``/?token=…`` and keeps it in a cookie. The server binds the loopback address, and refuses what is not ``application/json`` or was
meant for another host name.
"""

from __future__ import annotations

import logging
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flamepy.build.deployment import Deployment
from flamepy.build.jobs import new_id
from flamepy.build.requests import Listener, Requests

if TYPE_CHECKING:
    from flame_host import Host

__all__ = ["HandlerServer"]

DRAIN_SECONDS = 600.0
"""How long jobs may go on that were begun before another archive took the place of theirs."""

logger = logging.getLogger("flamepy.serve")


class HandlerServer:
    """Serves one archive until it is closed.

    Args:
        port: 0 takes a free one.
        host: address to listen at. Anybody who can reach it and knows the token can run code here as this user.
        services: host to unpack and run it on.
        token: what requests have to show; by default a random one.

    Attributes:
        token: for the header ``Authorization: Bearer <token>``.

    Raises:
        PackageError, ProvisionError: see `Deployment`. OSError: the port is taken.
    """

    def __init__(
        self, archive: str | Path, *, host: str = "127.0.0.1", port: int = 0, services: Host | None = None, token: str = ""
    ) -> None:
        self._services = services
        self._former: list[Deployment] = []
        self.token = token or secrets.token_urlsafe(32)
        self._http = Listener((host, port), Requests)
        self._http.token = self.token.encode()
        try:
            # The port must be known first: the workers' environment says where the other resources are.
            self._http.deployment = Deployment(archive, self.url_of, host=services, key=self.token)
        except BaseException:
            self._http.server_close()
            raise
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="flame-serve", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """What is wrong with what should be served in place of this; the local page shows it."""
        return self._http.problem

    @problem.setter
    def problem(self, text: str) -> None:
        self._http.problem = text

    def replace(self, archive: str | Path) -> None:
        """Serve another archive from now on; jobs of the one before go on for a while.

        Raises:
            PackageError, ProvisionError: it cannot be served; the one before is, still.
        """
        fresh = Deployment(archive, self.url_of, host=self._services, key=self.token)
        former, self._http.deployment, self._http.problem = self._http.deployment, fresh, ""
        self._http.version = new_id()
        thread = threading.Thread(target=former.drain, args=(DRAIN_SECONDS,), name="flame-drain", daemon=True)
        thread.start()
        self._former.append(former)

    @property
    def url(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{_reachable(str(host))}:{port}"

    @property
    def manifest(self) -> dict[str, Any]:
        return self._http.deployment.manifest

    @property
    def page_url(self) -> str:
        """For a browser: leads to the page and brings the token along."""
        return f"{self.url}/?token={quote(self.token, safe='')}"

    def url_of(self, resource: str) -> str:
        """Where jobs of one resource can be posted."""
        return f"{self.url}/{quote(resource, safe='')}"

    def wait(self) -> None:
        """Until it is closed, or interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # in slices: a plain join would not notice a signal on every platform

    def close(self) -> None:
        """Stop listening, end the workers; jobs that run are given up. Closing twice is fine."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._http.deployment.close()
        for former in self._former:
            former.close()

    def __enter__(self) -> HandlerServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _reachable(host: str) -> str:
    """An address to connect to, for one that was bound to."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
