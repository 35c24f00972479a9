"""Applications in the cluster's words and in ours.

A cluster knows an application's command, its variables and the URL of its package. What a session needs besides (digest, plan,
dependencies) stands in a variable of the application, so that other programs can open sessions of it, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

from flame_engine_flame.endpoint import TEMPLATE_VARIABLE
from flame_host.api import Application, ApplicationError, Capabilities, Capability, ConfigError, PackageRef, Plan, parse_policy
from flame_host.wire.convert import CAPABILITIES_VARIABLE, application_from_proto, application_to_spec, capabilities_from_text
from flame_host.wire.flame.v1 import types_pb2

FACTS_VARIABLE = "FLAME_HOST_APPLICATION"
STOCK = "flmrun"
"""The runner every cluster brings; where our host is the template, sessions of this name are our host's."""
OURS = "flame-host"
_STOCK_MODULE = "flamepy.runner"


class Served(Enum):
    """Who runs an application's sessions."""

    OURS = "our host"
    STOCK = "the cluster's own runner"
    OTHER = "a program of its own"


def served_by(message: types_pb2.Application) -> Served:
    spec = message.spec
    if any(pair.name == CAPABILITIES_VARIABLE for pair in spec.environments):
        return Served.OURS
    return Served.STOCK if any(_STOCK_MODULE in word for word in spec.arguments) else Served.OTHER


def spec_of(application: Application, template: types_pb2.Application) -> types_pb2.ApplicationSpec:
    """What registers an application: made after a template, unless it brings a command of its own.

    Raises:
        ConfigError: the template's runner cannot do what the application needs.
    """
    if application.command and application.command != template.spec.command:
        return application_to_spec(application)
    served = served_by(template)
    if served is Served.STOCK:
        _check_stock(application)
    made = application_to_spec(_after(application, template))
    if served is Served.STOCK:
        made.installer = template.spec.installer or "python"
        return made
    variables = {FACTS_VARIABLE: _facts(application), TEMPLATE_VARIABLE: template.metadata.name}
    made.environments.extend(types_pb2.Environment(name=name, value=value) for name, value in variables.items())
    return made


def _after(application: Application, template: types_pb2.Application) -> Application:
    spec = template.spec
    variables = {pair.name: pair.value for pair in spec.environments}
    return replace(
        application,
        command=spec.command,
        arguments=tuple(spec.arguments),
        environments={**variables, **{name: value for name, value in application.environments.items() if name != FACTS_VARIABLE}},
        labels=application.labels or tuple(spec.labels),
        max_instances=min(application.max_instances, spec.max_instances or application.max_instances),
        working_directory=application.working_directory or spec.working_directory,
        delay_release=float(spec.delay_release) if spec.HasField("delay_release") else application.delay_release,
    )


def _check_stock(application: Application) -> None:
    if application.dependencies:
        raise ConfigError(
            f"dependencies={list(application.dependencies)!r}: the cluster's own runner ({STOCK}) installs what the project names",
            hint=f"write them into pyproject.toml, or register our host ({OURS}) in the cluster: docs/how-to/run-on-flame.md",
        )
    if application.package is not None and application.package.format not in ("tar.gz", "zip"):
        raise ConfigError(
            f"an archive of {application.package.format}: nodes of a cluster unpack tar.gz and zip", hint='write archivers=["tar.gz"]'
        )


def _facts(application: Application) -> str:
    facts = {
        "package": asdict(application.package) if application.package else None,
        "plan": {**vars(application.plan), "policy": dict(application.plan.policy)},
        "dependencies": application.dependencies,
        "python_version": application.python_version,
        "environments": sorted(application.environments),
    }
    return json.dumps(facts, separators=(",", ":"))


def application_of(message: types_pb2.Application) -> Application:
    """An application the cluster knows, with what we wrote down of it.

    Raises:
        ApplicationError: what was written down is damaged.
    """
    application = application_from_proto(message, {})
    text = application.environments.get(FACTS_VARIABLE)
    if text is None:
        if served_by(message) is Served.OURS:
            capabilities = capabilities_of(message)
            return replace(application, plan=_plan_of(capabilities))
        return application
    try:
        facts = json.loads(text)
        plan = facts["plan"]
        own = set(facts["environments"])
        return replace(
            application,
            package=PackageRef(**facts["package"]) if facts["package"] else None,
            plan=Plan(
                **{**plan, "serializers": tuple(plan["serializers"]), "policy": parse_policy(plan["policy"], "the application's policy")}
            ),
            dependencies=tuple(facts["dependencies"]),
            python_version=str(facts["python_version"]),
            environments={name: value for name, value in application.environments.items() if name in own},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApplicationError(
            f"what {FACTS_VARIABLE} of application {application.name!r} tells is damaged: {error!r}", hint="register it again"
        ) from error


def _plan_of(capabilities: Capabilities) -> Plan:
    """For sessions of a template itself, which have no Runner that has agreed on one."""

    def first(family: str, preferred: str) -> str:
        names = [offer.name for offer in capabilities.of(family)]
        return preferred if preferred in names or not names else names[0]

    defaults = Plan()
    serializers = tuple(f"{offer.name}/{offer.version}" for offer in capabilities.of("serializers"))
    preferred = tuple(sorted(serializers, key=lambda name: name not in defaults.serializers)) or defaults.serializers
    return Plan(installer=first("installers", defaults.installer), cache=first("caches", defaults.cache), serializers=preferred)


def capabilities_of(template: types_pb2.Application) -> Capabilities:
    """What sessions of an application made after a template can do.

    Raises:
        ConfigError: it is a template of neither kind.
    """
    served = served_by(template)
    variables: Mapping[str, str] = {pair.name: pair.value for pair in template.spec.environments}
    if served is Served.OURS:
        return capabilities_from_text(variables[CAPABILITIES_VARIABLE])
    if served is Served.OTHER:
        raise ConfigError(
            f"the application {template.metadata.name!r} of the cluster runs neither our host nor the cluster's own runner",
            hint=f"name another under  runner: {{template: …}}  in flame.yaml, or register our host:  flame-host template --name {OURS}",
        )
    return _STOCK_CAPABILITIES


def _offers(*names: str, **more: Any) -> tuple[Capability, ...]:
    return tuple(Capability(name, distribution="flame", **more) for name in names)


_STOCK_CAPABILITIES = Capabilities(
    {
        "stores": _offers("grpc", "grpcs", "file", "http", "https"),
        "archivers": _offers("tar.gz", "zip"),
        "installers": _offers("python"),
        "serializers": _offers("cloudpickle", traits=frozenset({"executes-code"})),
        "caches": _offers("flight"),
    }
)
"""The cluster's own runner, as its nodes (0.6) read packages and tasks; which Python it is cannot be known from here."""
