"""What a Runner leaves at an engine while it is open: a claimed name, a published package, a registered application."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from flame_host.api import (
    Application,
    ApplicationExistsError,
    Capabilities,
    Connection,
    PackageRef,
    Plan,
    SessionState,
    intersect_policies,
    negotiate,
)

if TYPE_CHECKING:
    from flamepy._client import Client
    from flamepy._config.settings import Settings

_open_names: set[tuple[str, str]] = set()
_names_lock = threading.Lock()


def claim_name(endpoint: str, name: str, undo: contextlib.ExitStack) -> None:
    """One Runner of a name at one engine in one program."""
    claim = (endpoint, name)
    with _names_lock:
        if claim in _open_names:
            raise ApplicationExistsError(
                f"a Runner named {name!r} is open in this program already", hint="close it first, or choose another name"
            )
        _open_names.add(claim)
    undo.callback(_open_names.discard, claim)


def agree(client: Client, settings: Settings) -> Plan:
    """The plan of client and host, under the policies of both."""
    policy = intersect_policies(client.host.settings.policy, settings.policy)
    return negotiate(settings.wants, client.host.capabilities(), _workers_capabilities(client, settings), policy)


def _workers_capabilities(client: Client, settings: Settings) -> Capabilities:
    """The engine's, with the Python that the workers are to have: what needs the same one on both sides is refused by that."""
    offered = client.connection.capabilities()
    wanted = re.match(r"(?:python)?(\d+\.\d+)", settings.python)
    if wanted is None or settings.engine.startswith("inline"):  # which has no workers, and runs here
        return offered
    return dataclasses.replace(offered, python=wanted[1])


def publish(
    client: Client, name: str, project: Path, plan: Plan, settings: Settings, undo: contextlib.ExitStack, overwrite: bool
) -> PackageRef:
    """Pack the project and put it where the engine's hosts find it."""
    from flamepy._package.pack import pack

    archiver = client.host.catalog.archiver(plan.archiver)
    made = pack(project, archiver, client.host.root / "packs", excludes=settings.excludes, includes=settings.includes)
    if settings.storage:
        store = client.host.catalog.store(plan.store)
        file = f"{name}-{made.digest[:16]}{archiver.suffixes[0]}"
        url = store.publish(made.path, settings.storage, name=file, digest=made.digest, overwrite=overwrite)
        undo.callback(store.delete, url)
    else:  # it stands on this machine already, and another program may be using it
        url = made.path.as_uri()
    return PackageRef(url=url, digest=made.digest, size=made.size, format=plan.archiver)


def register(client: Client, application: Application, undo: contextlib.ExitStack, *, fail_if_exists: bool, overwrite: bool) -> Application:
    """Make it known to the engine; or find the same one there, which is then somebody else's to remove."""
    connection = client.connection
    there = connection.get_application(application.name)
    if there is not None:
        same = there.package == application.package and there.dependencies == application.dependencies
        if fail_if_exists or not (same or overwrite):
            raise ApplicationExistsError(
                f"application {application.name!r} is registered already" + ("" if same else ", with another package"),
                hint="choose another name, or Runner(overwrite=True) to replace it",
            )
        if same:
            return there
        connection.unregister_application(application.name)
    connection.register_application(application)
    undo.callback(_unregister, connection, application.name)
    return application


def _unregister(connection: Connection, name: str) -> None:
    """Sessions that were opened by the application's name go with it."""
    for session in connection.list_sessions():
        if session.application == name and session.state is SessionState.OPEN:
            connection.close_session(session.session_id)
    connection.unregister_application(name)


def stop_travelling(client: Client, name: str) -> None:
    travelling = client.travelling.pop(name, None)
    if travelling is not None:
        travelling.close()
