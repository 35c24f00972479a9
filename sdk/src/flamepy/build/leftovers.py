"""Uses of the decorator that nobody understood: each would be an endpoint that silently is none."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from flamepy.build.expressions import Evaluator, unresolved
from flamepy.build.values import ENDPOINT, Collection, Definition, External, ResourceValue, Unknown, Value, external, is_ours
from flamepy.flash.names import IMPORT_NAMES

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def report_leftovers(tree: ast.Module, evaluator: Evaluator, names: Mapping[str, Value]) -> None:
    """Note a problem for each of them.

    Args:
        names: those of the module, as they stand at its end.
    """
    _Search(evaluator).visit_all(tree.body, names, inside="")


def names_of_ours(modules: Iterable[Mapping[str, Value]]) -> set[str]:
    """Words by which a program can mean the decorator."""
    words = {"flamepy", "remote", "Endpoint", *IMPORT_NAMES}
    for names in modules:
        words.update(name for name, value in names.items() if _holds_ours(value))
    return words


def mentions(tree: ast.Module, words: set[str]) -> bool:
    """Whether a module has any of them; most have none, and need no search."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found = node.id in words
        elif isinstance(node, ast.Attribute):
            found = node.attr in words
        else:
            found = isinstance(node, ast.alias) and not words.isdisjoint((*node.name.split("."), node.asname))
        if found:
            return True
    return False


def _holds_ours(value: Value) -> bool:
    waiting, met = [value], {id(value)}  # a class may well have itself as an attribute
    while waiting:
        value = waiting.pop()
        if is_ours(value) or (isinstance(value, Unknown) and value.ours) or isinstance(value, ResourceValue):
            return True
        parts = value.entries if isinstance(value, Collection) else value.attributes if isinstance(value, Definition) else {}
        waiting += [part for part in parts.values() if id(part) not in met]
        met.update(map(id, parts.values()))
    return False


class _Search:
    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    @cached_property
    def _asks_jobs(self) -> bool:
        """Whether the module gives jobs to endpoints; one made in a function may then be a client by its name."""
        nodes = ast.walk(self._evaluator.module.tree)
        return any(
            isinstance(node, ast.Attribute)
            and node.attr in ("run", "runsync")
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.value, ast.Name)
            and node.value.id not in ("asyncio", "subprocess", "uvicorn")
            for node in nodes
        )

    def visit_all(self, nodes: Iterable[ast.AST], names: Mapping[str, Value], inside: str) -> None:
        for node in nodes:
            self._visit(node, names, inside)

    def _visit(self, node: ast.AST, names: Mapping[str, Value], inside: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._decorators(node, names, inside)
        made = isinstance(node, ast.Call) and inside and self._value_of(node.func, names) == External(ENDPOINT)
        if made and not self._asks_jobs and {"id", "image"}.isdisjoint(_keywords(node)):
            self._evaluator.problem(node, unresolved(node, inside))
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load) and self._is_ours(node, names):
            if node not in self._evaluator.understood:
                self._evaluator.problem(node, unresolved(node, inside))
            return
        if isinstance(node, _FUNCTIONS):
            outer = [
                *(getattr(node, "decorator_list", [])),
                *node.args.defaults,
                *(default for default in node.args.kw_defaults if default),
            ]
            self.visit_all(outer, names, inside)
            body = node.body if isinstance(node.body, list) else [node.body]
            name = getattr(node, "name", "a lambda")
            self.visit_all(body, _scope_of(node, body, names), f"; it stands inside {name}, which would have to run first")
        elif isinstance(node, _COMPREHENSIONS):
            bound = {name for generator in node.generators for name in _targets(generator.target)}
            self.visit_all(ast.iter_child_nodes(node), {key: value for key, value in names.items() if key not in bound}, inside)
        else:
            self.visit_all(ast.iter_child_nodes(node), names, inside)

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, names: Mapping[str, Value], inside: str) -> None:
        for decorator in node.decorator_list:
            callee = decorator.func if isinstance(decorator, ast.Call) else decorator
            if not isinstance(callee, (ast.Name, ast.Attribute)) or not self._evaluator.understood.isdisjoint((callee, decorator)):
                continue
            value = self._value_of(callee, names)
            if is_ours(value) or value == External(ENDPOINT) or (isinstance(value, ResourceValue) and value.is_endpoint):
                self._evaluator.understood.add(callee)
                where = "inside a function" if inside else "only when this file is run as a script"
                self._evaluator.problem(
                    decorator, f"{node.name} is defined {where}, so a worker cannot import it; move it to the top of the module"
                )

    def _is_ours(self, node: ast.expr, names: Mapping[str, Value]) -> bool:
        return is_ours(self._value_of(node, names))

    def _value_of(self, node: ast.expr, names: Mapping[str, Value]) -> Value | None:
        """What a name, or an attribute of one, stands for."""
        inner = node
        while isinstance(inner, ast.Attribute):
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in names:
            return None
        quiet = Evaluator(self._evaluator.module, self._evaluator.program)
        return quiet.evaluate(node, names)


def _keywords(node: ast.AST) -> set[str | None]:
    return {keyword.arg for keyword in node.keywords} if isinstance(node, ast.Call) else set()


def _scope_of(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, body: Iterable[ast.AST], names: Mapping[str, Value]
) -> dict[str, Value]:
    """Names as a function sees them: its own hide the module's; only imports of its own are looked into."""
    arguments = node.args
    own = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    own |= {argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument}
    imported: dict[str, Value] = {}
    for inner in _own_nodes(body):
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                imported[alias.asname or alias.name.partition(".")[0]] = External(
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(inner, ast.ImportFrom) and not inner.level:
            imported.update({alias.asname or alias.name: external(f"{inner.module}.{alias.name}") for alias in inner.names})
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            own.add(inner.id)
    return {**{name: value for name, value in names.items() if name not in own}, **imported}


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """What belongs to a function's own scope, not to that of a function inside it."""
    for node in body:
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            yield from _own_nodes(ast.iter_child_nodes(node))


def _targets(target: ast.expr) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.id
