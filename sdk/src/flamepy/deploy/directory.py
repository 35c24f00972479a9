"""Applications in directories: each has an archive, a note of which is served, and a server process that keeps to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError, FlameError, PackageError, Release

__all__ = ["Place", "write_json"]

_OPTIONS = ("path", "port")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_SECONDS = 300.0
"""How long a release may take until it is served: its environment may have to be made."""
_PAUSE = 0.05


class Place:
    """The directory of one application.

    ``wanted.json`` names the archive that is to be served, ``served.json`` what is, or what is wrong with the wanted one; ``token`` is what
    requests have to show. The server holds a lock on ``lock`` as long as it lives.
    """

    def __init__(self, application: str, options: Mapping[str, str]) -> None:
        unknown = sorted(options.keys() - set(_OPTIONS))
        if unknown:
            raise ConfigError(f"the deployer 'directory' has no option {', '.join(unknown)}", hint=f"it has: {', '.join(_OPTIONS)}")
        if not _NAME.fullmatch(application):
            raise ConfigError(f"{application!r} cannot be the name of an application", hint="use letters, digits, dots and dashes")
        port = options.get("port", "0")
        if not port.isdecimal():
            raise ConfigError(f"the option port is {port!r}; it must be a number")
        self._port = int(port)
        self.directory = _root(options) / application

    # ------------------------------------------------------------------ what users ask for

    def serve(self, release: Release) -> Mapping[str, str]:
        """Serve it; what was served before is until then, and if this fails."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keep_token()
        archive = self.directory / f"{release.digest[:16]}.tar.gz"
        former = self.read("wanted.json")
        shutil.copyfile(release.archive, archive)
        order: dict[str, Any] = {"archive": archive.name, "digest": release.digest, "order": time.time_ns()}
        write_json(self.directory / "wanted.json", order)
        started: subprocess.Popen[bytes] | None = None
        try:
            started = None if self.is_served() else self._start()
            served = self._settled(order["order"], started)
        except BaseException:
            if started is not None:  # it may not have come to the lock yet, by which it would be found
                started.terminate()
                _ended(started)
            # What is served is what was; the note must not say otherwise when the server is started anew.
            write_json(self.directory / "wanted.json", former) if former else self.remove()
            raise
        for other in self.directory.glob("*.tar.gz"):
            if other != archive:
                other.unlink()
        return dict(served["resources"])

    def endpoints(self) -> Mapping[str, str]:
        """Resource → URL of what is served."""
        return dict(self.read("served.json").get("resources") or {}) if self.is_served() else {}

    def remove(self) -> bool:
        """End the server, and remove the directory."""
        if not self.directory.is_dir():
            return False
        if self.is_served():
            self._stop()
        shutil.rmtree(self.directory)
        return True

    @property
    def token_file(self) -> Path:
        """Holds what requests have to show; the same for all releases."""
        return self.directory / "token"

    def _keep_token(self) -> None:
        """``FLAME_ENDPOINT_KEY``, or else a random one. Only this user can read it."""
        given = os.environ.get("FLAME_ENDPOINT_KEY", "")
        if self.token_file.exists() and (not given or given == self.token_file.read_text()):
            return
        if self.is_served():
            raise ConfigError(
                "FLAME_ENDPOINT_KEY is another token than the one this application is served with",
                hint=f"unset it (the token stands in {self.token_file}), or flame undeploy first",
            )
        self.token_file.unlink(missing_ok=True)
        with os.fdopen(os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(given or secrets.token_urlsafe(32))

    # ------------------------------------------------------------------ the server

    def is_served(self) -> bool:
        """Whether a server is alive."""
        try:
            with (self.directory / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.directory / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        (self.directory / "served.json").unlink(missing_ok=True)
        order = [sys.executable, "-m", "flamepy.deploy.worker", os.fspath(self.directory), str(self._port)]
        with (self.directory / "server.log").open("wb") as log:
            return subprocess.Popen(order, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.directory)

    def _settled(self, order: int, started: subprocess.Popen[bytes] | None) -> dict[str, Any]:
        """What the server says of the wanted release, once it has an opinion."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            served = self.read("served.json")
            if served.get("order") == order:
                if "problem" in served:
                    raise PackageError(f"the release cannot be served: {served['problem']}", hint=f"see {self.directory / 'server.log'}")
                return served
            if started is not None and started.poll() is not None:
                tail = (self.directory / "server.log").read_text(errors="replace").strip()[-2000:]
                raise PackageError(f"the server of {self.directory.name} ended with status {started.returncode}:\n{tail}")
            time.sleep(_PAUSE)
        raise FlameError(f"{self.directory.name} was not served within {_SECONDS:.0f} s", hint=f"see {self.directory / 'server.log'}")

    def _stop(self) -> None:
        # A server has the lock before it has said who it is, and may end by itself.
        if not _until(lambda: self._holder().isdecimal() or not self.is_served(), 15.0):
            raise FlameError(f"a server of {self.directory} is alive, and has not said who it is", hint="try again in a moment")
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_served():
                return
            server = int(self._holder())
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, number)
            if _until(lambda: not self.is_served(), 15.0):
                with contextlib.suppress(ChildProcessError):  # somebody else's, who started it
                    os.waitpid(server, 0)
                return
        raise FlameError(f"process {self._holder()}, which serves {self.directory}, does not end")

    def _holder(self) -> str:
        """Process of the server that has the lock."""
        return (self.directory / "lock").read_text()


def _root(options: Mapping[str, str]) -> Path:
    if options.get("path"):
        return Path(options["path"]).expanduser().absolute()
    from flame_host import Host

    return Host().root / "deployments"


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(15.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file at once: whoever reads it sees the former or this."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
