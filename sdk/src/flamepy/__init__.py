"""Run the functions, classes and instances of a Python project as remote tasks.

::

    from flamepy import Runner

    with Runner("my-app") as rr:
        print(rr.service(my_function)(1, 3).get())

Importing this loads nothing: each name is fetched from its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flame_host.api import Application as Application
    from flame_host.api import ApplicationExistsError as ApplicationExistsError
    from flame_host.api import ApplicationNotFoundError as ApplicationNotFoundError
    from flame_host.api import CallOptions as CallOptions
    from flame_host.api import ClosedError as ClosedError
    from flame_host.api import ConfigError as ConfigError
    from flame_host.api import FlameError as FlameError
    from flame_host.api import NegotiationError as NegotiationError
    from flame_host.api import NotSerializableError as NotSerializableError
    from flame_host.api import ObjectNotFoundError as ObjectNotFoundError
    from flame_host.api import PackageError as PackageError
    from flame_host.api import Plan as Plan
    from flame_host.api import RemoteError as RemoteError
    from flame_host.api import Resources as Resources
    from flame_host.api import SessionNotFoundError as SessionNotFoundError
    from flame_host.api import StateLostError as StateLostError
    from flame_host.api import TaskError as TaskError
    from flame_host.api import TaskExitError as TaskExitError
    from flame_host.api import TaskTimeoutError as TaskTimeoutError
    from flame_host.api import VersionConflictError as VersionConflictError
    from flame_host.api import WorkerCrashedError as WorkerCrashedError
    from flamepy._calls.future import ObjectFuture as ObjectFuture
    from flamepy._calls.service import RemoteMethod as RemoteMethod
    from flamepy._calls.service import RunnerService as RunnerService
    from flamepy._client import disconnect as disconnect
    from flamepy._config.flame_yaml import FlameContext as FlameContext
    from flamepy._config.flame_yaml import FlamePackage as FlamePackage
    from flamepy._package.selection import collect_files as collect_files
    from flamepy._package.selection import explain as explain
    from flamepy._refs import ObjectRef as ObjectRef
    from flamepy._remote.decorator import remote as remote
    from flamepy._remote.resources import CpuResource as CpuResource
    from flamepy._remote.resources import GpuResource as GpuResource
    from flamepy._remote.resources import Resource as Resource
    from flamepy._runner.runner import Runner as Runner
    from flamepy.cache import delete_objects as delete_objects
    from flamepy.cache import get_object as get_object
    from flamepy.cache import put_object as put_object
    from flamepy.cache import update_object as update_object
    from flamepy.core import RunnerContext as RunnerContext
    from flamepy.core import RunnerRequest as RunnerRequest
    from flamepy.core import RunnerServiceKind as RunnerServiceKind
    from flamepy.core import Session as Session
    from flamepy.core import close_session as close_session
    from flamepy.core import create_session as create_session
    from flamepy.core import get_application as get_application
    from flamepy.core import get_session as get_session
    from flamepy.core import list_applications as list_applications
    from flamepy.core import list_sessions as list_sessions
    from flamepy.core import open_session as open_session
    from flamepy.core import register_application as register_application
    from flamepy.core import unregister_application as unregister_application
    from flamepy.flash.types import CpuLiveServerless as CpuLiveServerless
    from flamepy.flash.types import LiveServerless as LiveServerless
    from flamepy.runner import FlameAsyncRunner as FlameAsyncRunner
    from flamepy.runner import FlameRunner as FlameRunner
    from flamepy.runner import FlameRunnerService as FlameRunnerService
    from flamepy.runner import ObjectExpr as ObjectExpr
    from flamepy.service import ApplicationContext as ApplicationContext
    from flamepy.service import FlameService as FlameService
    from flamepy.service import SessionContext as SessionContext
    from flamepy.service import TaskContext as TaskContext
    from flamepy.service import TaskOutput as TaskOutput
    from flamepy.service import run as run

_HOME = {
    "flame_host": "__version__",
    "flame_host.api": (
        "Application ApplicationExistsError ApplicationNotFoundError CallOptions ClosedError ConfigError FlameError NegotiationError "
        "NotSerializableError ObjectNotFoundError PackageError Plan RemoteError Resources SessionNotFoundError StateLostError "
        "TaskError TaskExitError TaskTimeoutError VersionConflictError WorkerCrashedError"
    ),
    "flamepy._client": "disconnect",
    "flamepy._config.flame_yaml": "FlameContext FlamePackage",
    "flamepy._calls.future": "ObjectFuture",
    "flamepy._package.selection": "collect_files explain",
    "flamepy._refs": "ObjectRef",
    "flamepy._remote.decorator": "remote",
    "flamepy._remote.resources": "CpuResource GpuResource Resource",
    "flamepy.flash.types": "CpuLiveServerless LiveServerless",
    "flamepy._runner.runner": "Runner",
    "flamepy._calls.service": "RemoteMethod RunnerService",
    "flamepy.cache": "delete_objects get_object put_object update_object",
    "flamepy.core": (
        "RunnerContext RunnerRequest RunnerServiceKind Session close_session create_session get_application get_session "
        "list_applications list_sessions open_session register_application unregister_application"
    ),
    "flamepy.runner": "FlameAsyncRunner FlameRunner FlameRunnerService ObjectExpr",
    "flamepy.service": "ApplicationContext FlameService SessionContext TaskContext TaskOutput run",
}
_MODULES = ("agent", "cache", "core", "flash", "rl", "runner", "runpy", "service")
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"flamepy.{name}")
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'flamepy' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, *_MODULES})
