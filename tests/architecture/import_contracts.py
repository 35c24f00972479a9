"""Two kinds of import rules for import-linter that say what is allowed, so that a new module is forbidden until it is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from grimp import ImportGraph
from importlinter.application import output
from importlinter.domain import fields
from importlinter.domain.contract import Contract, ContractCheck


class AllowedContract(Contract):
    """What some packages may import, and nothing else.

    Direct imports only: what is imported has a rule of its own.

    Options:
        source_packages: with all below them. except_packages: those of them that this rule leaves out.
        allowed: packages of ours that they may import, with all below them, "package" alone with a trailing colon. Their own may always be.
            Missing: no rule about ours.
        allowed_externals: distributions' top-level modules beside the standard library. Missing: no rule about them.
        forbidden: of ours or not, what must not be imported all the same.
    """

    type_name = "allowed"

    source_packages = fields.ListField(subfield=fields.StringField())
    except_packages = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    allowed = fields.ListField(subfield=fields.StringField(), required=False, default=None)
    allowed_externals = fields.ListField(subfield=fields.StringField(), required=False, default=None)
    forbidden = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        roots = tuple(self.session_options["root_packages"])
        found = [
            f"{importer} -> {imported} (l. {_lines(graph, importer, imported)})"
            for package in self.source_packages
            for importer in _below(graph, package)
            if not any(_stands_in(importer, left_out) for left_out in self.except_packages)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not self._may(package, imported, roots)
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def _may(self, package: str, imported: str, roots: tuple[str, ...]) -> bool:
        if any(_stands_in(imported, one) for one in self.forbidden):
            return False
        top = imported.partition(".")[0]
        if top not in roots:
            return self.allowed_externals is None or top in sys.stdlib_module_names or top in self.allowed_externals
        if self.allowed is None or _stands_in(imported, package):
            return True
        return any(imported == one[:-1] if one.endswith(":") else _stands_in(imported, one) for one in self.allowed)

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line)


class NoCirclesContract(Contract):
    """No module imports itself by way of others. What is imported for annotations only does not count."""

    type_name = "no-circles"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found = [" ⇄ ".join(sorted(circle)) for circle in circles(graph)]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line)


def circles(graph: ImportGraph) -> Iterator[set[str]]:
    """Strongly connected modules: each can be reached from each (Tarjan)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[set[str]]:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported not in order:
                yield from visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            at = stack.index(module)
            circle, stack[at:] = set(stack[at:]), []
            if len(circle) > 1:
                yield circle

    for module in sorted(graph.modules):
        if module not in order:
            yield from visit(module)


def _below(graph: ImportGraph, package: str) -> list[str]:
    if package not in graph.modules:
        raise ValueError(f"the rule names {package}, which is not there")
    return sorted({package, *graph.find_descendants(package)})


def _stands_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _lines(graph: ImportGraph, importer: str, imported: str) -> str:
    return ", ".join(str(detail["line_number"]) for detail in graph.get_import_details(importer=importer, imported=imported))
