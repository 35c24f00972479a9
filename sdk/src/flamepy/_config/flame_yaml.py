"""``flame.yaml``: which cluster, which cache, where packages go.

Both shapes are read: ``current-cluster`` with ``clusters:``, and the newer ``current-context`` with ``contexts:``. No file is needed:
then everything runs on this machine.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError

DEFAULT_EXCLUDES = (".venv", "__pycache__", ".gitignore", "*.pyc")
"""Never packed; patterns of one's own come on top."""

_MOST_BYTES = 1 << 20
_TOP = {"current-cluster", "clusters", "current-context", "contexts"}
_CLUSTER = {"name", "endpoint", "cache", "package", "tls", "cluster", "runner", "policy"}
_NESTED = {
    "package": {"storage", "excludes", "exclude"},
    "tls": {"ca_file"},
    "cache": {"endpoint", "storage", "tls"},
    "runner": {"template"},
}


@dataclass
class FlamePackage:
    """Where packages are put, and what is left out of them.

    Attributes:
        storage: URL of a directory or prefix: ``file:///shared/packages``, ``s3://bucket/prefix``.
        excludes: patterns as in ``.gitignore``; the defaults are always among them.
    """

    storage: str
    excludes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.storage, str) or not self.storage:
            raise ConfigError("a package needs a storage", hint="write  storage: file:///absolute/directory")
        if "://" not in self.storage and not self.storage.startswith("file:"):
            raise ConfigError(f"storage {self.storage!r} is not a URL", hint=f"write  file://{os.path.abspath(self.storage)}")
        if isinstance(self.excludes, str):
            raise ConfigError(f"excludes is one string, {self.excludes!r}", hint=f"write a list: [{self.excludes!r}]")
        self.excludes = merged_excludes(self.excludes)


def merged_excludes(excludes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys((*DEFAULT_EXCLUDES, *excludes)))


class FlameContext:
    """The current cluster of ``flame.yaml``, with what the environment says on top.

    Args:
        path: the file to read; by default ``flame.yaml`` here, else ``~/.flame/flame.yaml``, else none.

    Attributes:
        path: the file that was read, or None.
        name: of the cluster or context. endpoint: of the engine, empty for the default. cache: endpoint of the cache.
        package: None when no file has such a section.
        policy: what the file forbids, ``{"pickle": "deny"}``.
        origins: attribute → where its value comes from, for messages.

    Raises:
        ConfigError: naming file and line.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.name = ""
        self.endpoint = ""
        self.cache = ""
        self.cache_storage = ""
        self.ca_file = ""
        self.template = "flmrun"
        self.package: FlamePackage | None = None
        self.policy: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self.path = _find(path)
        if self.path is not None:
            self._read(self.path)
        for variable, attribute in _VARIABLES.items():
            if os.environ.get(variable):
                setattr(self, attribute, os.environ[variable])
                self.origins[attribute] = variable

    @property
    def cache_endpoint(self) -> str:
        return self.cache

    def _read(self, path: Path) -> None:
        document = _Document(path)
        root = document.value
        if not root:
            return
        document.check_keys(root, _TOP, ())
        family, current = ("contexts", "current-context") if "contexts" in root else ("clusters", "current-cluster")
        entries = root.get(family) or []
        if isinstance(entries, Mapping):
            for name, entry in entries.items():
                document.check_keys(entry or {}, _CLUSTER, (family, name))
            entries = [{"name": name, **(entry or {})} for name, entry in entries.items()]
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise document.error((family,), f"{family} must be a list of entries, not {reprlib.repr(entries)}", "")
        names = [entry.get("name") for entry in entries]
        wanted = root.get(current) or (names[0] if len(names) == 1 else None)
        if wanted is None and entries:
            raise document.error((), f"{current} is missing", f"write  {current}: {names[0]}")
        if wanted is not None and wanted not in names:
            known = ", ".join(map(str, names)) or "none"
            raise document.error((current,), f"{current} is {wanted!r}, but there is no such entry; there are: {known}", "")
        if wanted is not None:
            index = names.index(wanted)
            self._take(document, entries[index], (family, index))

    def _take(self, document: _Document, entry: Mapping[str, Any], where: tuple[Any, ...]) -> None:
        document.check_keys(entry, _CLUSTER, where)
        if isinstance(entry.get("cluster"), Mapping):  # the newer shape keeps these one level down
            self._take(document, {"name": entry.get("name"), **entry["cluster"]}, (*where, "cluster"))
        self.name = entry.get("name") or self.name
        for key, attribute in (("endpoint", "endpoint"), ("policy", "policy")):
            if entry.get(key):
                self._set(attribute, entry[key], document.origin((*where, key)))
        nested = {key: document.mapping(entry.get(key), (*where, key), allowed) for key, allowed in _NESTED.items() if entry.get(key)}
        for key, inner, attribute in _PLACES:
            if nested.get(key, {}).get(inner):
                self._set(attribute, nested[key][inner], document.origin((*where, key)))
        if "package" in nested:
            section = nested["package"]
            if not section.get("storage"):
                raise document.error((*where, "package"), "package has no storage", "write  storage: file:///absolute/directory")
            self._set(
                "package",
                FlamePackage(section["storage"], section.get("excludes") or section.get("exclude") or []),
                document.origin((*where, "package")),
            )

    def _set(self, attribute: str, value: Any, origin: str) -> None:
        setattr(self, attribute, value)
        self.origins[attribute] = origin

    def __repr__(self) -> str:
        return f"<FlameContext {self.name or '(embedded)'} endpoint={self.endpoint or '(this machine)'} from {self.path or 'defaults'}>"


_VARIABLES = {
    "FLAME_ENDPOINT": "endpoint",
    "FLAME_CACHE_ENDPOINT": "cache",
    "FLAME_CACHE_STORAGE": "cache_storage",
    "FLAME_CA_FILE": "ca_file",
}

_PLACES = (
    ("cache", "endpoint", "cache"),
    ("cache", "storage", "cache_storage"),
    ("tls", "ca_file", "ca_file"),
    ("runner", "template", "template"),
)


def _find(path: str | Path | None) -> Path | None:
    if path is not None or os.environ.get("FLAME_CONFIG"):
        given = Path(path or os.environ["FLAME_CONFIG"]).expanduser()
        if not given.is_file():
            raise ConfigError(f"there is no configuration file {given}", hint="give the path of a flame.yaml, or none at all")
        return given
    return next((place for place in (Path("flame.yaml").absolute(), Path.home() / ".flame" / "flame.yaml") if place.is_file()), None)


def _pairs(node: Any) -> list[Any]:
    value = getattr(node, "value", ())
    return [pair for pair in value if isinstance(pair, tuple)] if isinstance(value, list) else []


class _Document:
    """A YAML file whose parts know their lines."""

    def __init__(self, path: Path) -> None:
        import yaml

        self.path = path
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigError(f"{path} has {path.stat().st_size} bytes; {_MOST_BYTES} are read")
            text = path.read_text(encoding="utf-8")
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark is not None else ""
            raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        except RecursionError:
            raise ConfigError(f"{path} is nested too deep") from None
        except (ValueError, TypeError) as error:  # a date that is none, a key that no table can have
            raise ConfigError(f"{path}: not valid YAML: {error!s:.500}") from error
        if self.value is not None and not isinstance(self.value, Mapping):
            raise ConfigError(f"{path} holds a {type(self.value).__name__}, not keys and values")

    def origin(self, where: tuple[Any, ...]) -> str:
        return f"{self.path.name} line {self._line(where)}"

    def _line(self, where: tuple[Any, ...]) -> int:
        node, line = self._root, 0
        for step in where:
            children: list[tuple[Any, Any, Any]]
            if isinstance(step, int):
                children = [
                    (index, *(child if isinstance(child, tuple) else (child, child)))
                    for index, child in enumerate(getattr(node, "value", ()))
                    if not isinstance(child, str)  # of a scalar, where a key stands twice and we look into the other one
                ]
            else:
                children = [(key.value, key, child) for key, child in _pairs(node)]
            found = next(((key, child) for name, key, child in children if name == step), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        return line + 1

    def error(self, where: tuple[Any, ...], message: str, hint: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {self._line(where)}: {message}", hint=hint)

    def check_keys(self, value: Any, known: set[str], where: tuple[Any, ...]) -> None:
        if not isinstance(value, Mapping):
            raise self.error(where, f"expected keys and values, not {reprlib.repr(value)}", "")
        for key in value:
            if key not in known:
                raise self.error((*where, key), *unknown_key(str(key), known))

    def mapping(self, value: Any, where: tuple[Any, ...], known: set[str]) -> Mapping[str, Any]:
        """A section: a mapping, a list holding one, or (of cache and runner) the bare value of its first key."""
        if isinstance(value, list):
            if len(value) != 1:
                raise self.error(where, f"{where[-1]} is a list of {len(value)}; one entry is expected", "")
            value, where = value[0], (*where, 0)
        if isinstance(value, str) and "endpoint" in known:
            return {"endpoint": value}
        if isinstance(value, str) and "template" in known:
            return {"template": value}
        self.check_keys(value, known, where)
        return dict(value)


def unknown_key(key: str, known: Iterable[str]) -> tuple[str, str]:
    """Message and advice for a key that is not known."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"unknown key {key!r}", f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
