"""Objects in the caches of this process's clients, by their references."""

from __future__ import annotations

from typing import Any

from flame_host.api import ObjectNotFoundError, ObjectRef
from flamepy import _client


def put(key_prefix: str, obj: Any) -> ObjectRef:
    """See `flamepy.put_object`."""
    parts = [part for part in key_prefix.split("/") if part]
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"the prefix {key_prefix!r} must be <application>/<session>, or one part")
    client = _client.default_client()
    key = "/".join(parts if len(parts) == 2 else ("objects", *parts))
    return client.objects.put(key, client.encode(obj, client.plan_for_values()))


def get(ref: ObjectRef) -> Any:
    """See `flamepy.get_object`."""
    missing: Exception | None = None
    for client in _clients_for(ref):
        try:
            return client.decode(client.stores.at(ref.endpoint).get(ref))
        except ObjectNotFoundError as error:
            missing = missing or error
    raise missing or ObjectNotFoundError(f"no object {ref.key}")


def update(ref: ObjectRef, new_obj: Any, if_version: int | None) -> ObjectRef:
    """See `flamepy.update_object`."""
    client = _clients_for(ref)[0]
    return client.stores.at(ref.endpoint).update(ref, client.encode(new_obj, client.plan_for_values()), if_version=if_version)


def delete(ref: ObjectRef) -> None:
    """Remove one object, in all its versions; what is not there is no error."""
    for client in _clients_for(ref):
        client.stores.at(ref.endpoint).delete(ref.key)


def delete_below(key_prefix: str) -> int:
    """See `flamepy.delete_objects`."""
    parts = [part for part in key_prefix.split("/") if part]
    return _client.default_client().objects.delete("/".join(parts if len(parts) > 1 else ("objects", *parts)))


def _clients_for(ref: ObjectRef) -> list[_client.Client]:
    """Those whose cache the reference names; else the default one, which says what it does not know."""
    fitting = [client for client in list(_client._clients.values()) if client.stores.knows(ref.endpoint)]
    return fitting or [_client.default_client()]
