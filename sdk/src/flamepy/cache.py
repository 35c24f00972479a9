"""Objects in the cache: put once, pass the reference, get anywhere."""

from __future__ import annotations

from typing import Any

from flame_host import api
from flamepy import _client
from flamepy._refs import ObjectRef

__all__ = ["ObjectRef", "delete_object", "delete_objects", "get_object", "put_object", "update_object"]


def put_object(key_prefix: str, obj: Any) -> ObjectRef:
    """Store an object under a fresh name.

    Args:
        key_prefix: ``<application>/<session>``; a single part is put below ``objects/``.
    """
    parts = [part for part in key_prefix.split("/") if part]
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"the prefix {key_prefix!r} must be <application>/<session>, or one part")
    client = _client.default_client()
    key = "/".join(parts if len(parts) == 2 else ("objects", *parts))
    return ObjectRef.of(client.connection.objects.put(key, client.encode(obj, client.plan_for_values())))


def get_object(ref: api.ObjectRef) -> Any:
    """The object of a reference: of exactly that version, or of the newest when ``ref.version`` is 0.

    Raises:
        ObjectNotFoundError: it is gone, or never was.
    """
    missing: Exception | None = None
    for client in _clients_for(ref):
        try:
            return client.decode(client.connection.objects.get(ref))
        except api.ObjectNotFoundError as error:
            missing = missing or error
    raise missing or api.ObjectNotFoundError(f"no object {ref.key}")


def update_object(ref: api.ObjectRef, new_obj: Any, *, if_version: int | None = None) -> ObjectRef:
    """Replace an object; its version grows by one.

    Args:
        if_version: only when that is the current version.

    Raises:
        VersionConflictError: somebody else was faster.
    """
    client = _clients_for(ref)[0]
    return ObjectRef.of(client.connection.objects.update(ref, client.encode(new_obj, client.plan_for_values()), if_version=if_version))


def delete_object(ref: api.ObjectRef) -> None:
    """Remove one object, in all its versions; what is not there is no error."""
    for client in _clients_for(ref):
        client.connection.objects.delete(ref.key)


def delete_objects(key_prefix: str) -> int:
    """Remove what stands under a key or prefix; returns how many objects went."""
    client = _client.default_client()
    parts = [part for part in key_prefix.split("/") if part]
    return client.connection.objects.delete("/".join(parts if len(parts) > 1 else ("objects", *parts)))


def _clients_for(ref: api.ObjectRef) -> list[_client.Client]:
    """Those whose cache the reference names; else the default one, which says what it does not know."""
    fitting = [client for client in list(_client._clients.values()) if client.connection.objects.endpoint == ref.endpoint]
    return fitting or [_client.default_client()]
