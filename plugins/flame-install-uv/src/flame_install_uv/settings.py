"""What of uv's own configuration decides what gets installed, and a project's settings as a file that uv reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NOT_DECIDING = (
    "UV_CACHE_DIR", "UV_NO_CACHE", "UV_NO_PROGRESS", "UV_CONCURRENT_BUILDS", "UV_CONCURRENT_DOWNLOADS", "UV_CONCURRENT_INSTALLS",
    "UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "UV_LINK_MODE", "UV_OFFLINE", "UV_LOG_CONTEXT", "UV_RUN_RECURSION_DEPTH", "UV_QUIET",
    "UV_PYTHON_INSTALL_DIR", "UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "UV_INSTALL_DIR", "UV_HTTP_RETRIES",
)  # fmt: skip
PROJECT_VARIABLES = (
    "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIRECTORY", "UV_WORKING_DIR", "UV_PYTHON", "UV_ACTIVE", "UV_FROZEN", "UV_LOCKED",
    "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_REQUIRE_HASHES", "UV_NO_SYNC", "UV_VENV_CLEAR", "UV_VENV_SEED",
    "UV_NO_EDITABLE", "UV_COMPILE_BYTECODE",
)  # fmt: skip
"""About the project and environment of whoever calls us, not about this one."""


def fingerprint() -> str:
    """Of the variables and the files of this user that decide; empty when there are none."""
    left_out = {*_NOT_DECIDING, *PROJECT_VARIABLES}
    deciding = {name: value for name, value in sorted(os.environ.items()) if name.startswith("UV_") and name not in left_out}
    for name in ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE"):
        for path in deciding.get(name, "").split():
            deciding[f"content of {path}"] = _content(Path(path))
    for file in _files():
        content = _content(file)
        if content:
            deciding[str(file)] = content
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:8] if deciding else ""


def _files() -> list[Path]:
    named = os.environ.get("UV_CONFIG_FILE")
    if named:
        return [Path(named)]
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return [user / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def project_text(dependencies: Sequence[str], settings: Mapping[str, Any], local: Mapping[str, Path]) -> str:
    """A ``pyproject.toml`` that asks for the dependencies under the project's settings; local projects come from their paths."""
    sources = {**settings.get("sources", {}), **{name: {"path": str(path)} for name, path in local.items()}}
    uv = {**{key: value for key, value in settings.items() if key != "sources"}, "package": False}
    lines = ["[project]", 'name = "flame-environment"', 'version = "0"', f"dependencies = {toml(list(dependencies))}", "[tool.uv]"]
    lines += [f"{toml(key)} = {toml(value)}" for key, value in uv.items()]
    lines += ["[tool.uv.sources]", *(f"{toml(name)} = {toml(source)}" for name, source in sources.items())]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=True)
