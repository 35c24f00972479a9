"""What functions do to the names of their module: it may happen at any time, so what the name stands for is not certain."""

from __future__ import annotations

import ast

MUTATORS = frozenset(
    ["update", "setdefault", "pop", "popitem", "clear", "append", "insert", "extend", "remove", "sort", "reverse", "__setitem__"]
)


def changed_by_functions(tree: ast.Module) -> dict[str, str]:
    """Names of the module that its functions change: ``"global"``, or the line where one changes what the name stands for."""
    changed: dict[str, str] = {}
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        nodes = list(ast.walk(function))
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        for node in nodes:
            owner = _changed_owner(node)
            if owner and (owner in declared or owner not in own):
                changed.setdefault(owner, str(getattr(node, "lineno", "?")))
        changed.update(dict.fromkeys(declared, "global"))
    return changed


def _changed_owner(node: ast.AST) -> str:
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
        return node.value.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        return node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    return ""
