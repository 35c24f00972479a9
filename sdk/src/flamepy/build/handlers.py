"""One small file for each resource: it registers functions and calls the factory."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flamepy.build.errors import BuildError, Problem
from flamepy.build.manifest import handler_module
from flamepy.build.processes import run
from flamepy.build.resolution import is_balanced

__all__ = ["HandlerGenerator", "check_imports", "answers_http", "streams"]

_SECONDS = 300
_TAKEN = {
    "FUNCTION_REGISTRY",
    "ROOT",
    "ROUTES",
    "app",
    "create_app",
    "create_concurrent_handler",
    "create_handler",
    "either",
    "with_requests",
}
_TAKEN |= {"create_stream_handler", "stoppable", "handler", "serve", "importlib", "os", "runpod", "sys"}

_TEMPLATE = '''"""Handler of the resource {resource}. Made by `flame build`; do not edit: the next build writes it again."""

import importlib
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [path for path in {paths} if path not in sys.path]
os.environ.setdefault("FLAME_RESOURCE_NAME", {resource})
os.environ.setdefault("FLAME_MANIFEST_PATH", os.path.join(ROOT, "flash_manifest.json"))

from flame_host.handler import {names}  # noqa: E402

{bindings}

FUNCTION_REGISTRY = {registry}

handler = {factory}({arguments})
{main}'''

_QUEUE = """
if __name__ == "__main__":
    import runpod

{before}    runpod.serverless.start({{{options}}})
"""
_STOPPABLE = "    handler = stoppable(handler)  # the worker SDK cancels a job where it is awaited\n"

_ROUTES = """
from flame_host.serverless.http import create_app, serve, with_requests  # noqa: E402

ROUTES = {routes}

app = create_app(ROUTES, handler, title={title})
either = with_requests(handler, app)

if __name__ == "__main__":
    serve(app)
"""

_PROBE = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
try:
    module = importlib.import_module(sys.argv[2])
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in sys.argv[3].split(","):
        print(error.name)
        sys.exit(3)
    raise
sys.exit(not callable(module.handler))
"""
_OF_THE_IMAGE = 3
_WANTED_VARIABLE = re.compile(r"os\.environ(?:.*\n){1,4}KeyError: '(\w+)'$")
"""The end of a traceback of a program that reads a variable which is not there."""


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
            text = self._text(resource, entry)
            try:
                compile(text, path.name, "exec")
            except (SyntaxError, ValueError) as error:
                raise BuildError([Problem(path.name, 0, f"the handler of resource {resource!r} is not valid Python: {error}")]) from error
            path.write_text(text, encoding="utf-8")
            written.append(path)
        return written

    def _text(self, resource: str, entry: Mapping[str, Any]) -> str:
        bindings, registry, routes, taken = [], [], [], set(_TAKEN)
        for function in entry.get("functions") or ():
            name, module = function["name"], function["module"]
            bound = name.replace(".", "_")
            while bound in taken:
                bound += "_"
            taken.add(bound)
            bindings.append(f"{bound} = importlib.import_module({_quoted(module)}).{name}")
            registry.append(f"    {_quoted(name)}: {bound},")
            if "route" in function:
                route = function["route"]
                routes.append(f"    ({_quoted(route['method'])}, {_quoted(route['path'])}): {bound},")
        roots = self.manifest.get("source_paths") or ["."]
        paths = ", ".join("ROOT" if root == "." else f"os.path.join(ROOT, {_quoted(root)})" for root in roots)
        factory, arguments, options = _kind_of(entry)
        names = factory
        if answers_http(entry):
            main = _ROUTES.format(routes="{\n" + "\n".join(routes) + "\n}", title=_quoted(resource))
        else:
            awaited = factory == "create_handler"
            names += ", stoppable" if awaited else ""
            main = _QUEUE.format(before=_STOPPABLE if awaited else "", options=", ".join(['"handler": handler', *options]))
        return _TEMPLATE.format(
            resource=_quoted(resource),
            factory=factory,
            names=names,
            arguments=arguments,
            main=main,
            paths=f"[{paths}]",
            bindings="\n".join(bindings) or "# This resource has no functions.",
            registry="{\n" + "\n".join(registry) + "\n}" if registry else "{}",
        )


def answers_http(entry: Mapping[str, Any]) -> bool:
    """Whether a resource's workers are HTTP servers: it has routes, or is of a kind that has no queue."""
    return is_balanced(str(entry.get("resource_type"))) or any("route" in function for function in entry.get("functions") or ())


def streams(entry: Mapping[str, Any]) -> bool:
    """Whether a resource's handler sends what its functions yield as it comes: if all of them yield, and none answers HTTP."""
    functions = entry.get("functions") or ()
    return bool(functions) and all(function.get("is_generator") for function in functions) and not answers_http(entry)


def _kind_of(entry: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Name of the factory, its arguments, and what the worker is told besides the handler."""
    most = 1 if answers_http(entry) else int(entry.get("max_concurrency") or 1)  # there the HTTP server sees to it
    arguments = "FUNCTION_REGISTRY" if most == 1 else f"FUNCTION_REGISTRY, {most}"
    concurrency = [f'"concurrency_modifier": lambda current: {most}'] if most > 1 else []
    if streams(entry):
        return "create_stream_handler", arguments, ['"return_aggregate_stream": True', *concurrency]
    return "create_concurrent_handler" if most > 1 else "create_handler", arguments, concurrency


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def check_imports(
    handlers: Iterable[Path], python: Path, build_dir: Path, manifest: Mapping[str, Any] | None = None, present: Iterable[str] = ()
) -> list[str]:
    """Import each handler in a process that sees the standard library, the build and the resource's variables, and nothing else.

    This runs the project's modules, as every worker will when it starts.

    Args:
        manifest: that tells the variables of the resources. present: modules that only the workers' image has.

    Returns:
        Which could not be tried out for want of one of those.

    Raises:
        BuildError: with what each of them printed.
    """
    problems, untried = [], []
    entries = {entry["handler_file"]: entry for entry in (manifest or {}).get("resources", {}).values()}
    for path in handlers:
        entry = entries.get(path.name, {})
        order = [os.fspath(python), "-I", "-S", "-B", "-c", _PROBE, os.fspath(build_dir), path.stem, ",".join(sorted(present))]
        try:
            done = run(order, cwd=build_dir, env=_environment(entry), seconds=_SECONDS)
        except subprocess.TimeoutExpired:
            problems.append(Problem(path.name, 0, f"importing it takes longer than {_SECONDS} s"))
            continue
        if done.returncode == _OF_THE_IMAGE:
            untried.append(f"{path.name} was not tried out: it imports {done.stdout.strip()}, which the image has")
        elif done.returncode:
            tail = "\n".join(f"    | {line}" for line in done.stderr.strip().splitlines()[-12:])
            wanted = _WANTED_VARIABLE.search(done.stderr.strip())
            hint = f"\n    it wants the variable {wanted[1]} when it is imported; name it in env= of its resource" if wanted else ""
            problems.append(Problem(path.name, 0, f"cannot be imported by a worker:\n{tail}{hint}"))
    if problems:
        raise BuildError(problems, hint="is something missing in the project's dependencies? --keep-build keeps the directory to look at")
    return untried


def _environment(entry: Mapping[str, Any]) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    # What is to be set where it runs is set here, too, to nothing: that it is missing is no mistake of the program.
    return {**keep, **{name: "" if value is None else str(value) for name, value in (entry.get("env") or {}).items()}}
