"""Evaluating plain data: literals, displays, and what is put together of them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from flamepy.build.values import Collection, Constant, EnvironmentValue, Unknown, Value, either, entries_of

_FOLDED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Add: operator.add, ast.Mod: operator.mod}
_LONGEST = 10_000  # characters or items a folded constant may have


class DataEvaluator:
    """The part of the evaluator that knows nothing of endpoints; methods are found by the names of syntax nodes."""

    def evaluate(self, node: ast.expr, names: Mapping[str, Value]) -> Value:
        raise NotImplementedError

    def _constant(self, node: ast.Constant, names: Mapping[str, Value]) -> Value:
        return Constant(node.value)

    def _list(self, node: ast.List | ast.Tuple | ast.Set, names: Mapping[str, Value]) -> Value:
        entries: list[Value] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                spread = self.evaluate(element.value, names)
                spread_entries = entries_of(spread)
                if spread_entries is None or entries_of(spread, "dict") is not None:
                    return Unknown(f"{text_of(element)} cannot be read")
                entries += spread_entries.values()
            else:
                entries.append(self.evaluate(element, names))
        return Collection(dict(enumerate(entries)), "tuple" if isinstance(node, ast.Tuple) else "list")

    _tuple = _set = _list

    def _dict(self, node: ast.Dict, names: Mapping[str, Value]) -> Value:
        entries: dict[Any, Value] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            value = self.evaluate(value_node, names)
            if key_node is None:
                spread = entries_of(value, "dict")
                if spread is None:
                    return Unknown(f"**{text_of(value_node)} cannot be read")
                entries.update(spread)
                continue
            key = self.evaluate(key_node, names)
            if not isinstance(key, Constant):
                return Unknown(f"the key {text_of(key_node)} cannot be read")
            entries[key.value] = value
        return Collection(entries, "dict")

    def _joinedstr(self, node: ast.JoinedStr, names: Mapping[str, Value]) -> Value:
        text, variable = "", ""
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            value = self.evaluate(inner, names)
            if isinstance(value, EnvironmentValue) and isinstance(value.default, Constant):
                variable, value = value.variable, value.default
            if not isinstance(value, Constant):
                return because(value, inner)
            if isinstance(part, ast.FormattedValue) and (part.format_spec is not None or part.conversion not in (-1, 115)):
                return Unknown(f"{text_of(node)} formats its parts")
            text += str(value.value)
        return EnvironmentValue(variable, Constant(text)) if variable else Constant(text)

    def _binop(self, node: ast.BinOp, names: Mapping[str, Value]) -> Value:
        return self.combine(node.op, self.evaluate(node.left, names), self.evaluate(node.right, names), node)

    def combine(self, op: ast.operator, left: Value, right: Value, node: ast.AST) -> Value:
        if isinstance(left, Collection) and isinstance(right, Collection):
            if isinstance(op, ast.Add) and "dict" not in (left.kind, right.kind):
                return Collection(dict(enumerate([*left.entries.values(), *right.entries.values()])), left.kind)
            if isinstance(op, ast.BitOr) and left.kind == right.kind == "dict":
                return Collection({**left.entries, **right.entries}, "dict")
        for one, other in ((left, right), (right, left)):
            if isinstance(one, EnvironmentValue) and one.default is not None:
                made = self.combine(op, *((one.default, other) if one is left else (other, one.default)), node)
                return EnvironmentValue(one.variable, made) if isinstance(made, Constant) else made
        if isinstance(left, Constant) and isinstance(right, Constant) and type(op) in _FOLDED:
            try:
                made = _FOLDED[type(op)](left.value, right.value)
                if not isinstance(made, (str, bytes)) or len(made) <= _LONGEST:
                    return Constant(made)
            except Exception as error:
                return Unknown(f"{text_of(node)} raises {type(error).__name__}")
        return because(left, node) if isinstance(left, Unknown) else because(right, node)

    def _unaryop(self, node: ast.UnaryOp, names: Mapping[str, Value]) -> Value:
        value = self.evaluate(node.operand, names)
        if isinstance(node.op, ast.USub) and isinstance(value, Constant) and isinstance(value.value, (int, float)):
            return Constant(-value.value)
        return Unknown(f"{text_of(node)} is not something that can be read without running it")

    def _ifexp(self, node: ast.IfExp, names: Mapping[str, Value]) -> Value:
        value, other = self.evaluate(node.body, names), self.evaluate(node.orelse, names)
        return value if value == other else either(f"it depends on the condition {text_of(node.test)}", value, other)


def because(value: Value, node: ast.AST) -> Unknown:
    return value if isinstance(value, Unknown) else Unknown(f"{text_of(node)} is not something that can be read without running it")


def text_of(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 80 else text[:77] + "..."
