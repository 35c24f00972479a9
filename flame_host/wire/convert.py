"""Between the wire and `flame_host.api`: contexts into what the host's engines take, and the cluster's messages both ways."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flame_host.api import (
    Application,
    ApplicationState,
    Archiver,
    Capabilities,
    Capability,
    ConfigError,
    PackageRef,
    Plan,
    Resources,
    SessionInfo,
    SessionState,
    Shim,
)
from flame_host.wire.contexts import ApplicationContext

if TYPE_CHECKING:
    from flame_host.wire.envelope import SessionOrder
    from flame_host.wire.flame.v1 import types_pb2

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_INSTALLERS_OF_OLD = {"": "", "python": ""}
"""What clusters call an installer, and the name of ours; empty leaves it to the plan."""


def application_of(context: ApplicationContext, order: SessionOrder | None, archivers: Mapping[str, Archiver]) -> Application:
    """The application as the session's host is to register it.

    The wire has only a URL for the package; a client of ours says the rest in the session's common data, which then wins.

    Args:
        order: None for a client of another kind. archivers: on offer, to tell the format by the URL's suffix.

    Raises:
        ConfigError: the name or the installer is of no use.
    """
    if not _NAME.fullmatch(context.name) or ".." in context.name:
        raise ConfigError(f"{context.name!r} is no name for an application", hint="use letters, digits, '.', '_' and '-'")
    plan = order.plan if order else Plan()
    package = order.package if order else None
    if package is None and context.url:
        package = package_of(context.url, archivers)
        plan = _with_installer(plan, context.installer or "") if order is None else plan
    return Application(
        name=context.name,
        package=package,
        plan=plan,
        dependencies=order.dependencies if order else (),
        python_version=order.python_version if order else "",
        working_directory=context.working_directory or "",
        environments=order.environments if order else {},
        command=context.command or "",
    )


def package_of(url: str, archivers: Mapping[str, Archiver]) -> PackageRef:
    """What a bare URL tells of a package: its format by the longest suffix that fits, empty when none does.

    Size and digest come to be known when it is fetched.
    """
    name = url.partition("?")[0].partition("#")[0].lower()
    suffixes = {suffix: key for key, archiver in archivers.items() for suffix in archiver.suffixes}
    fitting = [suffix for suffix in suffixes if name.endswith(suffix)]
    return PackageRef(url, digest="", size=0, format=suffixes[max(fitting, key=len)] if fitting else "")


def _with_installer(plan: Plan, wanted: str) -> Plan:
    if wanted.lower() == "binary":
        raise ConfigError(
            "installer 'binary' is for programs that are their own application process",
            hint="register the application without an installer",
        )
    name = _INSTALLERS_OF_OLD.get(wanted.lower(), wanted)
    return Plan(**{**vars(plan), "installer": name}) if name else plan


# ---------------------------------------------------------------- what a registered host can do

CAPABILITIES_VARIABLE = "FLAME_HOST_CAPABILITIES"
"""The variable of a registered application that tells clients what its host can do; the cluster's API has no field for it."""


def capabilities_to_text(capabilities: Capabilities) -> str:
    """One line of JSON."""
    families = {
        family: [[offer.name, offer.version, sorted(offer.traits), offer.distribution] for offer in offers]
        for family, offers in capabilities.families.items()
    }
    return json.dumps({"python": capabilities.python, "platform": capabilities.platform, "families": families}, separators=(",", ":"))


def capabilities_from_text(text: str) -> Capabilities:
    """Raises `ConfigError` when it is not what `capabilities_to_text` writes."""
    try:
        told = json.loads(text)
        families = {
            str(family): tuple(Capability(name, version, frozenset(traits), distribution) for name, version, traits, distribution in offers)
            for family, offers in told["families"].items()
        }
        return Capabilities(families, python=told["python"], platform=told["platform"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "register it again with what  flame-host template  prints"
        raise ConfigError(f"{CAPABILITIES_VARIABLE} of the registered application is damaged: {error!r}", hint=hint) from error


# ---------------------------------------------------------------- messages of the frontend


def application_to_spec(application: Application) -> types_pb2.ApplicationSpec:
    """What registers it in a cluster; the package's digest and the plan travel with each session instead."""
    from flame_host.wire.flame.v1 import types_pb2

    spec = types_pb2.ApplicationSpec(
        shim=types_pb2.Shim.Name(application.shim),
        labels=application.labels,
        arguments=application.arguments,
        environments=[types_pb2.Environment(name=name, value=value) for name, value in application.environments.items()],
        max_instances=application.max_instances,
        delay_release=round(application.delay_release),
    )
    for name in ("description", "command", "working_directory"):
        if getattr(application, name):
            setattr(spec, name, getattr(application, name))
    if application.package is not None:
        spec.url = application.package.url
    return spec


def application_from_proto(message: types_pb2.Application, archivers: Mapping[str, Archiver]) -> Application:
    """An application a cluster knows."""
    spec = message.spec
    return Application(
        name=message.metadata.name,
        package=package_of(spec.url, archivers) if spec.url else None,
        working_directory=spec.working_directory,
        environments={pair.name: pair.value for pair in spec.environments},
        description=spec.description,
        labels=tuple(spec.labels),
        shim=Shim(spec.shim),
        command=spec.command,
        arguments=tuple(spec.arguments),
        max_instances=spec.max_instances if spec.HasField("max_instances") else Application.max_instances,
        delay_release=float(spec.delay_release) if spec.HasField("delay_release") else Application.delay_release,
        state=ApplicationState(message.status.state),
        creation_time=message.status.creation_time / 1000,
    )


def session_from_proto(message: types_pb2.Session) -> SessionInfo:
    status = message.status
    return SessionInfo(
        session_id=message.metadata.id,
        application=message.spec.application,
        state=SessionState(status.state),
        creation_time=status.creation_time / 1000,
        completion_time=status.completion_time / 1000 if status.HasField("completion_time") else None,
        pending=status.pending,
        running=status.running,
        succeeded=status.succeed,
        failed=status.failed,
        cancelled=status.cancelled,
    )


def session_to_proto(info: SessionInfo) -> types_pb2.Session:
    from flame_host.wire.flame.v1 import types_pb2

    status = types_pb2.SessionStatus(
        state=types_pb2.SessionState.Name(info.state),
        creation_time=round(info.creation_time * 1000),
        pending=info.pending,
        running=info.running,
        succeed=info.succeeded,
        failed=info.failed,
        cancelled=info.cancelled,
    )
    if info.completion_time is not None:
        status.completion_time = round(info.completion_time * 1000)
    return types_pb2.Session(
        metadata=types_pb2.Metadata(id=info.session_id, name=info.session_id),
        spec=types_pb2.SessionSpec(application=info.application),
        status=status,
    )


def resources_to_proto(resources: Resources) -> types_pb2.ResourceRequirement:
    from flame_host.wire.flame.v1 import types_pb2

    return types_pb2.ResourceRequirement(cpu=math.ceil(resources.cpu), memory=resources.memory, gpu=resources.gpu)


def resources_from_proto(message: types_pb2.ResourceRequirement) -> Resources:
    return Resources(cpu=message.cpu, memory=message.memory, gpu=message.gpu)
