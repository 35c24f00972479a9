"""The local page of a server: what is served, and a way to try each function and route."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["page_of"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } code, pre, textarea { font: 13px/1.4 ui-monospace, monospace }
section { border: 1px solid #8884; border-radius: 6px; padding: .6rem 1rem; margin: .8rem 0 } p { margin: .3rem 0 }
textarea { width: 100%; box-sizing: border-box } pre { background: #8882; padding: .6rem; overflow: auto; white-space: pre-wrap }
.problem { border-color: #c33 }
"""
_SCRIPT = """
for (const form of document.querySelectorAll("form")) form.onsubmit = async event => {
  event.preventDefault();
  const out = form.nextElementSibling, method = form.dataset.method;
  let path = form.dataset.path; out.textContent = "…";
  for (const field of form.querySelectorAll("[data-part]"))
    path = path.replace("{" + field.dataset.part + "}", encodeURIComponent(field.value));
  const body = form.querySelector("textarea");
  const options = {method, headers: {"Content-Type": "application/json", ...HEADERS}};
  if (method === "GET") path += form.querySelector("[name=query]").value; else options.body = body.value;
  try {
    const answer = await fetch(path, options), text = await answer.text();
    try { out.textContent = answer.status + " " + JSON.stringify(JSON.parse(text), null, 2) }
    catch { out.textContent = answer.status + " " + text }
  } catch (error) { out.textContent = error }
};
let served = VERSION;
setInterval(async () => {
  try { const now = await (await fetch("/version", {headers: HEADERS})).json(); if (now.version !== served) location.reload() } catch {}
}, 1000);
"""


def page_of(manifest: Mapping[str, Any], version: str, *, problem: str = "", headers: Mapping[str, str] | None = None) -> str:
    """HTML of it.

    Args:
        version: of what is served; the page loads itself again when another is.
        problem: what is wrong with what should be served instead.
        headers: that the page's requests are sent with.
    """
    parts = [f"<h1>{escape(str(manifest.get('project_name') or 'served'))}</h1>"]
    if problem:
        parts.append(f'<section class="problem"><p>The newest change is not served:</p><pre>{escape(problem)}</pre></section>')
    for name, resource in manifest["resources"].items():
        parts.append(f"<h2>{escape(name)} <small>{escape(resource['resource_type'])}</small></h2>")
        parts += [_function(name, function) for function in resource["functions"]]
    script = _SCRIPT.replace("HEADERS", json.dumps(dict(headers or {}))).replace("VERSION", json.dumps(version))
    # The text is in a script: nothing in it may end that.
    script = script.replace("</", "<\\/")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>flame</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}<script>{script}</script></body></html>"
    )


def _function(resource: str, function: Mapping[str, Any]) -> str:
    shown = f"{function['name']}({', '.join(function.get('parameters') or ())})"
    said = str(function.get("docstring") or "").strip().partition("\n")[0]
    about = f"<p>{escape(said)}</p>" if said else ""
    if "route" in function:
        method, path = function["route"]["method"], function["route"]["path"]
        parts = [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]
        clean = "/".join("{" + part[1:-1].partition(":")[0] + "}" if part.startswith("{") else part for part in path.split("/"))
        fields = "".join(f'<p>{escape(part)} <input data-part="{escape(part)}" required></p>' for part in parts)
        field = '<p>query <input name="query" placeholder="?name=value"></p>' if method == "GET" else _area(_example(function, parts))
        form = _form(method, f"/{resource}{clean}", fields + field)
        title = f"<b>{method} {escape(path)}</b> <code>{escape(shown)}</code>"
    else:
        given: dict[str, Any] = {"function_name": function["name"], "input": _example(function, [])}
        if function.get("is_class"):
            methods = function.get("methods") or [{"name": ""}]
            given |= {"method": methods[0]["name"], "input": _example(methods[0], [])}
        form = _form("POST", f"/{resource}/runsync", _area({"input": given}))
        title = f"<code>{escape(shown)}</code>"
    return f"<section>{title}{about}{form}<pre></pre></section>"


def _example(function: Mapping[str, Any], taken: list[str]) -> dict[str, Any]:
    """A value for each parameter that needs one."""
    made: dict[str, Any] = {}
    for parameter in function.get("parameters") or ():
        name, _, hint = parameter.partition("=")[0].strip().partition(":")
        if name not in taken and not name.startswith("*") and "=" not in parameter:
            made[name.strip()] = {"int": 1, "float": 1.0, "bool": True, "str": "text"}.get(hint.strip(), {})
    return made


def _area(value: Any) -> str:
    text = json.dumps(value, indent=2)
    return f'<textarea rows="{min(12, text.count(chr(10)) + 1)}">{escape(text)}</textarea>'


def _form(method: str, path: str, fields: str) -> str:
    return f'<form data-method="{method}" data-path="{escape(path, quote=True)}">{fields}<p><button>Send</button></p></form>'
