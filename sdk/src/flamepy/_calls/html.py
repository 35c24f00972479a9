"""What notebooks show."""

from __future__ import annotations

import html
from collections.abc import Mapping


def table(title: str, rows: Mapping[str, str]) -> str:
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption style='text-align:left'><b>{html.escape(title)}</b></caption>{body}</table>"


def bar(text: str, part: float | None) -> str:
    value = "" if part is None else f" value='{part:.4f}'"
    return f"<progress max='1'{value}></progress> <code>{html.escape(text)}</code>"
