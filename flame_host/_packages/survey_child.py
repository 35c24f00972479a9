"""The process that reads the files of one package; started by `flame_host._packages.survey` as a script, never imported."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    import json
    import marshal
    import os

    order = marshal.loads(os.read(0, 1 << 20))
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.path[:] = order["path"]
    try:
        answer = {"facts": read(order)}
    except BaseException as error:
        message, hint = getattr(error, "message", str(error)), getattr(error, "hint", "")
        answer = {"type": type(error).__name__, "message": message, "hint": hint}
    data = memoryview(json.dumps(answer).encode())
    while data:
        data = data[os.write(answers, data) :]
    os._exit(0)


def read(order: dict[str, Any]) -> Any:
    from pathlib import Path

    from flame_host._packages.survey import read_tree
    from flame_host._packages.unpack.child import confine, end_with_parent

    end_with_parent()
    confine({"seconds": order["seconds"], "member_bytes": 64 << 20}, order["memory"])
    return read_tree(Path(order["tree"]))


if __name__ == "__main__":
    main()
