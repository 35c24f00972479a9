"""Dataclasses as data: the name of a class that both sides have loaded, and its fields. Nothing is imported and nothing of it runs.

Neither ``__init__`` nor ``__post_init__`` nor a setter: what arrives has the fields that were sent, as a copy has them.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from typing import Any

from flame_serialize_msgpack._code import main_module, name_of, own_contents
from flame_serialize_msgpack._extensions import CannotPack, CannotUnpack


def is_record(kind: type) -> bool:
    return "__dataclass_fields__" in kind.__dict__


@functools.lru_cache(maxsize=1000)
def written_as(kind: type) -> tuple[str, str, tuple[str, ...]]:
    """Module, qualified name and fields of a class.

    Raises:
        CannotPack: the other side could not find it, or not fill it.
    """
    own_contents(kind)
    module, qualname = name_of(kind)
    return module, qualname, tuple(field.name for field in dataclasses.fields(kind))


def contents_of(value: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    kind = type(value)
    found = {}
    for name in fields:
        try:
            found[name] = object.__getattribute__(value, name)
        except AttributeError:
            raise CannotPack(f"is a {kind.__qualname__} whose field {name} has no value") from None
    more = sorted(vars(value).keys() - set(fields)) if hasattr(value, "__dict__") else []
    if more:
        raise CannotPack(
            f"is a {kind.__qualname__} that holds {', '.join(more[:5])} beside its fields", "make it a field, or use cloudpickle"
        )
    return found


def put_together(module: Any, qualname: Any, contents: Any) -> Any:
    kind = _loaded(module, qualname)
    fields = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(contents, dict) or contents.keys() != fields:
        raise CannotUnpack(f"{module}:{qualname} has the fields {', '.join(sorted(fields))} here, and other ones where this was written")
    instance: Any = object.__new__(kind)
    for name, value in contents.items():
        slot = next((ancestor.__dict__[name] for ancestor in kind.__mro__ if name in ancestor.__dict__), None)
        if isinstance(slot, types.MemberDescriptorType):
            slot.__set__(instance, value)
        else:
            instance.__dict__[name] = value
    return instance


def _loaded(module: Any, qualname: Any) -> Any:
    """A dataclass of a module that was imported already, whoever asks."""
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise CannotUnpack("a record's name is not two strings")
    main = sys.modules.get("__main__")
    found: Any = main if main is not None and module == main_module(main) else sys.modules.get(module)
    if found is None:
        raise CannotUnpack(
            f"the value is a {module}:{qualname}, and that module is not loaded here; nothing is imported for a message: "
            "import it where the code that takes or asks for the value is"
        )
    home = found.__name__
    for name in qualname.split("."):
        found = vars(found).get(name) if isinstance(found, (type, types.ModuleType)) else None
    if not isinstance(found, type) or not is_record(found) or found.__module__ != home or found.__qualname__ != qualname:
        raise CannotUnpack(f"{module}:{qualname} is no dataclass of that module here")
    try:
        own_contents(found)
    except CannotPack as error:
        raise CannotUnpack(f"{module}:{qualname} {error.reason}") from None
    return found
