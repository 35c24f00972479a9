"""Evaluating the expressions that decorators and resources are written in."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flamepy.build.changes import MUTATORS
from flamepy.build.data import DataEvaluator, because, text_of
from flamepy.build.errors import Problem
from flamepy.build.modules import SourceModule
from flamepy.build.values import (
    ENDPOINT,
    FLASH_KEYWORDS,
    HARDWARE,
    HTTP_METHODS,
    SETTINGS,
    Collection,
    Constant,
    DecoratorValue,
    Definition,
    EnvironmentValue,
    External,
    ProjectModule,
    RemoteValue,
    ResourceValue,
    RouteMaker,
    Unknown,
    Value,
    either,
    entries_of,
    is_ours,
    resource_type_of,
)
from flamepy.flash import hardware

POSITIONAL = ("name", "cpu", "gpu", "memory", "workers", "env", "dependencies", "system_dependencies", "options", "max_concurrency")
_OPTIONS = ("dependencies", "system_dependencies", "local")
_FLASH_OPTIONS = ("dependencies", "system_dependencies", "accelerate_downloads", "local", "method", "path")
_CLIENT_METHODS = ("run", "runsync", "status", "cancel")
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"int": int, "str": str, "float": float, "bool": bool}
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Program(Protocol):
    """The project as far as expressions need it."""

    def member(self, module: str, name: str) -> Value:
        """What a module of the project binds a name to."""
        ...

    def public_members(self, module: str) -> Mapping[str, Value]:
        """What ``from module import *`` brings."""
        ...

    def has_module(self, name: str) -> bool: ...

    def called(self, definition: Definition, given: Mapping[str, Value]) -> Value | None:
        """What a function of the project returns for these arguments; None if that takes more than reading its body from top to end."""
        ...


class Evaluator(DataEvaluator):
    """Evaluates expressions of one module, and notes what they say about endpoints.

    Attributes:
        problems: what looks like ours and cannot be resolved.
        seen: nodes that mean the decorator. understood: those of them whose use was understood.
        made: every function or class that got the decorator.
        resources: every resource that was made. notes: what the user should know, although it is no error.
    """

    def __init__(self, module: SourceModule, program: Program) -> None:
        self.module = module
        self.program = program
        self.problems: list[Problem] = []
        self.understood: set[ast.AST] = set()
        self.seen: set[ast.expr] = set()
        self.made: list[RemoteValue] = []
        self.resources: list[ResourceValue] = []
        self.notes: list[str] = []

    def note(self, node: ast.AST, message: str) -> None:
        self.notes.append(f"{self.module.file}:{getattr(node, 'lineno', 0)}: {message}")

    def problem(self, node: ast.AST, message: str) -> None:
        self.problems.append(Problem(self.module.file, getattr(node, "lineno", 0), message))

    def evaluate(self, node: ast.expr, names: Mapping[str, Value]) -> Value:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        value: Value
        if method:
            value = method(node, names)
        else:
            if not isinstance(node, _SCOPES):
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self.evaluate(part, names)
            value = Unknown(f"{text_of(node)} is not something that can be read without running it")
        if is_ours(value):
            self.seen.add(node)
        return value

    def use(self, value: Value, node: ast.AST) -> None:
        """What the node means is put on something, called, or kept under a name."""
        self.understood.add(node)
        if isinstance(value, DecoratorValue) and value.node is not None:
            self.understood.add(value.node)

    def report_unused(self) -> None:
        """Note a problem wherever the decorator was met and nothing became of it."""
        for node in self.seen - self.understood:
            self.problem(node, unresolved(node))

    # ------------------------------------------------------------------ names

    def _name(self, node: ast.Name, names: Mapping[str, Value]) -> Value:
        return names.get(node.id) or Unknown(f"{node.id} is not bound at the top of this module by then")

    def _attribute(self, node: ast.Attribute, names: Mapping[str, Value]) -> Value:
        value = self.evaluate(node.value, names)
        if isinstance(value, External):
            return self._member(value, node)
        if isinstance(value, ResourceValue) and value.is_endpoint and not value.is_client:
            if node.attr in HTTP_METHODS:
                return RouteMaker(value, HTTP_METHODS[node.attr])
            value.used = value.used or node.attr in _CLIENT_METHODS
        if isinstance(value, ProjectModule):
            return self.program.member(value.name, node.attr)
        if isinstance(value, Definition) and node.attr in value.attributes:
            return value.attributes[node.attr]
        if isinstance(value, ResourceValue) and node.attr in value.settings:
            return value.settings[node.attr]
        return because(value, node)

    def _member(self, value: External, node: ast.Attribute) -> Value:
        """Of a module, or of one of the lists of hardware, whose values are written here as the platform knows them."""
        if value.flash_name not in HARDWARE or node.attr.startswith("_") or node.attr == "all":
            return value.attribute(node.attr)
        listed = getattr(hardware, value.flash_name)
        if node.attr not in listed.__members__:
            self.note(node, f"{value.flash_name}.{node.attr} is not known to this version, and is passed on as it is written")
        return Constant(getattr(listed, node.attr).value)

    def _boolop(self, node: ast.BoolOp, names: Mapping[str, Value]) -> Value:
        """``os.environ.get("X") or "default"``."""
        first, *others = [self.evaluate(value, names) for value in node.values]
        if isinstance(node.op, ast.Or) and isinstance(first, EnvironmentValue) and len(others) == 1:
            return EnvironmentValue(first.variable, others[0])
        return Unknown(f"{text_of(node)} is not something that can be read without running it")

    def _subscript(self, node: ast.Subscript, names: Mapping[str, Value]) -> Value:
        value, key = self.evaluate(node.value, names), self.evaluate(node.slice, names)
        if isinstance(value, External) and value.path == "os.environ" and isinstance(key, Constant):
            return EnvironmentValue(str(key.value))
        if isinstance(value, Collection) and value.spoiled:
            return either(value.spoiled, *value.entries.values())
        if isinstance(value, Collection) and isinstance(key, Constant) and key.value in value.entries:
            return value.entries[key.value]
        return (
            because(value, node)
            if not isinstance(value, Collection)
            else either(f"{text_of(node)} has no known key", *value.entries.values())
        )

    # ------------------------------------------------------------------ calls

    def _call(self, node: ast.Call, names: Mapping[str, Value]) -> Value:
        function = self.evaluate(node.func, names)
        if isinstance(function, External) and function.is_remote:
            self.use(function, node.func)
            return self._remote(node, function, names)
        if isinstance(function, RouteMaker):
            self.use(function, node.func)
            return self._route(node, function, names)
        if isinstance(function, ResourceValue) and function.is_endpoint:
            function = self.as_decorator(function, node.func)
        if isinstance(function, DecoratorValue):
            self.use(function, node.func)
            return self._decorated(node, function, names)
        if isinstance(function, Unknown) and function.ours:
            self.problem(node, f"{text_of(node.func)} may be @remote of flamepy, and cannot be resolved: {function.why}")
        if resource_type_of(function) is not None:
            return self._resource(node, function, names)
        if isinstance(function, External) and function.flash_name in SETTINGS:
            given = self._arguments(node, (), names)
            return Unknown(f"the arguments of {text_of(node)} cannot be read") if given is None else Collection(given, "dict")
        return self._imported(node, function, names)

    def _remote(self, node: ast.Call, function: External, names: Mapping[str, Value]) -> Value:
        options = _FLASH_OPTIONS if function.flash_name else _OPTIONS
        given = self._arguments(node, ("resource_config", *(options[:2] if function.flash_name else ())), names)
        if given is None:
            return DecoratorValue(Unknown(f"the arguments of {text_of(node)} cannot be read"), {}, node.lineno, node)
        resource = given.pop("resource_config", None)
        if isinstance(resource, Definition):
            return self._put_on(resource, DecoratorValue(None, {}, node.lineno), node)
        for name in sorted(given.keys() - set(options)):
            if function.flash_name:
                self.note(node, f"remote(…, {name}=…) is not known to this version; it is left out")
            else:
                self.problem(node, f"remote() has no argument {name!r}; it has: resource_config, {', '.join(_OPTIONS)}")
        if isinstance(resource, Constant) and resource.value is None:
            resource = None
        if isinstance(resource, (External, ProjectModule)):
            resource = Unknown(f"{text_of(node.args[0] if node.args else node)} is not a resource of this project that can be seen")
        return DecoratorValue(resource, given, node.lineno, node)

    def _route(self, node: ast.Call, maker: RouteMaker, names: Mapping[str, Value]) -> Value:
        given = self._arguments(node, ("path",), names)
        if given is None or given.keys() != {"path"}:
            self.problem(node, f"{text_of(node)} is a route, and takes its path only")
        path = (given or {}).get("path", Unknown("it has none"))
        maker.resource.used = True
        return DecoratorValue(maker.resource, {"method": Constant(maker.method), "path": path}, node.lineno, node)

    def as_decorator(self, value: Value, node: ast.expr) -> Value:
        """An ``Endpoint`` in a decorator's place."""
        if not isinstance(value, ResourceValue) or not value.is_endpoint:
            return value
        if value.is_client:
            self.problem(node, f"{text_of(node)} is a client of something that is deployed elsewhere, and cannot decorate")
            return Unknown("it is a client")
        value.used = True
        return DecoratorValue(value, {}, getattr(node, "lineno", 0), node)

    def _decorated(self, node: ast.Call, decorator: DecoratorValue, names: Mapping[str, Value]) -> Value:
        target = self.evaluate(node.args[0], names) if len(node.args) == 1 and not node.keywords else Unknown("")
        if not isinstance(target, Definition):
            shown = text_of(node.args[0]) if node.args else "()"
            self.problem(node, f"@remote is put on {shown}, which is no function or class of this project that can be seen")
            return Unknown("it is no function of this project")
        return self._put_on(target, decorator, node)

    def _put_on(self, definition: Definition, decorator: DecoratorValue, node: ast.AST) -> RemoteValue:
        made = RemoteValue(definition, decorator, getattr(node, "lineno", 0))
        self.made.append(made)
        return made

    def put_decorator_on(self, definition: Definition, value: Value, name: str, node: ast.expr) -> RemoteValue:
        """``@remote`` or ``@remote(…)`` above a definition."""
        self.use(value, node)
        decorator = value if isinstance(value, DecoratorValue) else DecoratorValue(None, {}, node.lineno)
        made = self._put_on(definition, decorator, node)
        made.name = name
        return made

    def _resource(self, node: ast.Call, function: Value, names: Mapping[str, Value]) -> Value:
        base = resource_type_of(function) or "Resource"
        type_name = function.node.name if isinstance(function, Definition) else "Endpoint" if base == "EndpointResource" else base
        given = self._arguments(node, POSITIONAL if base in ("Resource", "GpuResource", "CpuResource") else ("name",), names)
        texts = {keyword.arg: text_of(keyword.value) for keyword in node.keywords if keyword.arg}
        if given is None:
            if base != "EndpointResource":
                return Unknown(f"the arguments of {text_of(node)} cannot be read")
            given = {"name": Unknown(f"the arguments of {text_of(node)} cannot be read")}
        made = ResourceValue(type_name, base, given, texts, self.module.file, node.lineno)
        self.resources.append(made)
        if base not in ("Resource", "GpuResource", "CpuResource"):
            unknown = sorted(given.keys() - FLASH_KEYWORDS - set(POSITIONAL))
            if unknown:
                self.note(node, f"{type_name}(…) is given what is not known to this version, and passed on: {', '.join(unknown)}")
        return made

    def _imported(self, node: ast.Call, function: Value, names: Mapping[str, Value]) -> Value:
        """``getattr(flamepy, "remote")`` and ``importlib.import_module("flamepy")`` are but long ways to write it."""
        values = [self.evaluate(argument, names) for argument in [*node.args, *(keyword.value for keyword in node.keywords)]]
        self._spoil(node, function, values, names)
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and "getattr" not in names and len(values) == 2:
            owner, key = values
            if isinstance(owner, External) and isinstance(key, Constant):
                return owner.attribute(str(key.value))
        loads = isinstance(function, External) and function.path == "importlib.import_module"
        loads = loads or (isinstance(node.func, ast.Name) and node.func.id == "__import__")
        if loads and len(values) == 1 and isinstance(values[0], Constant) and isinstance(values[0].value, str):
            name = values[0].value
            return ProjectModule(name) if self.program.has_module(name) else External(name)
        read = isinstance(function, External) and function.path in ("os.environ.get", "os.getenv")
        if read and values and isinstance(values[0], Constant):
            return EnvironmentValue(str(values[0].value), values[1] if len(values) > 1 else None)
        if isinstance(node.func, ast.Name) and node.func.id in _CONVERSIONS and node.func.id not in names and len(values) == 1:
            return self._converted(node, values[0])
        if isinstance(node.func, ast.Name) and node.func.id == "dict" and "dict" not in names:
            return self._dict_of(node, names)
        if isinstance(function, Definition) and isinstance(function.node, ast.FunctionDef):
            parameters = tuple(argument.arg for argument in (*function.node.args.posonlyargs, *function.node.args.args))
            given = self._arguments(node, parameters, names)
            made = None if given is None else self.program.called(function, given)
            if made is not None:
                return made
        if External(ENDPOINT) in values and text_of(node.func) not in ("isinstance", "issubclass"):
            self.problem(node, unresolved(node))
        known = isinstance(function, (External, Definition))
        if not known and any(isinstance(value, ResourceValue) for value in values) and text_of(node.func).rpartition(".")[2] == "remote":
            self.problem(node, f"{text_of(node)} looks like @remote of flamepy, but where {text_of(node.func)} comes from cannot be seen")
        return Unknown(f"{text_of(node)} is a call, which is not run")

    def _dict_of(self, node: ast.Call, names: Mapping[str, Value]) -> Value:
        """``dict(other, key=value)``."""
        given = self._arguments(node, ("",), names)
        if given is None:
            return Unknown(f"the arguments of {text_of(node)} cannot be read")
        first = entries_of(given.pop(""), "dict") if "" in given else {}
        if first is None:
            return Unknown(f"{text_of(node)} is a call, which is not run")
        return Collection({**first, **given}, "dict")

    def _converted(self, node: ast.Call, value: Value) -> Value:
        """``int(…)`` and the like of something known."""
        if isinstance(value, EnvironmentValue) and value.default is not None:
            return EnvironmentValue(value.variable, self._converted(node, value.default))
        if isinstance(value, Constant) and isinstance(node.func, ast.Name):
            try:
                return Constant(_CONVERSIONS[node.func.id](value.value))
            except (TypeError, ValueError) as error:
                return Unknown(f"{text_of(node)} raises {type(error).__name__}")
        return Unknown(f"{text_of(node)} is a call, which is not run")

    def _spoil(self, node: ast.Call, function: Value, values: list[Value], names: Mapping[str, Value]) -> None:
        """A call may change the collections it gets hold of."""
        reached = values if isinstance(function, Definition) else []
        if isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            reached = [*reached, self.evaluate(node.func.value, names)]
        for value in reached:
            if isinstance(value, Collection):
                value.spoiled = f"line {node.lineno} may change it: {text_of(node)}"

    def _arguments(self, node: ast.Call, positional: tuple[str, ...], names: Mapping[str, Value]) -> dict[str, Value] | None:
        """Arguments by name; None when they cannot be told apart."""
        if len(node.args) > len(positional) or any(isinstance(argument, ast.Starred) for argument in node.args):
            return None
        given = dict(zip(positional, (self.evaluate(argument, names) for argument in node.args), strict=False))
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, names)
            if keyword.arg is not None:
                given[keyword.arg] = value
            else:
                spread = entries_of(value, "dict")
                if spread is None:
                    return None
                given.update({str(key): entry for key, entry in spread.items()})
        return given


def unresolved(node: ast.AST, inside: str = "") -> str:
    return f"{text_of(node)} is used in a way that cannot be resolved without running it{inside}"
