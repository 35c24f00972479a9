"""Finding ``@remote`` functions and classes in a project. Nothing of the project is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flamepy._package.project import checked_root
from flamepy.build.dependencies import unfit
from flamepy.build.errors import BuildError, Problem
from flamepy.build.leftovers import mentions, names_of_ours, report_leftovers
from flamepy.build.modules import SourceModule, project_files, read_modules
from flamepy.build.resolution import is_balanced, resolve_resource, route_of, texts_of
from flamepy.build.statements import Interpreter
from flamepy.build.values import Constant, Definition, ProjectModule, RemoteValue, ResourceValue, Unknown, Value, entries_of
from flamepy.flash.names import IMPORT_NAMES

__all__ = ["RemoteDecoratorScanner", "RemoteFunctionMetadata"]


_DEEPEST = 8
"""Calls within calls that are followed."""


@dataclass(frozen=True)
class MethodMetadata:
    """A public method of a class: how it is called."""

    name: str
    is_async: bool = False
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemoteFunctionMetadata:
    """One function or class that is to be served.

    Attributes:
        function_name, module_path: the pair it is imported by.
        resource_type: name of the class its resource is made of.
        file_path: of the module. line: of the definition.
        parameters: as they are written, ``"x: int = 3"``; for a class, its constructor's.
        original: ``module:qualname`` of the definition, when it is served under another name.
        settings: the resource's, as `flamepy.Resource` has them.
        route: HTTP method and path it answers, if any. is_generator: whether it yields its results.
        to_set: variables of the resource's ``env`` whose values come from the environment: where from, and the default.
        given: settings the program says itself; None for all of them.
    """

    function_name: str
    module_path: str
    resource_config_name: str
    resource_type: str
    is_async: bool = False
    is_class: bool = False
    file_path: Path = Path()
    line: int = 0
    docstring: str = ""
    parameters: tuple[str, ...] = ()
    methods: tuple[MethodMetadata, ...] = ()
    dependencies: tuple[str, ...] = ()
    system_dependencies: tuple[str, ...] = ()
    original: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    route: tuple[str, str] | None = None
    is_generator: bool = False
    to_set: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    given: frozenset[str] | None = None

    def gives(self, setting: str) -> bool:
        """Whether the program says it, and it is no default."""
        return self.given is None or setting in self.given


class RemoteDecoratorScanner:
    """Reads a project's Python files and tells its endpoints.

    Args:
        excludes: patterns of files not to look at, besides those no package takes.
    """

    def __init__(self, project_dir: str | Path, excludes: Sequence[str] = ()) -> None:
        self.project_dir = checked_root(project_dir)
        self._excludes = tuple(excludes)
        self._modules: dict[str, SourceModule] = {}
        self._interpreters: dict[str, Interpreter] = {}
        self._packages: set[str] = set()
        self._depth = 0
        self.notes: list[str] = []
        self.clients: dict[str, Mapping[str, Any]] = {}

    def discover_remote_functions(self) -> list[RemoteFunctionMetadata]:
        """All of them, by file and line.

        Raises:
            BuildError: with file and line of everything that looks like an endpoint and cannot be resolved, and of every file
                that is not valid Python.
        """
        modules, problems = read_modules(self.project_dir, project_files(self.project_dir, self._excludes))
        for module in modules:
            self._modules.setdefault(module.name or module.file, module)
            parts = module.name.split(".")
            self._packages.update(".".join(parts[:count]) for count in range(1, len(parts)))
        self._interpreters = {}
        found: list[RemoteFunctionMetadata] = []
        for module in modules:
            interpreter = self._interpreted(module)
            for made in interpreter.evaluator.made:
                metadata = self._describe(module, interpreter, made)
                if metadata is not None:
                    found.append(metadata)
            interpreter.evaluator.report_unused()
        words = names_of_ours(interpreter.names for interpreter in self._interpreters.values())
        for module in modules:
            interpreter = self._interpreted(module)
            if mentions(module.tree, words):
                report_leftovers(module.tree, interpreter.evaluator, interpreter.names)
            problems += [*interpreter.evaluator.problems, *self._unused(interpreter)]
            self.notes += interpreter.evaluator.notes
        if problems:
            raise BuildError(problems, hint="mend these, or leave files out with --exclude or .flameignore")
        return sorted(found, key=lambda function: (str(function.file_path), function.line))

    @property
    def modules(self) -> list[SourceModule]:
        """Those it has read."""
        return list(self._modules.values())

    @property
    def stand_ins(self) -> list[str]:
        """Import names of another SDK that the project uses, wherever in its files."""
        return [name for name in IMPORT_NAMES if name in self.imported]

    @property
    def imported(self) -> frozenset[str]:
        """First parts of the names of all modules that its files import."""
        return frozenset(name for module in self._modules.values() for name in _imported(module.tree))

    def _unused(self, interpreter: Interpreter) -> Iterator[Problem]:
        """Endpoints that nothing is on; a plain resource may be left over, and is only told about."""
        for resource in interpreter.evaluator.resources:
            if resource.used or resource.is_client:
                continue
            shown = resource.variable or f"{resource.type_name}(…)"
            if resource.is_endpoint:
                message = f"{shown} is an endpoint, and nothing that can be seen is on it; decorate a function, or write id= for a client"
                yield Problem(resource.file, resource.line, message)
            else:
                self.notes.append(f"{resource.file}:{resource.line}: {shown} is a resource that nothing runs on")

    # ------------------------------------------------------------------ the project, for the interpreters

    def has_module(self, name: str) -> bool:
        return name in self._modules or name in self._packages

    def member(self, module: str, name: str) -> Value:
        full = f"{module}.{name}"
        if module in self._modules:
            names = self._interpreted(self._modules[module]).names
            if name in names:
                return names[name]
        if self.has_module(full):
            return ProjectModule(full)
        return Unknown(f"{name} is not bound at the top of {module}")

    def public_members(self, module: str) -> Mapping[str, Value]:
        if module not in self._modules:
            return {}
        names = self._interpreted(self._modules[module]).names
        listed = entries_of(names["__all__"]) if "__all__" in names else None
        if listed is not None and all(isinstance(entry, Constant) for entry in listed.values()):
            public = {entry.value for entry in listed.values() if isinstance(entry, Constant)}
            return {name: value for name, value in names.items() if name in public}
        return {name: value for name, value in names.items() if not name.startswith("_")}

    def called(self, definition: Definition, given: Mapping[str, Value]) -> Value | None:
        module = self._modules.get(definition.module)
        if module is None or self._depth >= _DEEPEST:
            return None
        self._depth += 1
        try:
            return self._interpreted(module).call(definition.node, given)
        finally:
            self._depth -= 1

    def _interpreted(self, module: SourceModule) -> Interpreter:
        interpreter = self._interpreters.get(module.file)
        if interpreter is None:
            # Known before it has run: modules that import each other see what the other has bound so far, as when they are run.
            interpreter = self._interpreters[module.file] = Interpreter(module, self)
            interpreter.run()
        return interpreter

    # ------------------------------------------------------------------ one endpoint

    def _describe(self, module: SourceModule, interpreter: Interpreter, made: RemoteValue) -> RemoteFunctionMetadata | None:
        definition, decorator, node = made.definition, made.decorator, made.definition.node
        problem = _unreachable(module, interpreter, made)
        if problem:
            interpreter.evaluator.problems.append(Problem(module.file, made.line, problem))
            return None
        resource, problems = resolve_resource(decorator, module.file, definition.node.name)
        route, wrong_route = route_of(decorator, module.file, definition)
        dependencies, more = texts_of(decorator.options.get("dependencies"), "dependencies", module.file, decorator.line)
        system, most = texts_of(decorator.options.get("system_dependencies"), "system_dependencies", module.file, decorator.line)
        local, wrong = _is_local(made, module.file)
        unfitting = unfit(dependencies, module.file, decorator.line)
        if resource is not None and isinstance(decorator.resource, ResourceValue):
            unfitting += unfit(resource.settings.get("dependencies", ()), decorator.resource.file, decorator.resource.line)
        interpreter.evaluator.problems += [*problems, *unfitting, *wrong_route, *more, *most, *wrong]
        if isinstance(decorator.resource, ResourceValue):
            decorator.resource.used = True
        if local or resource is None:
            return None
        interpreter.evaluator.notes += resource.notes
        if route is None and is_balanced(resource.type_name):
            shown = f"{module.file}:{decorator.line}: {definition.qualname}"
            interpreter.evaluator.notes.append(f"{shown} is on a load-balanced resource without method= and path=: it answers jobs only")
        original = f"{definition.module}:{definition.qualname}"
        is_class = isinstance(node, ast.ClassDef)
        return RemoteFunctionMetadata(
            function_name=made.name,
            module_path=module.name,
            resource_config_name=resource.name,
            resource_type=resource.type_name,
            is_async=isinstance(node, ast.AsyncFunctionDef),
            is_class=is_class,
            file_path=self.project_dir / module.file,
            line=node.lineno,
            docstring=ast.get_docstring(node) or "",
            parameters=_parameters(_constructor(node)),
            methods=tuple(_methods(node)) if isinstance(node, ast.ClassDef) else (),
            dependencies=dependencies,
            system_dependencies=system,
            original="" if original == f"{module.name}:{made.name}" else original,
            settings=resource.settings,
            route=route,
            is_generator=is_generator(node),
            to_set=resource.to_set,
            given=resource.given,
        )


def _unreachable(module: SourceModule, interpreter: Interpreter, made: RemoteValue) -> str:
    """Why a worker could not import it under its name; empty when it can."""
    shown = made.definition.qualname
    if not made.name:
        return f"@remote is put on {shown}, but the result is not kept under a name of the module; write  {shown} = remote(…)({shown})"
    if not module.name:
        return f"{shown} is in a file whose name cannot be imported: a directory or file name has a dot in it; rename it"
    if made.conditional:
        return f"{made.name} is an endpoint only under a condition ({made.conditional}); define it at the top of the module"
    if "." not in made.name and interpreter.names.get(made.name) is not made:
        return f"{made.name} is bound to something else further down in the module, which a worker would get in its place"
    return ""


def _is_local(made: RemoteValue, file: str) -> tuple[bool, list[Problem]]:
    value = made.decorator.options.get("local")
    known = getattr(value, "value", None)
    if value is None or isinstance(known, bool):
        return bool(known), []
    return False, [Problem(file, made.decorator.line, "remote(local=…) must be written as True or False")]


def _imported(tree: ast.Module) -> Iterator[str]:
    """First parts of the names of all modules it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def is_generator(node: ast.AST) -> bool:
    """Whether a function yields, itself and not in a function inside it."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            waiting += ast.iter_child_nodes(inner)
    return False


def _constructor(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    if not isinstance(node, ast.ClassDef):
        return node
    return next((inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"), None)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | None, *, bound: bool = False) -> tuple[str, ...]:
    if node is None:
        return ()
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [_parameter(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    if (bound or node.name == "__init__") and shown:
        shown = shown[1:]
    if arguments.vararg:
        shown.append(f"*{_parameter(arguments.vararg, None)}")
    shown += [_parameter(argument, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        shown.append(f"**{_parameter(arguments.kwarg, None)}")
    return tuple(shown)


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + (f": {ast.unparse(argument.annotation)}" if argument.annotation else "")
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _methods(node: ast.ClassDef) -> list[MethodMetadata]:
    """Methods the class itself defines; those it inherits can be called all the same."""
    found = []
    for inner in node.body:
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and (not inner.name.startswith("_") or inner.name == "__call__"):
            names = {ast.unparse(decorator) for decorator in inner.decorator_list}
            if not names & {"property", "cached_property", "functools.cached_property"}:
                parameters = _parameters(inner, bound="staticmethod" not in names)
                found.append(MethodMetadata(inner.name, isinstance(inner, ast.AsyncFunctionDef), parameters))
    return found
