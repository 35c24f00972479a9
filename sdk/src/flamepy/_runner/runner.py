"""The Runner: a project made runnable elsewhere for as long as a ``with`` block lasts.

Longer than 300 lines: a third is the signatures and documentation of the one class that every program uses, and the steps of opening are
told here in their order. What each step does is in `deployment`, what is asked of results in `results`.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast, overload

from flame_host.api import Application, ClosedError, ConfigError, Plan
from flamepy._calls.opening import open_handle
from flamepy._calls.service import RunnerService
from flamepy._client import Client, acquire, release
from flamepy._config.keywords import check_runner, refuse_while_imported
from flamepy._package.project import Located, caller_file, is_interactive, locate
from flamepy._refs import ObjectRef
from flamepy._runner.results import Results

if TYPE_CHECKING:
    from flame_host.api import Resources
    from flamepy._calls.future import ObjectFuture
    from flamepy._config.flame_yaml import FlameContext
    from flamepy._config.settings import Settings
    from flamepy._package.shipment import Shipment
    from flamepy._runner.executor import Calls, RunnerExecutor

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Runner(Results):
    """Packs the current project, registers it as an application, and serves its functions, classes and instances.

    ::

        with Runner("my-app") as rr:
            print(rr.service(fn)(1, 3).get())

    Without ``with``, the first use opens it and `close` ends it.

    Args:
        name: of the application.
        fail_if_exists: refuse when an application of that name is registered, even with the same package.
        dependencies: requirements on top of the project's own.
        python_version: of the workers, ``"3.11"``, ``">=3.11"`` or an interpreter's path; by default the project's, else this one.
        engine: ``"local"`` (worker processes on this machine, the default), ``"inline"`` (this thread, for a debugger), or an endpoint.
        project: directory to pack; by default the one that the calling code belongs to, found from its file upwards (see
            ``docs/explanation/what-runs.md``). package: False sends no files. package_limit: bytes a package may have, ``"2G"``.
        exclude: patterns of files to leave out, as in ``.gitignore``; ``excludes`` is understood, too.
        storage, archivers, installers, serializers, caches, policy: see ``docs/reference/configuration.md``.
        logs: output of workers shown on standard error: ``"all"``, ``"errors"``, ``"none"``; or a logger that gets it.
        overwrite: replace an application of that name that has another package.
        working_directory: of the workers, used as it is; by default one with copies of the project's files, for this run alone.
        environments: variables set for the workers.
        context: in place of the `FlameContext` read from ``flame.yaml``.

    Raises:
        ConfigError, NegotiationError, PackageError, ApplicationExistsError: when opened; nothing is left behind.
    """

    def __init__(
        self,
        name: str,
        fail_if_exists: bool = False,
        dependencies: Sequence[str] | None = None,
        python_version: str | None = None,
        *,
        engine: str | None = None,
        project: str | Path | None = None,
        package: bool = True,
        package_limit: int | str | None = None,
        storage: str | None = None,
        exclude: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
        archivers: Sequence[str] | None = None,
        installers: Sequence[str] | None = None,
        serializers: Sequence[str] | None = None,
        caches: Sequence[str] | None = None,
        policy: Mapping[str, str] | None = None,
        logs: str | logging.Logger | None = None,
        overwrite: bool = False,
        working_directory: str = "",
        environments: Mapping[str, str] | None = None,
        context: FlameContext | None = None,
        **unknown: NoReturn,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be the name of an application", hint="use letters, digits, '.', '_', '-'")
        if exclude is not None and excludes is not None:
            raise TypeError("exclude and excludes are one keyword; give it once")
        exclude = exclude if excludes is None else excludes
        given: dict[str, Any] = {
            "engine": engine, "storage": storage, "exclude": exclude, "archivers": archivers, "installers": installers,
            "serializers": serializers, "caches": caches, "python_version": python_version, "dependencies": dependencies,
            "environments": environments, "project": project, "working_directory": working_directory,
        }  # fmt: skip
        others = ("name", "fail_if_exists", "package", "package_limit", "policy", "logs", "overwrite", "context")
        check_runner(name, {**given, **dict.fromkeys(others)}, unknown)
        self.name = name
        self._logger = logs if isinstance(logs, logging.Logger) else None
        self._keywords: dict[str, Any] = {
            "engine": engine, "storage": storage, "excludes": exclude, "archivers": archivers, "installers": installers,
            "serializers": serializers, "caches": caches, "policy": policy, "python": python_version, "dependencies": dependencies,
            "logs": "all" if self._logger else logs, "package_limit": package_limit,
        }  # fmt: skip
        self._given_project = project
        self._caller = caller_file(sys._getframe(1))
        self._shipment: Shipment | None = None
        self._packs = package
        self._fail_if_exists = fail_if_exists
        self._overwrite = overwrite
        self._working_directory = working_directory
        self._environments = dict(environments or {})
        self._context = context
        self._services: list[RunnerService[..., Any]] = []
        self._calls: Calls | None = None
        self._state = "new"
        self._hurry = False
        self._undo = contextlib.ExitStack()
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._application: Application | None = None
        self._settings: Settings | None = None

    # ------------------------------------------------------------------ life

    def open(self: Self) -> Self:
        """Configure, negotiate, pack, publish, register. What was done is undone when a step fails."""
        with self._lock:
            if self._state == "open":
                return self
            if self._state == "closed":
                raise ClosedError(f"Runner {self.name!r} is closed", hint="make another one")
            refuse_while_imported(self.name)
            with contextlib.ExitStack() as undo:
                self._open(undo)
                self._undo = undo.pop_all()
            self._state = "open"
            _open.add(self)
        return self

    def _open(self, undo: contextlib.ExitStack) -> None:
        from flamepy._calls.by_value import ByValue
        from flamepy._config.settings import resolve
        from flamepy._runner import deployment

        located = locate(self._given_project, self._caller) if self._packs else None
        project = located.root if located is not None else Path(self._given_project or Path.cwd())
        self._settings = settings = resolve(project, self._keywords, self._context)
        deployment.claim_name(settings.engine, self, undo)
        self._client = client = acquire(settings.engine)
        undo.callback(release, client)
        if located is not None:
            settings = self._settings = deployment.with_storage(client, settings, self.name)
        client.activity.quiet = settings.logs == "none"
        client.policies[self.name] = deployment.policy_of(client, settings)
        undo.callback(client.policies.pop, self.name, None)
        shipment = self._shipment = self._assemble(located)
        plan = deployment.agree(client, settings, shipment)
        client.application_objects[self.name] = client.stores.open(plan, settings.cache)
        undo.callback(client.application_objects.pop, self.name, None)
        package = deployment.publish(client, self.name, shipment, plan, settings, undo, self._overwrite) if shipment is not None else None
        if deployment.is_to_install_anew():
            deployment.install_anew(client, self.name, settings)
        named = "template" in settings.context.origins
        template = client.connection.get_application(settings.context.template) if named else None
        application = Application(
            name=self.name,
            package=package,
            plan=plan,
            dependencies=settings.dependencies,
            python_version=deployment.python_of(settings, shipment),
            working_directory=self._working_directory,
            environments={**(template.environments if template else {}), **self._environments},
            description=f"{self.name}, by flamepy.Runner",
            labels=template.labels if template else (),
            command=template.command if template else "",
            arguments=template.arguments if template else (),
        )
        self._application = deployment.register(client, application, undo, fail_if_exists=self._fail_if_exists, overwrite=self._overwrite)
        client.by_value_modules[self.name] = ByValue(client.serializer(plan), shipment)
        undo.callback(deployment.stop_by_value, client, self.name)
        undo.callback(self._close_services)

    def _assemble(self, located: Located | None) -> Shipment | None:
        """What the project is made of now; None when no files are to be sent."""
        if located is None:
            return None
        from flamepy._package.shipment import assemble

        client, settings = cast("tuple[Client, Settings]", (self._client, self._settings))
        return assemble(client.host, located, settings.excludes, settings.includes, client.host.root / "packs")

    def refresh(self, *, environment: bool = False) -> None:
        """Pack the project as it is now: services made from here on run that; those that are open go on with what they have.

        In a REPL or notebook it happens by itself when a service is made.

        Args:
            environment: install the dependencies anew, too, for instance for newer versions on the index.
        """
        from flamepy._calls.by_value import ByValue
        from flamepy._runner import deployment

        with self._lock:
            client, application, settings = self._opened()
            if environment:
                deployment.install_anew(client, self.name, settings)
            before = self._shipment
            if before is None:
                return
            shipment = self._shipment = self._assemble(before.located)
            assert shipment is not None
            package = deployment.publish(client, self.name, shipment, application.plan, settings, self._undo, self._overwrite)
            if package == application.package and not environment:
                return
            self._application = dataclasses.replace(application, package=package)
            client.connection.update_application(self._application)
            deployment.stop_by_value(client, self.name)
            client.by_value_modules[self.name] = ByValue(client.serializer(application.plan), shipment)

    def _close_services(self) -> None:
        """Close all, whatever happens to one; what is not wanted any more is not waited for."""
        hurry = self._hurry
        first: BaseException | None = None
        for service in reversed(self._services):
            try:
                service.close(wait=not hurry)
            except BaseException as error:
                first, hurry = first or error, True
                with contextlib.suppress(Exception):
                    service._handle.session.close(wait=False)
        self._services.clear()
        self._calls = None
        if self._client is not None:
            with contextlib.suppress(Exception):
                # Below the name stands the package, too, where the engine is its storage: that has its own end.
                prefix = f"{self.name}/shared" if self._client.connection.capabilities().storage else f"{self.name}/"
                self._client.objects_of(self.name).delete(prefix)
        if first is not None:
            raise first

    def close(self, *, wait: bool = True) -> None:
        """End the services, unregister, delete the package. Closing twice is fine.

        Args:
            wait: for the calls that were made; otherwise those not yet running fail with `ClosedError`.
        """
        self._end(hurry=not wait)

    def _end(self, *, hurry: bool) -> None:
        with self._lock:
            if self._state == "closed":
                return
            self._state = "closed"
            self._hurry = hurry
            _open.discard(self)
            undo = self._undo.pop_all()
            if self._pid != os.getpid():  # in a forked child: what there is to undo is the parent's
                undo.pop_all()
                return
        undo.close()

    def __enter__(self: Self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(hurry=kind is not None)

    async def __aenter__(self: Self) -> Self:
        import asyncio

        return await asyncio.to_thread(self.open)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import asyncio

        await asyncio.to_thread(self._end, hurry=kind is not None)

    # ------------------------------------------------------------------ services

    # A class is callable, too, so it comes first; of a coroutine function the future gives what it returns.
    @overload
    def service(self, execution_object: type[Any], *a: Any, **options: Any) -> RunnerService[..., Any]: ...
    @overload
    def service(self, execution_object: Callable[P, Coroutine[Any, Any, R]], *a: Any, **options: Any) -> RunnerService[P, R]: ...
    @overload
    def service(self, execution_object: Callable[P, R], *a: Any, **options: Any) -> RunnerService[P, R]: ...
    @overload
    def service(self, execution_object: object, *a: Any, **options: Any) -> RunnerService[..., Any]: ...

    def service(
        self,
        execution_object: Any,
        autoscale: bool | None = None,
        warmup: int = 0,
        resreq: Resources | Mapping[str, Any] | str | None = None,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        stateful: bool | None = None,
        memo: bool = False,
        **spec: Any,
    ) -> RunnerService[..., Any]:
        """Serve a function, a class (instantiated once, where it runs) or an instance.

        Functions run on as many workers as there is work for. A class or an instance is one worker and keeps its state; its calls
        run in the order they were made.

        Args:
            autoscale: False gives a function one worker and keeps its calls in order; True gives a class or an instance many
                workers, each with a state of its own.
            warmup: workers started at once.
            resreq: what a worker needs, ``"cpu=1,mem=2g"``; by default ``resources`` in ``[tool.flame]``.
            args, kwargs: for the constructor of a class.
            memo: make calls of the same arguments, by content, once for as long as the service is open; for functions.
            stateful: the opposite of ``autoscale``, in the words of Flame.
            spec: ``min_instances``, ``max_instances``, ``retries``, ``timeout``, ``priority``, ``checkpoint``, ``isolation``; see
                `flame_host.api.SessionSpec`.
        """
        self._opened()
        if is_interactive():
            self.refresh()
        client, application, settings = self._opened()
        opened = open_handle(
            client, application, execution_object, args=args, kwargs=kwargs, autoscale=autoscale, stateful=stateful, warmup=warmup,
            resreq=settings.resources if resreq is None else resreq, logs=settings.logs, logger=self._logger, **spec,
        )  # fmt: skip
        if memo and opened[1]:
            opened[0].session.close(wait=False)
            raise ConfigError("memo=True is for functions: what a stateful service gives depends on more than its arguments")
        service = self._service_class.over(execution_object, opened[0], ordered=opened[1], memo=memo)
        session_id = opened[0].session.session_id
        service._on_close = lambda: client.logs.forget(session_id)
        self._services.append(service)
        return service

    _service_class: type[RunnerService[..., Any]] = RunnerService

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]:
        """Call anything once, on any worker: functions, classes, bound methods, objects that can be called, as they are now.

        All such calls of a Runner share one session. See `service` for what is called often, or keeps a state.
        """
        return cast("ObjectFuture[R]", self._own_calls().call(fn, args, kwargs))

    def executor(self) -> RunnerExecutor:
        """This Runner as a `concurrent.futures.Executor`; shutting it down leaves the Runner open."""
        from flamepy._runner.executor import RunnerExecutor

        return RunnerExecutor(self, self._own_calls())

    def _own_calls(self) -> Calls:
        from flamepy._runner.executor import Calls

        client, _, _ = self._opened()
        with self._lock:
            if self._calls is None:
                self._calls = Calls(self, client)
            return self._calls

    # ------------------------------------------------------------------ results

    def put_object(self, obj: Any) -> ObjectRef:
        """Put a value where all workers can get it; pass the reference as an argument and they see the value."""
        client, _, _ = self._opened()
        return ObjectRef.of(client.objects_of(self.name).put(f"{self.name}/shared", client.encode(obj, self.plan)))

    # ------------------------------------------------------------------ about it

    @property
    def plan(self) -> Plan:
        """What client and host agreed on."""
        return self._opened()[1].plan

    @property
    def application(self) -> Application:
        return self._opened()[1]

    @property
    def endpoint(self) -> str:
        """The engine, as it was found in the configuration."""
        return self._opened()[0].connection.endpoint

    @property
    def services(self) -> tuple[RunnerService[..., Any], ...]:
        return tuple(self._services)

    @property
    def closed(self) -> bool:
        return self._state == "closed"

    def _opened(self) -> tuple[Client, Application, Settings]:
        if self._state == "closed":
            raise ClosedError(f"Runner {self.name!r} is closed", hint="use it inside its with block")
        self.open()
        return cast("tuple[Client, Application, Settings]", (self._client, self._application, self._settings))

    def __repr__(self) -> str:
        where = f" on {self._client.connection.endpoint}" if self._client is not None and self._state == "open" else ""
        return f"<Runner {self.name!r} ({self._state}){where}, {len(self._services)} services>"

    def _repr_html_(self) -> str:
        from flamepy._calls.html import table

        project = self._shipment.root if self._shipment is not None else ""
        rows = {"name": self.name, "state": self._state, "project": str(project)}
        if self._state == "open":
            rows |= {"engine": self.endpoint, "serializer": self.plan.serializer}
            rows |= {f"service {index}": repr(service) for index, service in enumerate(self._services, 1)}
        return table("Runner", rows)


Self = TypeVar("Self", bound=Runner)

_open: set[Runner] = set()


@atexit.register
def _close_all_open() -> None:
    """What was opened without ``with`` and never closed ends with the program, without waiting, and leaves nothing published."""
    for runner in list(_open):
        with contextlib.suppress(Exception):
            runner.close(wait=False)
