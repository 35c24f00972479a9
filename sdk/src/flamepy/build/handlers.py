"""One small file for each resource: it registers functions and calls the factory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flamepy.build.errors import BuildError, Problem
from flamepy.build.manifest import handler_module

__all__ = ["HandlerGenerator", "check_imports"]

_SECONDS = 300
_TAKEN = {"FUNCTION_REGISTRY", "ROOT", "create_handler", "handler", "importlib", "os", "runpod", "sys"}

_TEMPLATE = '''"""Handler of the resource {resource}. Made by `flame build`; do not edit: the next build writes it again."""

import importlib
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [path for path in {paths} if path not in sys.path]
os.environ.setdefault("FLAME_RESOURCE_NAME", {resource})
os.environ.setdefault("FLAME_MANIFEST_PATH", os.path.join(ROOT, "flash_manifest.json"))

from flame_host.handler import create_handler  # noqa: E402

{bindings}

FUNCTION_REGISTRY = {registry}

handler = create_handler(FUNCTION_REGISTRY)

if __name__ == "__main__":
    import runpod

    runpod.serverless.start({{"handler": handler}})
'''

_PROBE = "import importlib, sys; sys.path.insert(0, sys.argv[1]); sys.exit(not callable(importlib.import_module(sys.argv[2]).handler))"


class HandlerGenerator:
    """Writes the handlers of a manifest's resources."""

    def __init__(self, manifest: Mapping[str, Any], build_dir: str | Path) -> None:
        self.manifest = manifest
        self.build_dir = Path(build_dir)

    def generate_handlers(self) -> list[Path]:
        """Write them; returns their paths, by resource name.

        Raises:
            BuildError: a file of the project stands where one would go, or what was made is not valid Python.
        """
        written = []
        for resource, entry in sorted((self.manifest.get("resources") or {}).items()):
            path = self.build_dir / f"{handler_module(resource)}.py"
            if path.exists():
                raise BuildError([Problem(path.name, 0, f"stands where the handler of resource {resource!r} goes; rename it")])
            text = self._text(resource, entry.get("functions") or ())
            try:
                compile(text, path.name, "exec")
            except (SyntaxError, ValueError) as error:
                raise BuildError([Problem(path.name, 0, f"the handler of resource {resource!r} is not valid Python: {error}")]) from error
            path.write_text(text, encoding="utf-8")
            written.append(path)
        return written

    def _text(self, resource: str, functions: Iterable[Mapping[str, Any]]) -> str:
        bindings, registry, taken = [], [], set(_TAKEN)
        for function in functions:
            name, module = function["name"], function["module"]
            bound = name.replace(".", "_")
            while bound in taken:
                bound += "_"
            taken.add(bound)
            bindings.append(f"{bound} = importlib.import_module({_quoted(module)}).{name}")
            registry.append(f"    {_quoted(name)}: {bound},")
        roots = self.manifest.get("source_paths") or ["."]
        paths = ", ".join("ROOT" if root == "." else f"os.path.join(ROOT, {_quoted(root)})" for root in roots)
        return _TEMPLATE.format(
            resource=_quoted(resource),
            paths=f"[{paths}]",
            bindings="\n".join(bindings) or "# This resource has no functions.",
            registry="{\n" + "\n".join(registry) + "\n}" if registry else "{}",
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def check_imports(handlers: Iterable[Path], python: Path, build_dir: Path) -> None:
    """Import each handler in a process that sees the standard library and the build, and nothing else.

    This runs the project's modules, as every worker will when it starts.

    Raises:
        BuildError: with what each of them printed.
    """
    problems = []
    for path in handlers:
        order = [os.fspath(python), "-I", "-S", "-B", "-c", _PROBE, os.fspath(build_dir), path.stem]
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        try:
            done = subprocess.run(
                order, cwd=build_dir, env=keep, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            problems.append(Problem(path.name, 0, f"importing it takes longer than {_SECONDS} s"))
            continue
        if done.returncode:
            tail = "\n".join(f"    | {line}" for line in done.stderr.strip().splitlines()[-12:])
            problems.append(Problem(path.name, 0, f"cannot be imported by a worker:\n{tail}"))
    if problems:
        raise BuildError(problems, hint="is something missing in the project's dependencies? --keep-build keeps the directory to look at")
