"""The program of flmexec: runs scripts, and answers with what they print."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flame_host.wire.contexts import SessionContext, TaskContext
from flame_host.wire.instance import serve
from flame_host.wire.outcomes import Failure, ReturnCode

CLIENT_PYTHON = "FLAME_CLIENT_PYTHON"
"""An interpreter that has the client's package, set by the server."""
_SHELLS = ("bash", "sh", "zsh", "csh", "tcsh", "ksh", "fish")


class Scripts:
    """See `flame_host.wire.contexts.Service`."""

    def on_session_enter(self, context: SessionContext) -> None:
        """Nothing to prepare."""

    def on_task_invoke(self, context: TaskContext) -> bytes:
        try:
            script = json.loads(context.input or b"null")
            language, code = script["language"], script["code"]
            data = bytes(script.get("input") or ())
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(ReturnCode.BAD_PAYLOAD, f"the input is no script: {error!r}; it is JSON with 'language' and 'code'") from None
        with tempfile.TemporaryDirectory(prefix="flame-script-") as directory:
            ended = subprocess.run(
                _command(language, code, script.get("runtime"), Path(directory)),
                cwd=directory,
                input=data,
                capture_output=True,
                check=False,
            )
        if ended.returncode:
            said = ended.stderr.decode(errors="replace").strip()
            printed = ended.stdout.decode(errors="replace").strip()
            raise Failure(ReturnCode.RAISED, f"the script ended with {ended.returncode}: {said or printed}")
        return json.dumps({"data": list(ended.stdout)}, separators=(",", ":")).encode()

    def on_session_leave(self) -> None:
        """Nothing to put away."""


def _command(language: Any, code: str, runtime: str | None, directory: Path) -> list[str]:
    if language == "python":
        file = directory / "main.py"
        file.write_text(code, encoding="utf-8")
        python = os.environ.get(CLIENT_PYTHON) or sys.executable
        wanted = (runtime or "").strip().removeprefix("python")
        uv = shutil.which("uv")
        if uv is None:
            if wanted:
                raise Failure(ReturnCode.BAD_SETTING, f"runtime {runtime!r} needs uv, which is not on the server's path")
            return [python, str(file)]
        return [uv, "run", "-qq", "--no-project", "--python", wanted or python, "python", str(file)]
    shell = runtime or (language if language in _SHELLS else "bash")
    if language != "shell" and language not in _SHELLS:
        raise Failure(ReturnCode.BAD_PAYLOAD, f"scripts in {language!r} are not run here; python, shell, {', '.join(_SHELLS)} are")
    found = shutil.which(shell)
    if found is None:
        raise Failure(ReturnCode.BAD_SETTING, f"there is no {shell!r} on this machine")
    file = directory / "main.sh"
    file.write_text(code, encoding="utf-8")
    return [found, str(file)]


if __name__ == "__main__":
    serve(Scripts())
