"""Evaluating the expressions that decorators and resources are written in."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flamepy.build.errors import Problem
from flamepy.build.modules import SourceModule
from flamepy.build.values import (
    Collection,
    Constant,
    DecoratorValue,
    Definition,
    External,
    ProjectModule,
    RemoteValue,
    ResourceValue,
    Unknown,
    Value,
    resource_type_of,
)

POSITIONAL = ("name", "cpu", "gpu", "memory", "workers", "env", "dependencies", "system_dependencies", "options")
_OPTIONS = ("dependencies", "system_dependencies", "local")
_FOLDED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Add: operator.add, ast.Mod: operator.mod}
_LONGEST = 10_000  # characters or items a folded constant may have


class Program(Protocol):
    """The project as far as expressions need it."""

    def member(self, module: str, name: str) -> Value:
        """What a module of the project binds a name to."""
        ...

    def public_members(self, module: str) -> Mapping[str, Value]:
        """What ``from module import *`` brings."""
        ...

    def has_module(self, name: str) -> bool: ...


class Evaluator:
    """Evaluates expressions of one module, and notes what they say about endpoints.

    Attributes:
        problems: what looks like ours and cannot be resolved.
        understood: nodes that mean the decorator and whose use was understood.
        made: every function or class that got the decorator.
    """

    def __init__(self, module: SourceModule, program: Program) -> None:
        self.module = module
        self.program = program
        self.problems: list[Problem] = []
        self.understood: set[ast.AST] = set()
        self.made: list[RemoteValue] = []

    def problem(self, node: ast.AST, message: str) -> None:
        self.problems.append(Problem(self.module.file, getattr(node, "lineno", 0), message))

    def evaluate(self, node: ast.expr, names: Mapping[str, Value]) -> Value:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        value: Value = method(node, names) if method else Unknown(f"{_text(node)} is not something that can be read without running it")
        return value

    # ------------------------------------------------------------------ plain data

    def _constant(self, node: ast.Constant, names: Mapping[str, Value]) -> Value:
        return Constant(node.value)

    def _list(self, node: ast.List | ast.Tuple | ast.Set, names: Mapping[str, Value]) -> Value:
        entries: list[Value] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                spread = self.evaluate(element.value, names)
                if not isinstance(spread, Collection) or spread.kind == "dict":
                    return Unknown(f"{_text(element)} cannot be read")
                entries += spread.entries.values()
            else:
                entries.append(self.evaluate(element, names))
        return Collection(dict(enumerate(entries)), "tuple" if isinstance(node, ast.Tuple) else "list")

    _tuple = _set = _list

    def _dict(self, node: ast.Dict, names: Mapping[str, Value]) -> Value:
        entries: dict[Any, Value] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            value = self.evaluate(value_node, names)
            if key_node is None:
                if not isinstance(value, Collection) or value.kind != "dict":
                    return Unknown(f"**{_text(value_node)} cannot be read")
                entries.update(value.entries)
                continue
            key = self.evaluate(key_node, names)
            if not isinstance(key, Constant):
                return Unknown(f"the key {_text(key_node)} cannot be read")
            entries[key.value] = value
        return Collection(entries, "dict")

    def _joinedstr(self, node: ast.JoinedStr, names: Mapping[str, Value]) -> Value:
        text = ""
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            value = self.evaluate(inner, names)
            if not isinstance(value, Constant):
                return _because(value, inner)
            if isinstance(part, ast.FormattedValue) and (part.format_spec is not None or part.conversion not in (-1, 115)):
                return Unknown(f"{_text(node)} formats its parts")
            text += str(value.value)
        return Constant(text)

    def _binop(self, node: ast.BinOp, names: Mapping[str, Value]) -> Value:
        return self.combine(node.op, self.evaluate(node.left, names), self.evaluate(node.right, names), node)

    def combine(self, op: ast.operator, left: Value, right: Value, node: ast.AST) -> Value:
        if isinstance(left, Collection) and isinstance(right, Collection):
            if isinstance(op, ast.Add) and "dict" not in (left.kind, right.kind):
                return Collection(dict(enumerate([*left.entries.values(), *right.entries.values()])), left.kind)
            if isinstance(op, ast.BitOr) and left.kind == right.kind == "dict":
                return Collection({**left.entries, **right.entries}, "dict")
        if isinstance(left, Constant) and isinstance(right, Constant) and type(op) in _FOLDED:
            try:
                made = _FOLDED[type(op)](left.value, right.value)
                if not isinstance(made, (str, bytes)) or len(made) <= _LONGEST:
                    return Constant(made)
            except Exception as error:
                return Unknown(f"{_text(node)} raises {type(error).__name__}")
        return _because(left, node) if isinstance(left, Unknown) else _because(right, node)

    def _unaryop(self, node: ast.UnaryOp, names: Mapping[str, Value]) -> Value:
        value = self.evaluate(node.operand, names)
        if isinstance(node.op, ast.USub) and isinstance(value, Constant) and isinstance(value.value, (int, float)):
            return Constant(-value.value)
        return Unknown(f"{_text(node)} is not something that can be read without running it")

    def _ifexp(self, node: ast.IfExp, names: Mapping[str, Value]) -> Value:
        value, other = self.evaluate(node.body, names), self.evaluate(node.orelse, names)
        return value if value == other else Unknown(f"it depends on the condition {_text(node.test)}")

    # ------------------------------------------------------------------ names

    def _name(self, node: ast.Name, names: Mapping[str, Value]) -> Value:
        return names.get(node.id) or Unknown(f"{node.id} is not bound at the top of this module by then")

    def _attribute(self, node: ast.Attribute, names: Mapping[str, Value]) -> Value:
        value = self.evaluate(node.value, names)
        if isinstance(value, External):
            return value.attribute(node.attr)
        if isinstance(value, ProjectModule):
            return self.program.member(value.name, node.attr)
        if isinstance(value, Definition) and node.attr in value.attributes:
            return value.attributes[node.attr]
        if isinstance(value, ResourceValue) and node.attr in value.settings:
            return value.settings[node.attr]
        return _because(value, node)

    def _subscript(self, node: ast.Subscript, names: Mapping[str, Value]) -> Value:
        value, key = self.evaluate(node.value, names), self.evaluate(node.slice, names)
        if isinstance(value, Collection) and isinstance(key, Constant) and key.value in value.entries:
            return value.entries[key.value]
        return _because(value, node)

    # ------------------------------------------------------------------ calls

    def _call(self, node: ast.Call, names: Mapping[str, Value]) -> Value:
        function = self.evaluate(node.func, names)
        if isinstance(function, External) and function.is_remote:
            self.understood.add(node.func)
            return self._remote(node, names)
        if isinstance(function, DecoratorValue):
            self.understood.add(node.func)
            return self._decorated(node, function, names)
        if resource_type_of(function) is not None:
            return self._resource(node, function, names)
        return self._imported(node, function, names)

    def _remote(self, node: ast.Call, names: Mapping[str, Value]) -> Value:
        given = self._arguments(node, ("resource_config",), names)
        if given is None:
            return DecoratorValue(Unknown(f"the arguments of {_text(node)} cannot be read"), {}, node.lineno)
        resource = given.pop("resource_config", None)
        if isinstance(resource, Definition):
            return self._put_on(resource, DecoratorValue(None, {}, node.lineno), node)
        for name in given.keys() - set(_OPTIONS):
            self.problem(node, f"remote() has no argument {name!r}; it has: resource_config, {', '.join(_OPTIONS)}")
        if isinstance(resource, Constant) and resource.value is None:
            resource = None
        if isinstance(resource, (External, ProjectModule)):
            resource = Unknown(f"{_text(node.args[0] if node.args else node)} is not a resource of this project that can be seen")
        return DecoratorValue(resource, given, node.lineno)

    def _decorated(self, node: ast.Call, decorator: DecoratorValue, names: Mapping[str, Value]) -> Value:
        target = self.evaluate(node.args[0], names) if len(node.args) == 1 and not node.keywords else Unknown("")
        if not isinstance(target, Definition):
            shown = _text(node.args[0]) if node.args else "()"
            self.problem(node, f"@remote is put on {shown}, which is no function or class of this project that can be seen")
            return Unknown("it is no function of this project")
        return self._put_on(target, decorator, node)

    def _put_on(self, definition: Definition, decorator: DecoratorValue, node: ast.AST) -> RemoteValue:
        made = RemoteValue(definition, decorator, getattr(node, "lineno", 0))
        self.made.append(made)
        return made

    def put_decorator_on(self, definition: Definition, value: Value, name: str, node: ast.expr) -> RemoteValue:
        """``@remote`` or ``@remote(…)`` above a definition."""
        self.understood.add(node)
        decorator = value if isinstance(value, DecoratorValue) else DecoratorValue(None, {}, node.lineno)
        made = self._put_on(definition, decorator, node)
        made.name = name
        return made

    def _resource(self, node: ast.Call, function: Value, names: Mapping[str, Value]) -> Value:
        given = self._arguments(node, POSITIONAL, names)
        if given is None:
            return Unknown(f"the arguments of {_text(node)} cannot be read")
        base = resource_type_of(function) or "Resource"
        type_name = function.node.name if isinstance(function, Definition) else base
        texts = {keyword.arg: _text(keyword.value) for keyword in node.keywords if keyword.arg}
        return ResourceValue(type_name, base, given, texts, self.module.file, node.lineno)

    def _imported(self, node: ast.Call, function: Value, names: Mapping[str, Value]) -> Value:
        """``getattr(flamepy, "remote")`` and ``importlib.import_module("flamepy")`` are but long ways to write it."""
        values = [self.evaluate(argument, names) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and "getattr" not in names and len(values) == 2:
            owner, key = values
            if isinstance(owner, External) and isinstance(key, Constant):
                return owner.attribute(str(key.value))
        loads = isinstance(function, External) and function.path == "importlib.import_module"
        loads = loads or (isinstance(node.func, ast.Name) and node.func.id == "__import__")
        if loads and len(values) == 1 and isinstance(values[0], Constant) and isinstance(values[0].value, str):
            name = values[0].value
            return ProjectModule(name) if self.program.has_module(name) else External(name)
        known = isinstance(function, (External, Definition))
        if not known and any(isinstance(value, ResourceValue) for value in values) and _text(node.func).rpartition(".")[2] == "remote":
            self.problem(node, f"{_text(node)} looks like @remote of flamepy, but where {_text(node.func)} comes from cannot be seen")
        return Unknown(f"{_text(node)} is a call, which is not run")

    def _arguments(self, node: ast.Call, positional: tuple[str, ...], names: Mapping[str, Value]) -> dict[str, Value] | None:
        """Arguments by name; None when they cannot be told apart."""
        if len(node.args) > len(positional) or any(isinstance(argument, ast.Starred) for argument in node.args):
            return None
        given = dict(zip(positional, (self.evaluate(argument, names) for argument in node.args), strict=False))
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, names)
            if keyword.arg is not None:
                given[keyword.arg] = value
            elif isinstance(value, Collection) and value.kind == "dict":
                given.update({str(key): entry for key, entry in value.entries.items()})
            else:
                return None
        return given


def _because(value: Value, node: ast.AST) -> Unknown:
    return value if isinstance(value, Unknown) else Unknown(f"{_text(node)} is not something that can be read without running it")


def _text(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 80 else text[:77] + "..."
