"""What can be known of a name without running the program."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Union

REMOTE = "flamepy.remote"
RESOURCE_TYPES = ("CpuLiveServerless", "CpuResource", "GpuResource", "LiveServerless", "Resource")
OUR_NAMES = ("remote", *RESOURCE_TYPES)
_OUR_MODULES = ("flamepy", "flamepy._remote.decorator", "flamepy._remote.resources")


@dataclass(frozen=True)
class External:
    """Something from outside of the project, by its dotted path."""

    path: str

    @property
    def is_remote(self) -> bool:
        return self.path == REMOTE

    def attribute(self, name: str) -> External:
        return external(f"{self.path}.{name}")


def external(path: str) -> External:
    """One of ours has one path, wherever it was imported from."""
    module, _, name = path.rpartition(".")
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
    """

    entries: Mapping[Any, Value]
    kind: str
    spoiled: str = ""


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


@dataclass(frozen=True, eq=False)
class ResourceValue:
    """A resource made by a call that can be read.

    Attributes:
        base: which of our types it is, or is derived from.
        settings: keyword → value; what could not be read is `Unknown`. texts: keyword → how it is written.
    """

    type_name: str
    base: str
    settings: Mapping[str, Value]
    texts: Mapping[str, str]
    file: str
    line: int


@dataclass(frozen=True, eq=False)
class DecoratorValue:
    """``remote(…)``, not yet put on anything. ``resource`` is None for the default one."""

    resource: Value | None
    options: Mapping[str, Value]
    line: int
    node: ast.AST | None = None


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
    External, ProjectModule, Constant, Collection, Unknown, Definition, ResourceValue, DecoratorValue, RemoteValue
]  # fmt: skip


def is_ours(value: Value | None) -> bool:
    """Whether what follows from it could be an endpoint: the decorator itself, or one that was given a resource."""
    return isinstance(value, DecoratorValue) or (isinstance(value, External) and value.is_remote)


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
        return name if module == "flamepy" and name in RESOURCE_TYPES else None
    if isinstance(value, Definition) and isinstance(value.node, ast.ClassDef):
        return next((found for base in value.bases if (found := resource_type_of(base))), None)
    return None


def plain(value: Value) -> Any:
    """The Python value, with None for what is unknown inside a collection; raises LookupError when the whole is unknown."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Collection) and value.spoiled:
        raise LookupError(value.spoiled)
    if isinstance(value, Collection):
        entries = {key: None if isinstance(entry, Unknown) else plain(entry) for key, entry in value.entries.items()}
        return entries if value.kind == "dict" else tuple(entries.values()) if value.kind == "tuple" else list(entries.values())
    raise LookupError(value.why if isinstance(value, Unknown) else "it is not plain data")


def is_known(value: Value) -> bool:
    """Whether it is plain data through and through."""
    if isinstance(value, Collection):
        return not value.spoiled and all(is_known(entry) for entry in value.entries.values())
    return isinstance(value, Constant)
