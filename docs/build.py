"""Makes the generated pages and builds the site: ``make docs``.

Also a hook of MkDocs: a link out of the documentation, to a file of the repository, becomes plain text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?:sdk|tests|flame_host|plugins|examples|benchmarks|README\.md|CONTRIBUTING\.md)[^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(r"`\1`", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings announce their examples as reStructuredText does."""
    return html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")


def commands() -> None:
    """The reference of the commands, as they describe themselves."""
    parts = ["# Commands\n"]
    for module, name in (("flamepy.cli", "flame"), ("flame_host.cli", "flame-host"), ("flamepy.cli.flmctl", "flmctl")):
        done = subprocess.run(
            [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name], check=True, capture_output=True, text=True
        )
        parts.append(re.sub(r"(?m)^#", "##", done.stdout))
    (DOCS / "reference" / "commands.md").write_text("\n".join(parts))


if __name__ == "__main__":
    commands()
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    raise SystemExit(subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=DOCS.parent, env=environment).returncode)
