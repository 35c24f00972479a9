"""The process that unpacks one archive; started by `flame_host._packages.unpack.parent` as a script.

It runs isolated and without ``site``, reads its order from standard input, and answers with one line of JSON. What goes wrong in
it, an endless loop in a decompressor included, costs this process and nothing else.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEMORY = 4 << 30


def main() -> None:
    import gc
    import marshal
    import os

    gc.disable()  # one short run that makes no cycles
    order = marshal.loads(os.read(0, 1 << 20))
    # The answer goes out by a descriptor of its own: what a plugin prints must not look like one.
    answers = os.dup(1)
    os.dup2(2, 1)
    end_with_parent()
    os.umask(0o022)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [here, *order["path"]]
    __import__("contract").install(os.path.dirname(os.path.dirname(here)))
    del sys.path[0]
    try:
        confine(order["limits"])
        count, size = unpack(order)
        answer = f'{{"count": {count}, "bytes": {size}}}'
    except BaseException as error:
        answer = explain(error)
    os.write(answers, answer.encode())
    os._exit(0)  # tearing down the dictionaries of a large tree takes longer than leaving


def end_with_parent() -> None:
    """Be ended by SIGIO, whose default is death, when the parent's end of our standard input closes."""
    import fcntl
    import os

    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def confine(limits: dict[str, Any], memory: int = MEMORY) -> None:
    """Let the kernel stop what the budgets miss."""
    import resource

    for kind, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(limits["seconds"]) + 2),
        (resource.RLIMIT_FSIZE, limits["member_bytes"]),
        (resource.RLIMIT_AS, memory),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (allowed, allowed))


def unpack(order: dict[str, Any]) -> tuple[int, int]:
    archiver = find(order["reference"], order["name"])
    from flame_host._packages.unpack.tree import write_tree
    from flame_host.api import Limits

    limits = Limits(**order["limits"])
    with open(order["archive"], "rb", buffering=0) as source:
        size = source.seek(0, 2)
        source.seek(0)
        summary = write_tree(archiver.read(source, limits), order["target"], limits, compressed_size=size)
    return summary.count, summary.bytes


def find(reference: str, name: str) -> Any:
    """The provider that a ``module:attribute`` stands for: a provider, its class, or a hook that returns several."""
    module, _, attribute = reference.partition(":")
    try:
        found = load(module)
    except ImportError:
        # The module may be known to an import hook only, which site sets up: some editable installs are.
        import site

        site.main()
        found = load(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if callable(found):
        found = found()
    if isinstance(found, (list, tuple)):
        found = next(provider for provider in found if provider.name == name)
    return found


def load(module: str) -> Any:
    __import__(module)
    return sys.modules[module]


def explain(error: BaseException) -> str:
    import json

    facts = {key: getattr(error, key) for key in ("message", "hint", "rule", "member", "budget", "errno") if hasattr(error, key)}
    return json.dumps({"type": type(error).__name__, "text": str(error), "facts": facts})


if __name__ == "__main__":
    main()
