"""What a Runner leaves at an engine while it is open: a claimed name, a published package, a registered application."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import logging
import os
import threading
from typing import TYPE_CHECKING

from flame_host.api import (
    Application,
    ApplicationExistsError,
    Capabilities,
    ConfigError,
    Connection,
    PackageRef,
    Plan,
    SessionState,
    Want,
    Wants,
    intersect_policies,
    negotiate,
    without_secrets,
)
from flamepy._calls import paths
from flamepy._package.project import is_interactive

if TYPE_CHECKING:
    from flamepy._client import Client
    from flamepy._config.settings import Settings
    from flamepy._package.shipment import Shipment
    from flamepy._runner.runner import Runner

_open_names: dict[tuple[str, str], Runner] = {}
_names_lock = threading.RLock()

logger = logging.getLogger("flamepy.runner")


def claim_name(endpoint: str, runner: Runner, undo: contextlib.ExitStack) -> None:
    """One Runner of a name at one engine in one program. In a REPL or notebook a cell that is run again replaces the earlier one."""
    claim = (endpoint, runner.name)
    with _names_lock:
        earlier = _open_names.get(claim)
        if earlier is not None and is_interactive():
            logger.warning("Runner %r was open already: the earlier one is closed, and its services with it", runner.name)
            earlier.close(wait=False)
        if claim in _open_names:
            raise ApplicationExistsError(
                f"a Runner named {runner.name!r} is open in this program already", hint="close it first, or choose another name"
            )
        _open_names[claim] = runner
    undo.callback(_open_names.pop, claim, None)


def with_storage(client: Client, settings: Settings, name: str) -> Settings:
    """Where nobody has said where packages go, the engine may, if its hosts do not see the files of this machine.

    Raises:
        ConfigError: nobody says it.
    """
    offered = client.connection.capabilities()
    if settings.storage or offered.sees_client_files:
        return settings
    if not offered.storage:
        raise ConfigError(
            f"no package storage is configured, and {client.connection.endpoint} cannot see this machine's own directories",
            hint="write  package: {storage: file:///shared/directory}  in flame.yaml, or set FLAME_STORAGE",
        )
    families = dict(settings.wants.families)
    families.setdefault("stores", Want((offered.storage.partition(":")[0].lower(),), f"the engine {client.connection.endpoint}"))
    base, question, options = offered.storage.partition("?")
    return dataclasses.replace(settings, storage=f"{base.rstrip('/')}/{name}/pkg{question}{options}", wants=Wants(families))


def agree(client: Client, settings: Settings, shipment: Shipment | None) -> Plan:
    """The plan of client and host, under the policies of both."""
    refuse_stranger()
    workers = _workers_capabilities(client, settings, shipment)
    return negotiate(client.stores.wants(settings), client.host.capabilities(), workers, policy_of(client, settings))


def policy_of(client: Client, settings: Settings) -> dict[str, str]:
    """What is denied by either side."""
    return intersect_policies(client.host.settings.policy, settings.policy)


def refuse_stranger() -> None:
    """Another distribution's ``flamepy`` shares our module's name: whichever was installed last has overwritten files of the other."""
    try:
        stranger = importlib.metadata.distribution("flamepy")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ConfigError(
        f"the distribution flamepy {stranger.version} is installed here; this module belongs to flame-host-sdk, and their files are mixed",
        hint="pip uninstall flamepy, then pip install --force-reinstall flame-host-sdk",
    )


def _workers_capabilities(client: Client, settings: Settings, shipment: Shipment | None) -> Capabilities:
    """The engine's, with the Python that the workers are to have: what needs the same one on both sides is refused by that."""
    offered = client.connection.capabilities()
    needs = shipment.needs.requirements if shipment is not None else None
    if offered.runs_in_process:
        if settings.dependencies or settings.python:
            left = [text for text in (*settings.dependencies, settings.python and f"Python {settings.python}") if text]
            logger.warning("the engine %s runs in this process and installs nothing: %s", client.connection.endpoint, ", ".join(left))
        return offered
    wanted = client.host.workers_python(settings.python or (needs.python if needs is not None else ""))
    if not wanted or not offered.python or wanted == offered.python:  # an engine may not know its own
        return offered
    origin = settings.origins.get("python") or f"the project ({needs.python if needs is not None else ''})"
    logger.warning(
        "workers get Python %s, by %s; this program runs on %s, so they exchange plain data only (run it on %s to send any object)",
        wanted, origin, offered.python, wanted,
    )  # fmt: skip
    return dataclasses.replace(offered, python=wanted)


@functools.cache
def is_to_install_anew() -> bool:
    """Whether this program was asked to; its workers, which have our variables, were not."""
    return os.environ.pop("FLAME_REFRESH", "0") not in ("", "0")


def install_anew(client: Client, name: str, settings: Settings) -> None:
    """The next environment of an application, whatever there is.

    Raises:
        ConfigError: it is not this process's host that installs.
    """
    if not client.connection.capabilities().provisions_here:
        raise ConfigError(
            f"environments can be installed anew on this machine only, and the engine is {without_secrets(settings.engine)}",
            hint="leave out --refresh, FLAME_REFRESH and refresh(environment=True); a changed requirement is another environment anyway",
        )
    client.host.refresh(name)


def python_of(settings: Settings, shipment: Shipment | None) -> str:
    """The Python that the host is asked for, beyond what it finds in the package: paths are ours to choose, and not a package's."""
    wanted = settings.python
    if not wanted and shipment is not None and os.sep in shipment.needs.requirements.python:
        wanted = shipment.needs.requirements.python
    return os.path.abspath(os.path.expanduser(wanted)) if os.sep in wanted else wanted.strip()


def publish(
    client: Client, name: str, shipment: Shipment, plan: Plan, settings: Settings, undo: contextlib.ExitStack, overwrite: bool
) -> PackageRef:
    """Pack the project and put it where the engine's hosts find it."""
    from flamepy._package.pack import pack_files
    from flamepy._package.sizes import amount, weigh

    total = weigh(shipment.base, shipment.files, settings.package_limit)
    with client.activity.of(f"{name}: packing {amount(total)} of {shipment.root}"):
        if not settings.storage and "archivers" not in settings.origins:  # hosts of this machine: nothing has to be one file
            package = client.host.keep_files(shipment.base, shipment.files, shipment.links, shipment.extra)
            paths.remember(package.digest, shipment.base)
            return package
        client.host.check_listing(shipment.files, shipment.links)
        archiver = client.host.catalog.archiver(plan.archiver)
        made = pack_files(shipment.base, shipment.files, archiver, client.host.root / "packs", shipment.extra)
    paths.remember(made.digest, shipment.base)
    if not settings.storage:  # it stands on this machine already, and another program may be using it
        return PackageRef(url=made.path.as_uri(), digest=made.digest, size=made.size, format=plan.archiver)
    store = client.host.catalog.store(plan.store)
    file = f"{name}-{made.digest[:16]}{archiver.suffixes[0]}"
    with client.activity.of(f"{name}: uploading {amount(made.size)} to {without_secrets(settings.storage)}"):
        url = store.publish(made.path, settings.storage, name=file, digest=made.digest, overwrite=overwrite)
    undo.callback(store.delete, url)
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


def stop_by_value(client: Client, name: str) -> None:
    """From now on no module is sent whole on account of this application."""
    modules = client.by_value_modules.pop(name, None)
    if modules is not None:
        modules.close()
