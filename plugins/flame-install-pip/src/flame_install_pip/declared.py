"""What pip can do of a project's declarations for uv, as options and direct references; the rest is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flame_host.api import InstallError, Requirements

_HARMLESS = {"sources", "managed", "package", "environments", "required-environments", "required-version", "link-mode", "cache-dir",
             "concurrent-builds", "concurrent-downloads", "concurrent-installs", "compile-bytecode", "python-downloads",
             "python-preference", "native-tls", "preview", "cache-keys", "conflicts", "no-progress", "offline", "add-bounds"}  # fmt: skip
_NOT_DECIDING = (
    "PIP_CACHE_DIR",
    "PIP_NO_CACHE_DIR",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_NO_INPUT",
    "PIP_PROGRESS_BAR",
    "PIP_TIMEOUT",
    "PIP_RETRIES",
    "PIP_LOG",
)


def refuse_lock(needs: Requirements) -> None:
    if needs.lock is not None:
        raise InstallError(
            f"{needs.lock.name} decides the versions of this project, and pip cannot read it",
            hint='use installers = ["uv"], or write the versions down: uv export --format requirements.txt -o requirements.txt',
        )


def options_of(needs: Requirements, scratch: Path) -> list[str]:
    """Indexes and constraints of ``[tool.uv]`` as pip's options, in a file: URLs of indexes may hold tokens."""
    settings = needs.settings
    found: list[tuple[str, str]] = []
    left = set(settings) - _HARMLESS
    for index in settings.get("index", ()):
        if index.get("explicit"):
            continue  # only a source can ask for it, and that is refused
        found.append(("--index-url" if index.get("default") else "--extra-index-url", str(index["url"])))
    for name in ("index-url", "extra-index-url", "find-links"):
        values = settings.get(name, [])
        found += [(f"--{name}", str(value)) for value in ([values] if isinstance(values, str) else values)]
    constraints = settings.get("constraint-dependencies", [])
    if constraints:
        (scratch / "constraints.txt").write_text("\n".join(constraints) + "\n")
        found.append(("--constraint", str(scratch / "constraints.txt")))
    left -= {"index", "index-url", "extra-index-url", "find-links", "constraint-dependencies"}
    refused = [f"[tool.uv] {name}" for name in sorted(left)]
    refused += [f"[tool.uv.sources] {name} (index)" for name, source in _items(settings.get("sources", {})) if "index" in source]
    if refused:
        raise InstallError(
            f"pip cannot do what the project declares for uv: {', '.join(refused)}", hint='use installers = ["uv"], or take it out'
        )
    if not found:
        return []
    (scratch / "options.txt").write_text("".join(f"{option} {shlex.quote(value)}\n" for option, value in found))
    return ["-r", str(scratch / "options.txt")]


def direct(needs: Requirements) -> list[str]:
    """The dependencies, each with a source as a direct reference to it: such a name is never looked up on an index."""
    places = {name: _reference(source) for name, source in _items(needs.settings.get("sources", {}))}
    places |= {item.name: item.path.as_uri() for item in needs.locals}
    found = [_with_place(text, places) for text in needs.dependencies]
    named = {_name(text) for text in needs.dependencies}
    found += [f"{item.name} @ {item.path.as_uri()}" for item in needs.locals if item.name not in named]
    return found


def _items(sources: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, source in sources.items():
        for item in source if isinstance(source, list) else [source]:
            yield name, item


def _reference(source: Mapping[str, Any]) -> str:
    below = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
    if "git" in source:
        revision = source.get("rev") or source.get("tag") or source.get("branch")
        return f"git+{source['git']}" + (f"@{revision}" if revision else "") + below
    return f"{source['url']}{below}" if "url" in source else ""


def _with_place(text: str, places: Mapping[str, str]) -> str:
    place = places.get(_name(text), "")
    if not place or "@" in text.partition(";")[0]:
        return text
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(\[[^\]]*\])?", text)
    assert match is not None
    marker = text.partition(";")[2].strip()
    return f"{match[1]}{match[2] or ''} @ {place}" + (f" ; {marker}" if marker else "")


def _name(text: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9._-]+)", text)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def fingerprint() -> str:
    """Of pip's variables and configuration files, as far as they decide what gets installed; empty when there are none."""
    deciding = {name: value for name, value in sorted(os.environ.items()) if name.startswith("PIP_") and name not in _NOT_DECIDING}
    named = [deciding[name] for name in ("PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_CONFIG_FILE") if name in deciding]
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (
        *(Path(part) for value in named for part in value.split()),
        user / "pip" / "pip.conf",
        Path("~/.pip/pip.conf").expanduser(),
        Path("/etc/pip.conf"),
    ):
        if path.is_file():
            deciding[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:8] if deciding else ""
