"""Functions, classes and instances by import path: for the object a session is about, never for arguments or results."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from flame_serialize_msgpack import _extensions as ext
from flame_serialize_msgpack._extensions import CannotPack, CannotUnpack, CodeNotAllowed

_HEAP_TYPE = 1 << 9
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


def is_code(value: Any) -> bool:
    """Whether it has to go by import path: a function, a class, or an instance of a class made by a class statement."""
    return isinstance(value, (type, *_FUNCTIONS, types.MethodType)) or bool(type(value).__flags__ & _HEAP_TYPE and not _is_library(value))


def _is_library(value: Any) -> bool:
    """Plain values whose types are heap types on some versions: dates, decimals, paths, arrays."""
    return type(value).__module__.partition(".")[0] in {"numpy", "datetime", "decimal", "_decimal", "_pydecimal", "uuid", "pathlib"}


def taken_apart(value: Any) -> tuple[int, list[Any]]:
    """The extension's number and its parts: ``[module, qualname]``, and the state of an instance."""
    if isinstance(value, (type, *_FUNCTIONS)):
        return ext.NAME, list(name_of(value))
    if isinstance(value, types.MethodType):
        raise CannotPack("is a bound method", "give the instance; its methods are called by name")
    return ext.INSTANCE, [*name_of(type(value)), _state_of(value)]


def put_together(code: int, parts: Any, allow: Callable[[str], bool] | None) -> Any:
    if code == ext.NAME:
        module, qualname = parts
        return _find(module, qualname, allow)
    module, qualname, state = parts
    kind: Any = _find(module, qualname, allow)
    if not isinstance(kind, type):
        raise CannotUnpack(f"{module}:{qualname} is no class, so nothing can be an instance of it")
    instance: Any = object.__new__(kind)
    restore = getattr(instance, "__setstate__", None)
    if restore is not None:
        restore(state)
    else:
        instance.__dict__.update(state)
    return instance


def name_of(code: Any) -> tuple[str, str]:
    """Where it can be imported from; checked here, because on the other side it could only fail, or find something else."""
    module, qualname = getattr(code, "__module__", None) or "", getattr(code, "__qualname__", "")
    if "<" in qualname:
        raise CannotPack(f"is {qualname}, which no import can reach", "define it at the top of a module, or use cloudpickle")
    found: Any = sys.modules.get(module)
    if module == "__main__":
        module = _module_of_main(found, qualname)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if found is not code:
        raise CannotPack(f"is not what {module}.{qualname} names", "give it the name it can be imported by, or use cloudpickle")
    return module, qualname


def _module_of_main(main: Any, qualname: str) -> str:
    """The name by which others import the script that runs here: workers have its directory on their path, as we do."""
    file, name = getattr(main, "__file__", None), main_module(main)
    if file is None:
        raise CannotPack(
            f"is {qualname} of a session without a file, which workers cannot import", "move it to a module, or use cloudpickle"
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise CannotPack(f"is {qualname} of {os.path.basename(file)}, whose name is no module's", "rename the script, or use cloudpickle")
    with open(file, encoding="utf-8", errors="replace") as source:
        guarded = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in ast.parse(source.read()).body)
    if not guarded:
        raise CannotPack(
            f"is {qualname} of the main script, which would run again where it is imported",
            'put what it does below  if __name__ == "__main__":  or use cloudpickle',
        )
    return name


def main_module(main: Any) -> str:
    """What others call the script that runs here; empty in a session without a file."""
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return os.path.basename(file)[: -len(".py")] if isinstance(file, str) and file.endswith(".py") else os.path.basename(file or "")


def own_contents(kind: type) -> None:
    """Refuse a class whose instances hold more than attributes: one that is a kind of list, of exception, of C structure."""
    for ancestor in kind.__mro__[:-1]:
        if not ancestor.__flags__ & _HEAP_TYPE:
            raise CannotPack(f"is a {kind.__qualname__}, a kind of {ancestor.__qualname__}, whose contents are not attributes")


def _state_of(value: Any) -> Any:
    kind: Any = type(value)
    plain: Any = object
    if kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__:
        raise CannotPack(f"is a {kind.__qualname__}, which pickles in its own way", "give it __getstate__ and __setstate__")
    own_contents(kind)
    own = getattr(kind, "__getstate__", None)
    if own is not None and own is not getattr(object, "__getstate__", None):
        return value.__getstate__()
    if any(vars(ancestor).get("__slots__") for ancestor in kind.__mro__):
        raise CannotPack(f"is a {kind.__qualname__}, which has slots", "give it __getstate__ and __setstate__")
    return dict(vars(value))


def _find(module: Any, qualname: Any, allow: Callable[[str], bool] | None) -> Any:
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise CannotUnpack("an import path is not two strings")
    if module == "__main__" or (allow is not None and not allow(module)):
        raise CodeNotAllowed(f"code of module {module!r} may not be used here; nothing was imported")
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
        # Only what the module itself defines: a path may not wander on into the modules that module imported.
        if not isinstance(found, (type, *_FUNCTIONS)):
            raise CannotUnpack(f"{module}:{qualname} is neither a function nor a class")
    if getattr(found, "__module__", None) != module:
        raise CannotUnpack(f"{module}:{qualname} is defined elsewhere; name it by its own module")
    return found
