"""What Runners need of this machine and of the configuration: the host's checks, and the client's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flame_host.cli.doctor import Check, guarded, host_checks


def checks() -> list[Check]:
    """All of them; one that fails does not stop the others."""
    from flame_host import Host

    def of_host() -> Iterator[Check]:
        yield from host_checks(Host())

    return [
        *guarded("host", of_host),
        *guarded("client", _versions),
        *guarded("settings", _configuration),
        *guarded("engine", _engine),
    ]


def _versions() -> Iterator[Check]:
    import flame_host
    import flamepy

    same = flamepy.__version__ == flame_host.__version__
    fix = f'pip install --upgrade "flame-host-sdk=={flamepy.__version__}"'
    yield Check("client", same, f"flame-host-sdk {flamepy.__version__}, flame-host {flame_host.__version__}", fix)


def _configuration() -> Iterator[Check]:
    from flamepy._config.settings import resolve

    settings = resolve(Path.cwd(), {})
    detail = f"engine {settings.engine} ({settings.origins.get('engine', 'default')}), {settings.context.path or 'no flame.yaml'}"
    yield Check("settings", True, detail)


def _engine() -> Iterator[Check]:
    from flame_host import Host
    from flamepy._config.settings import resolve

    connection = Host().connect(resolve(Path.cwd(), {}).engine)
    try:
        names = [application.name for application in connection.list_applications()]
    finally:
        connection.close()
    yield Check("engine", True, f"{connection.endpoint} answers; applications: {', '.join(names)}")
