"""Objects in the cache: put once, pass the reference, get anywhere."""

from __future__ import annotations

from typing import Any

from flame_host import api
from flamepy import _objects
from flamepy._refs import ObjectRef

__all__ = ["ObjectRef", "delete_object", "delete_objects", "get_object", "put_object", "update_object"]


def put_object(key_prefix: str, obj: Any) -> ObjectRef:
    """Store an object under a fresh name.

    Args:
        key_prefix: ``<application>/<session>``; a single part is put below ``objects/``.
    """
    return ObjectRef.of(_objects.put(key_prefix, obj))


def get_object(ref: api.ObjectRef) -> Any:
    """The object of a reference: of exactly that version, or of the newest when ``ref.version`` is 0.

    Raises:
        ObjectNotFoundError: it is gone, or never was.
    """
    return _objects.get(ref)


def update_object(ref: api.ObjectRef, new_obj: Any, *, if_version: int | None = None) -> ObjectRef:
    """Replace an object; its version grows by one.

    Args:
        if_version: only when that is the current version.

    Raises:
        VersionConflictError: somebody else was faster.
    """
    return ObjectRef.of(_objects.update(ref, new_obj, if_version))


def delete_object(ref: api.ObjectRef) -> None:
    """Remove one object, in all its versions; what is not there is no error."""
    _objects.delete(ref)


def delete_objects(key_prefix: str) -> int:
    """Remove what stands under a key or prefix; returns how many objects went."""
    return _objects.delete_below(key_prefix)
