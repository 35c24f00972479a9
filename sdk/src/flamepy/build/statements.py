"""Running a module's statements over what can be known, in order, without executing any."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import cached_property

from flamepy.build.changes import changed_by_functions
from flamepy.build.expressions import Evaluator, Program
from flamepy.build.modules import SourceModule
from flamepy.build.values import (
    FLASH_NAMES,
    OUR_NAMES,
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
    either,
    external,
    is_ours,
    of_flash,
)

Names = dict[str, Value]
_BINDINGS = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Import, ast.ImportFrom, ast.Pass)


class Interpreter:
    """Binds the names of one module.

    Attributes:
        names: as they stand at the end of what was read.
        foreign_stars: modules from outside whose names were taken with ``*``, so that nobody knows what they are.
    """

    def __init__(self, module: SourceModule, program: Program) -> None:
        self.module = module
        self.names: Names = {}
        self.foreign_stars: list[str] = []
        self.evaluator = Evaluator(module, program)
        self._program = program

    @cached_property
    def _changed_by_functions(self) -> Mapping[str, str]:
        return changed_by_functions(self.module.tree)

    def run(self) -> None:
        self._block(self.module.tree.body, self.names, "", "")

    def _block(self, body: list[ast.stmt], names: Names, prefix: str, condition: str) -> None:
        for statement in body:
            method = getattr(self, f"_{type(statement).__name__.lower()}", None)
            if method is not None:
                method(statement, names, prefix, condition)

    def call(self, node: ast.AST, given: Mapping[str, Value]) -> Value | None:
        """What a function of this module returns, if its body is nothing but bindings and then one ``return``."""
        if not isinstance(node, ast.FunctionDef) or node.decorator_list or node.args.vararg or node.args.kwarg:
            return None
        arguments = [*node.args.posonlyargs, *node.args.args]
        defaults = dict(zip((argument.arg for argument in reversed(arguments)), reversed(node.args.defaults), strict=False))
        defaults |= {argument.arg: value for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value}
        own = {argument.arg for argument in (*arguments, *node.args.kwonlyargs)}
        if not given.keys() <= own <= given.keys() | defaults.keys():
            return None
        names: Names = {**self.names, **{name: self.evaluator.evaluate(defaults[name], self.names) for name in own - given.keys()}, **given}
        # One call that is understood says nothing of the others: a decorator in such a function remains to be told about.
        before = set(self.evaluator.understood), set(self.evaluator.seen)
        try:
            return self._returned(node.body, names, node.name)
        finally:
            self.evaluator.understood, self.evaluator.seen = before

    def _returned(self, body: list[ast.stmt], names: Names, name: str) -> Value | None:
        for statement in body:
            if isinstance(statement, ast.Return):
                return None if statement.value is None else self.evaluator.evaluate(statement.value, names)
            if not isinstance(statement, _BINDINGS):
                return None
            self._block([statement], names, f"{name}.", f"inside {name}")
        return None

    # ------------------------------------------------------------------ definitions

    def _functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, names: Names, prefix: str, condition: str) -> None:
        qualname = prefix + node.name
        attributes: Names = {}
        bases: tuple[Value, ...] = ()
        if isinstance(node, ast.ClassDef):
            bases = tuple(self.evaluator.evaluate(base, names) for base in node.bases)
            # A class body sees the module's names, but the module does not see its.
            inner = _Scope(names, attributes)
            self._block(node.body, inner, qualname + ".", condition)
        definition = Definition(node, self.module.name, qualname, attributes, bases)
        value: Value = definition
        for decorator in reversed(node.decorator_list):
            found = self.evaluator.as_decorator(self.evaluator.evaluate(decorator, names), decorator)
            if not is_ours(found):
                self._look_alike(decorator, found, names)
                continue
            if isinstance(value, RemoteValue):
                self.evaluator.problem(decorator, f"{qualname} is decorated with @remote twice")
                continue
            if prefix and not isinstance(node, ast.ClassDef):
                self.evaluator.understood.add(decorator)
                self.evaluator.problem(
                    decorator, f"{qualname} is a method; put @remote on the class, whose methods are then called by name"
                )
                continue
            made = self.evaluator.put_decorator_on(definition, found, qualname, decorator)
            made.conditional = condition
            value = made
        names[node.name] = value

    _asyncfunctiondef = _classdef = _functiondef

    def _look_alike(self, decorator: ast.expr, found: Value, names: Names) -> None:
        """A bare name ``remote`` that nothing here binds may come from anywhere, so also from us."""
        if isinstance(found, Unknown) and found.ours:
            shown = ast.unparse(decorator)
            self.evaluator.problem(decorator, f"@{shown} may be @remote of flamepy, and cannot be resolved: {found.why}")
            return
        callee = decorator.func if isinstance(decorator, ast.Call) else decorator
        origin = self.evaluator.evaluate(callee, names)
        if isinstance(origin, External) and of_flash(origin.path):
            self.evaluator.problem(decorator, f"@{ast.unparse(callee)} is a decorator of another SDK that is not known here")
            return
        if isinstance(callee, ast.Name) and callee.id == "remote" and callee.id not in names:
            stars = ", ".join(self.foreign_stars)
            why = f"it may come from {stars} by import *" if stars else "nothing in this module binds that name"
            self.evaluator.problem(decorator, f"@remote cannot be resolved, because {why}; write  from flamepy import remote")

    # ------------------------------------------------------------------ bindings

    def _assign(self, node: ast.Assign, names: Names, prefix: str, condition: str) -> None:
        value = self.evaluator.evaluate(node.value, names)
        for target in node.targets:
            self._bind(target, value, node.value, names, condition)

    def _annassign(self, node: ast.AnnAssign, names: Names, prefix: str, condition: str) -> None:
        if node.value is not None:
            self._bind(node.target, self.evaluator.evaluate(node.value, names), node.value, names, condition)

    def _augassign(self, node: ast.AugAssign, names: Names, prefix: str, condition: str) -> None:
        if isinstance(node.target, (ast.Subscript, ast.Attribute)):
            self._change(node.target, Unknown("it is changed in place"), names)
        elif isinstance(node.target, ast.Name):
            before = names.get(node.target.id, Unknown(f"{node.target.id} is not bound"))
            names[node.target.id] = self.evaluator.combine(node.op, before, self.evaluator.evaluate(node.value, names), node)

    def _bind(self, target: ast.expr, value: Value, source: ast.expr, names: Names, condition: str) -> None:
        if isinstance(target, ast.Name):
            self.evaluator.use(value, source)
            if isinstance(value, ResourceValue):
                value.variable = value.variable or target.id
            if isinstance(value, RemoteValue) and not value.name and not isinstance(names, _Scope):
                value.name, value.conditional = target.id, condition
            # Going through all functions takes as long as everything else, and few modules need it.
            asked = self.module.has_globals or isinstance(value, Collection)
            change = self._changed_by_functions.get(target.id) if asked else None
            if change == "global":
                value = either(f"a function changes {target.id}, by global", value)
            elif change and isinstance(value, Collection):
                value.spoiled = f"a function changes {target.id}, at line {change}"
            names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(value.entries.values()) if isinstance(value, Collection) else []
            parts = source.elts if isinstance(source, (ast.Tuple, ast.List)) else [source] * len(target.elts)
            for index, part in enumerate(target.elts):
                whole = len(values) == len(target.elts) == len(parts)
                self._bind(part, values[index] if whole else Unknown("it is unpacked"), parts[index] if whole else source, names, condition)
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            self._change(target, value, names)

    def _change(self, target: ast.Subscript | ast.Attribute, value: Value | None, names: Names) -> None:
        """``owner[key] = value``, ``owner.name = value``, or their deletion."""
        owner = self.evaluator.evaluate(target.value, names)
        if isinstance(owner, Collection):
            key = self.evaluator.evaluate(target.slice, names) if isinstance(target, ast.Subscript) else None
            if isinstance(key, Constant) and value is not None:
                owner.later[key.value] = value
            owner.spoiled = f"line {target.lineno} changes it: {ast.unparse(target)}"
        elif isinstance(target, ast.Attribute) and isinstance(owner, Definition):
            owner.attributes[target.attr] = Unknown("it is deleted") if value is None else value
        elif isinstance(target, ast.Attribute) and isinstance(owner, ProjectModule):
            before = self._program.member(owner.name, target.attr)
            if isinstance(before, (ResourceValue, DecoratorValue, RemoteValue)):
                message = f"{ast.unparse(target)} is changed from outside of its module, so what it is depends on who is imported first"
                self.evaluator.problem(target, message)

    def _expr(self, node: ast.Expr, names: Names, prefix: str, condition: str) -> None:
        self.evaluator.evaluate(node.value, names)

    def _delete(self, node: ast.Delete, names: Names, prefix: str, condition: str) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                names.pop(target.id, None)
            elif isinstance(target, (ast.Subscript, ast.Attribute)):
                self._change(target, None, names)

    # ------------------------------------------------------------------ imports

    def _import(self, node: ast.Import, names: Names, prefix: str, condition: str) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            names[alias.asname or name] = self._module(name)

    def _importfrom(self, node: ast.ImportFrom, names: Names, prefix: str, condition: str) -> None:
        source = self._source_of(node)
        for alias in node.names:
            if alias.name == "*":
                self._star(source, names)
            elif self._program.has_module(source):
                names[alias.asname or alias.name] = self._program.member(source, alias.name)
            else:
                names[alias.asname or alias.name] = external(f"{source}.{alias.name}")
                self._note_unknown(node, source, alias.name)

    def _note_unknown(self, node: ast.ImportFrom, source: str, name: str) -> None:
        if of_flash(source) and name not in FLASH_NAMES:
            self.evaluator.note(
                node, f"{source} has no {name!r} here, so importing this module will fail; flamepy has its public names only"
            )

    def _source_of(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.package.split(".") if self.module.package else []
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, node.module] if node.module else parts)

    def _star(self, source: str, names: Names) -> None:
        if self._program.has_module(source):
            names.update(self._program.public_members(source))
        elif source == "flamepy" or of_flash(source):
            names.update({name: external(f"{source}.{name}") for name in (FLASH_NAMES if of_flash(source) else OUR_NAMES)})
        else:
            self.foreign_stars.append(source)

    def _module(self, name: str) -> Value:
        return ProjectModule(name) if self._program.has_module(name) else External(name)

    # ------------------------------------------------------------------ branches

    def _if(self, node: ast.If, names: Names, prefix: str, condition: str) -> None:
        test = ast.unparse(node.test)
        if test.rpartition(".")[2] == "TYPE_CHECKING":
            self._block(node.orelse, names, prefix, condition)
            return
        if "__name__" in test and "__main__" in test:
            self._block(node.orelse, names, prefix, condition)
            return  # what it decorates, the search for leftovers finds
        known = self.evaluator.evaluate(node.test, names)
        if isinstance(known, Constant):
            self._block(node.body if known.value else node.orelse, names, prefix, condition)
            return
        other = names.copy()
        self._block(node.body, names, prefix, f"if {test}")
        self._block(node.orelse, other, prefix, f"else of if {test}")
        for name in names.keys() | other.keys():
            here, there = names.get(name), other.get(name)
            if here is None:
                names[name] = other[name]
            elif there is not None and here is not there and here != there:
                names[name] = either(f"it depends on the condition {test}, line {node.lineno}", here, there)

    def _try(self, node: ast.Try, names: Names, prefix: str, condition: str) -> None:
        self._block(node.body, names, prefix, condition)
        for handler in node.handlers:
            if self._never_runs(handler, node.body):
                continue
            aside = names.copy()
            self._block(handler.body, aside, prefix, "except")
            for name, value in aside.items():
                names[name] = self._after_handler(names.get(name), value, handler.lineno)
        self._block(node.orelse, names, prefix, condition)
        self._block(node.finalbody, names, prefix, condition)

    _trystar = _try

    def _never_runs(self, handler: ast.ExceptHandler, body: list[ast.stmt]) -> bool:
        """Whether it catches the failure of imports, all of which are of what a worker has in any case."""
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        if not all(isinstance(kind, ast.Name) and kind.id in ("ImportError", "ModuleNotFoundError") for kind in caught):
            return False
        found = [self._source_of(node) for node in body if isinstance(node, ast.ImportFrom)]
        found += [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        return bool(found) and any(of_flash(name) for name in found) and all(of_flash(name) or self._is_here(name) for name in found)

    def _is_here(self, module: str) -> bool:
        return self._program.has_module(module) or module.partition(".")[0] in sys.stdlib_module_names

    def _after_handler(self, body: Value | None, handler: Value, line: int) -> Value:
        """What holds after a ``try``: what the body binds, for there it succeeds in a worker, too, unless it is about endpoints."""
        if body is None:
            return handler
        same = body is handler or body == handler
        if not same and (isinstance(body, (ResourceValue, DecoratorValue, Constant)) or (is_ours(handler) and not is_ours(body))):
            return either(f"it depends on whether line {line} is reached", body, handler)
        return body

    def _with(self, node: ast.With, names: Names, prefix: str, condition: str) -> None:
        for item in node.items:
            self.evaluator.evaluate(item.context_expr, names)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, Unknown("a with statement binds it"), item.context_expr, names, condition)
        self._block(node.body, names, prefix, condition)

    def _for(self, node: ast.For | ast.While | ast.Match, names: Names, prefix: str, condition: str) -> None:
        aside = names.copy()
        if isinstance(node, ast.For):
            self._bind(node.target, Unknown("a loop binds it"), node.iter, aside, "a loop")
        bodies = [case.body for case in node.cases] if isinstance(node, ast.Match) else [node.body, node.orelse]
        for body in bodies:
            self._block(body, aside, prefix, f"the {type(node).__name__.lower()} statement")
        for name, value in aside.items():
            if names.get(name) is not value:
                names[name] = either(f"the {type(node).__name__.lower()} statement at line {node.lineno} binds it", value)

    _while = _match = _for


class _Scope(Names):
    """Names of a class body: it reads those around it, and keeps its own apart."""

    def __init__(self, around: Mapping[str, Value], own: Names) -> None:
        super().__init__(around)
        self._own = own

    def __setitem__(self, name: str, value: Value) -> None:
        super().__setitem__(name, value)
        self._own[name] = value

    def copy(self) -> _Scope:
        return _Scope(self, self._own)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)
