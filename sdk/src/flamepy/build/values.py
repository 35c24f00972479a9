"""What can be known of a name without running the program."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Union

from flamepy.flash.names import IMPORT_NAMES

_FLASH_TYPES = (
    "CpuLiveLoadBalancer", "CpuLiveServerless", "CpuLoadBalancerSlsResource", "CpuServerlessEndpoint",
    "LiveLoadBalancer", "LiveServerless", "LoadBalancerSlsResource", "ServerlessEndpoint",
)  # fmt: skip
RESOURCE_TYPES = ("CpuResource", "GpuResource", "Resource", *_FLASH_TYPES)
HARDWARE = ("CpuInstanceType", "CudaVersion", "DataCenter", "GpuGroup", "GpuType", "ServerlessScalerType", "ServerlessType")
SETTINGS = ("NetworkVolume", "PodTemplate")
FLASH_NAMES = frozenset(
    [
        *_FLASH_TYPES, *HARDWARE, *SETTINGS, "CPU_DATACENTERS", "DEFAULT_WORKERS_MAX", "DEFAULT_WORKERS_MIN", "Endpoint", "EndpointJob",
        "FlashApp", "ResourceManager", "load_dotenv", "remote",
    ]
)  # fmt: skip
FLASH_KEYWORDS = frozenset(
    [
        "accelerate_downloads", "activeBuildid", "aiKey", "allowedCudaVersions", "computeType", "cpu", "createdAt", "cudaVersions",
        "datacenter", "dependencies", "env", "executionTimeoutMs", "execution_timeout_ms", "flashBootType", "flashEnvironmentId",
        "flashboot", "gpu", "gpuCount", "gpuIds", "gpu_count", "gpus", "hubRelease", "id", "idleTimeout", "idle_timeout", "image",
        "imageName", "instanceIds", "locations", "max_concurrency", "minCudaVersion", "min_cuda_version", "name", "networkVolume",
        "networkVolumeId", "networkVolumes", "python_version", "repo", "scalerType", "scalerValue", "scaler_type", "scaler_value",
        "system_dependencies", "template", "templateId", "type", "userId", "volume", "workers", "workersMax", "workersMin",
        "workersPFBTarget",
    ]
)  # fmt: skip
"""Keywords of its resources and of ``Endpoint``."""
OUR_NAMES = ("remote", "CpuLiveServerless", "CpuResource", "GpuResource", "LiveServerless", "Resource")
_OUR_MODULES = ("flamepy", "flamepy._remote.decorator", "flamepy._remote.resources")
FLASH = "flamepy.flash"
REMOTE = ("flamepy.remote", f"{FLASH}.remote")
ENDPOINT = f"{FLASH}.Endpoint"
HTTP_METHODS = {"get": "GET", "post": "POST", "put": "PUT", "delete": "DELETE", "patch": "PATCH"}


@dataclass(frozen=True)
class External:
    """Something from outside of the project, by its dotted path."""

    path: str

    @property
    def is_remote(self) -> bool:
        return self.path in REMOTE

    @property
    def flash_name(self) -> str:
        """Which of the names of RunPod Flash it is; empty if none."""
        return self.path.removeprefix(f"{FLASH}.") if self.path.startswith(f"{FLASH}.") else ""

    def attribute(self, name: str) -> External:
        return external(f"{self.path}.{name}")


def of_flash(path: str) -> bool:
    """Whether a module or name belongs to RunPod Flash, or stands for it."""
    return path.partition(".")[0] in IMPORT_NAMES or path == FLASH or path.startswith(f"{FLASH}.")


def external(path: str) -> External:
    """One of ours has one path, wherever it was imported from."""
    module, _, name = path.rpartition(".")
    if of_flash(module) and name in FLASH_NAMES:
        return External(f"{FLASH}.{name}")
    return External(f"flamepy.{name}") if module in _OUR_MODULES and name in OUR_NAMES else External(path)


@dataclass(frozen=True)
class ProjectModule:
    """A module of the project, by its name."""

    name: str


@dataclass(frozen=True)
class Constant:
    value: Any


@dataclass(eq=False)
class Collection:
    """A list, tuple or dict display; a list is keyed by position.

    Attributes:
        spoiled: what the program does to it afterwards, so that its entries cannot be relied on.
        later: keys that the program adds or changes afterwards.
    """

    entries: Mapping[Any, Value]
    kind: str
    spoiled: str = ""
    later: dict[Any, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentValue:
    """What the environment says where the program runs.

    Attributes:
        default: used where it says nothing; None without one.
    """

    variable: str
    default: Value | None = None


@dataclass(frozen=True)
class Unknown:
    """Nothing can be said, or nothing for certain.

    Attributes:
        why: completes the sentence "it cannot be resolved: …".
        ours: it may be the decorator.
    """

    why: str
    ours: bool = False


@dataclass(frozen=True, eq=False)
class Definition:
    """A function or class of the project.

    Attributes:
        attributes: of a class, what its body binds.
    """

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    module: str
    qualname: str
    attributes: dict[str, Value] = field(default_factory=dict)
    bases: tuple[Value, ...] = ()


@dataclass(eq=False)
class ResourceValue:
    """A resource made by a call that can be read.

    Attributes:
        base: which of our types it is, or is derived from.
        settings: keyword → value; what could not be read is `Unknown`. texts: keyword → how it is written.
        variable: the first name it was bound to. used: whether a function is on it, or it is a client.
    """

    type_name: str
    base: str
    settings: Mapping[str, Value]
    texts: Mapping[str, str]
    file: str
    line: int
    variable: str = ""
    used: bool = False

    @property
    def is_endpoint(self) -> bool:
        """Whether it is an ``Endpoint``, which is a decorator as well."""
        return self.base == "EndpointResource"

    @property
    def is_client(self) -> bool:
        """Whether it stands for code that is not of this program."""
        return self.is_endpoint and any(key in self.settings and self.settings[key] != Constant(None) for key in ("id", "image"))


@dataclass(frozen=True, eq=False)
class RouteMaker:
    """``endpoint.get`` and the like: called with a path, it gives a decorator."""

    resource: ResourceValue
    method: str


@dataclass(frozen=True, eq=False)
class DecoratorValue:
    """``remote(…)``, not yet put on anything. ``resource`` is None for the default one."""

    resource: Value | None
    options: Mapping[str, Value]
    line: int
    node: ast.AST | None = None

    @property
    def has_route(self) -> bool:
        return any(key in self.options and self.options[key] != Constant(None) for key in ("method", "path"))


@dataclass(eq=False)
class RemoteValue:
    """A function or class with the decorator on it.

    Attributes:
        name: that it has in its module; empty until it is bound to one.
    """

    definition: Definition
    decorator: DecoratorValue
    line: int
    name: str = ""
    conditional: str = ""


Value: TypeAlias = Union[
    External, ProjectModule, Constant, Collection, EnvironmentValue, Unknown, Definition, ResourceValue, RouteMaker, DecoratorValue,
    RemoteValue,
]  # fmt: skip


def is_ours(value: Value | None) -> bool:
    """Whether what follows from it could be an endpoint: the decorator itself, or one that was given a resource."""
    return isinstance(value, (DecoratorValue, RouteMaker)) or (isinstance(value, External) and value.is_remote)


def either(why: str, *values: Value | None) -> Unknown:
    """One of several values, and nobody knows which."""
    return Unknown(why, any(is_ours(value) or (isinstance(value, Unknown) and value.ours) for value in values))


def entries_of(value: Value, kind: str = "") -> Mapping[Any, Value] | None:
    """Entries of a collection (of that kind) that nothing changes after it was made."""
    if not isinstance(value, Collection) or value.spoiled or kind not in ("", value.kind):
        return None
    return value.entries


def resource_type_of(value: Value) -> str | None:
    """Name of the base type if a call of this makes a resource: one of ours, or a class of the project derived from one."""
    if isinstance(value, External):
        module, _, name = value.path.rpartition(".")
        if value.path == ENDPOINT:
            return "EndpointResource"
        return name if module in ("flamepy", FLASH) and name in RESOURCE_TYPES else None
    if isinstance(value, Definition) and isinstance(value.node, ast.ClassDef):
        return next((found for base in value.bases if (found := resource_type_of(base))), None)
    return None


def plain(value: Value) -> Any:
    """The Python value, with None for what is unknown inside a collection; raises LookupError when the whole is unknown."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, EnvironmentValue):
        if value.default is None:
            raise LookupError(f"it is what the variable {value.variable} holds where the program runs, and has no default")
        return plain(value.default)
    if isinstance(value, Collection) and value.spoiled:
        raise LookupError(value.spoiled)
    if isinstance(value, Collection):
        entries = {key: _plain_or_none(entry) for key, entry in value.entries.items()}
        return entries if value.kind == "dict" else tuple(entries.values()) if value.kind == "tuple" else list(entries.values())
    raise LookupError(value.why if isinstance(value, Unknown) else "it is not plain data")


def _plain_or_none(value: Value) -> Any:
    try:
        return plain(value)
    except LookupError:
        return None


def is_known(value: Value) -> bool:
    """Whether it is plain data through and through."""
    if isinstance(value, Collection):
        return not value.spoiled and all(is_known(entry) for entry in value.entries.values())
    if isinstance(value, EnvironmentValue):
        return value.default is not None and is_known(value.default)
    return isinstance(value, Constant)
