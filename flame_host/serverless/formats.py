"""Values as text in a job: base64 of one of the formats this worker admits.

A message names a format; which code reads it is said by this module, the manifest of the package, or the host's plugins, never by
the message.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from flame_host.serverless.manifest import MANIFEST_NAME

CLOUDPICKLE = "cloudpickle/1"
JSON = "json/1"
_PREFERRED_PLAIN = ("msgpack/1", JSON)
_PLAIN = frozenset(_PREFERRED_PLAIN)
_MEBIBYTE = 1 << 20


class Codec(NamedTuple):
    """How one format is written and read.

    Attributes:
        format: name and major version, ``"cloudpickle/1"``.
    """

    format: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


class PayloadError(ValueError):
    """A job's payload is not what it should be."""


class PayloadTooLargeError(PayloadError):
    """An argument or a result exceeds its budget."""


class Formats:
    """The formats a worker admits, and the one it writes when it is not told."""

    def __init__(self, manifest: Mapping[str, Any] | None = None) -> None:
        manifest = manifest or {}
        entries = [entry for entry in manifest.get("serializers") or () if isinstance(entry, Mapping)]
        self._modules = {str(entry.get("format")): str(entry["codec"]) for entry in entries if entry.get("codec")}
        self.pickle_denied = _pickle_denied(manifest)
        named = [str(entry.get("format")) for entry in entries]
        self._known: dict[str, Codec] = {}
        self.names = tuple(name for name in named if not self._refused(name))
        if not self.names:
            self.names = _PREFERRED_PLAIN if self.pickle_denied else (CLOUDPICKLE, *_PREFERRED_PLAIN)

    @property
    def default(self) -> Codec:
        for name in self.names:
            try:
                return self.codec(name)
            except PayloadError:  # a worker need not have everything that is admitted
                continue
        raise PayloadError(f"none of the formats {', '.join(self.names)} can be read here")

    def codec(self, name: str | None) -> Codec:
        """The codec of a format, the default one for None.

        Raises:
            PayloadError: it is not admitted here, or nothing here can read it.
        """
        if name is None:
            return self.default
        if isinstance(name, str) and name in self._known:
            return self._known[name]
        if not isinstance(name, str) or self._refused(name):
            why = "pickle is denied by policy" if self.pickle_denied else "it is no format's name"
            raise PayloadError(f"the format {name!r} is not admitted: {why}; this worker reads {', '.join(self.names)}")
        if name not in self.names:
            raise PayloadError(f"the format {name!r} is not admitted; this worker reads {', '.join(self.names)}")
        self._known[name] = self._load(name)
        return self._known[name]

    def _refused(self, name: str) -> bool:
        # Whatever is not known to be plain data may run code when it is read.
        return self.pickle_denied and name not in _PLAIN

    def _load(self, name: str) -> Codec:
        if name == CLOUDPICKLE:
            return Codec(name, _dump_pickle, _load_pickle)
        if name == JSON:
            return Codec(name, _dump_json, _load_json)
        module = self._modules.get(name) or _codec_module_of_host(name)
        if module is None:
            raise PayloadError(f"the format {name!r} is admitted, but nothing installed here can read it")
        try:
            codec = import_module(module)
        except ImportError as error:
            raise PayloadError(f"the format {name!r} is admitted, but its codec cannot be imported: {error}") from error
        return Codec(name, codec.dumps, codec.loads)


def _pickle_denied(manifest: Mapping[str, Any]) -> bool:
    """Raises `ConfigError` for a policy that has a word nobody knows: it must not pass for one that allows."""
    pickle = os.environ.get("FLAME_POLICY_PICKLE", "")
    said = (
        (os.environ.get("FLAME_POLICY"), "FLAME_POLICY"),
        ({"pickle": pickle} if pickle else None, "FLAME_POLICY_PICKLE"),
        (manifest.get("policy"), MANIFEST_NAME),
    )
    if not any(value for value, _ in said):
        return False
    from flame_host.api import denies, parse_policy

    policies = [parse_policy(value, origin) for value, origin in said]  # all of them, whatever the first says
    return any(denies(policy, "pickle") for policy in policies)


def _codec_module_of_host(name: str) -> str | None:
    """Ask the plugins; only for formats nobody else has named, because this loads all of them."""
    try:
        from flame_host._plugins.catalog import Catalog

        return Catalog().serializer(name).codec
    except Exception:  # an archive holds only as much of the host as handlers need
        return None


def _dump_pickle(value: object) -> bytes:
    import cloudpickle  # type: ignore[import-untyped,unused-ignore]

    data: bytes = cloudpickle.dumps(value)
    return data


def _load_pickle(data: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(data)


def _dump_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _load_json(data: bytes) -> Any:
    return json.loads(data)


# ---------------------------------------------------------------- text


def argument_limit() -> int:
    """Bytes one encoded argument may have."""
    return _limit("FLAME_MAX_ARGUMENT_BYTES", 10 * _MEBIBYTE)


def result_limit() -> int:
    """Bytes an encoded result may have."""
    return _limit("FLAME_MAX_RESULT_BYTES", 20 * _MEBIBYTE)


def _limit(variable: str, default: int) -> int:
    given = os.environ.get(variable, "")
    return int(given) if given.isdigit() else default


def encode(value: object, codec: Codec, limit: int, what: str) -> str:
    data = codec.dumps(value)
    if len(data) > limit:
        raise PayloadTooLargeError(f"{what} has {len(data)} bytes as {codec.format}; {limit} are allowed")
    return base64.b64encode(data).decode("ascii")


def decode(text: object, codec: Codec, limit: int, what: str) -> Any:
    if not isinstance(text, str):
        raise PayloadError(f"{what} must be base64 text, not {type(text).__name__}")
    if len(text) > (limit + 2) // 3 * 4:
        raise PayloadTooLargeError(f"{what} has about {len(text) * 3 // 4} bytes; {limit} are allowed")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PayloadError(f"{what} is not base64: {error}") from error
    try:
        return codec.loads(data)
    except Exception as error:
        raise PayloadError(f"{what} cannot be read as {codec.format}: {type(error).__name__}: {error}") from error


def decode_list(values: object, codec: Codec, what: str) -> list[Any]:
    if values is None:
        return []
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise PayloadError(f"{what} must be a list, not {type(values).__name__}")
    return [decode(value, codec, argument_limit(), f"{what}[{index}]") for index, value in enumerate(values)]


def decode_dict(values: object, codec: Codec, what: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise PayloadError(f"{what} must be an object, not {type(values).__name__}")
    return {name: decode(value, codec, argument_limit(), f"{what}[{name!r}]") for name, value in values.items()}
