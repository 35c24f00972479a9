"""Ask the endpoints over HTTP, as any program could: standard library and cloudpickle only.

FLAME_ENDPOINT_KEY=<the token the server printed> python client.py http://127.0.0.1:8888
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from typing import Any

import cloudpickle

TEXTS = ["The docs are clear and it works", "It is slow", "I love it, great work"]


def encode(value: Any) -> str:
    return base64.b64encode(cloudpickle.dumps(value)).decode()


def ask(url: str, function: str, *args: Any, **more: Any) -> Any:
    """Call a function, or with ``execution_type="class"`` a method; see docs/reference/manifest.md."""
    body = {"input": {"function_name": function, "args": [encode(value) for value in args], **more}}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('FLAME_ENDPOINT_KEY', '')}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/runsync", json.dumps(body).encode(), headers), timeout=90) as response:
        answer = json.load(response)
    if answer["status"] != "COMPLETED":
        raise RuntimeError(answer.get("error", answer["status"]))
    return cloudpickle.loads(base64.b64decode(answer["output"]["result"]))


def main(url: str) -> None:
    print("words:     ", ask(url, "words", TEXTS[0]))
    print("describe:  ", ask(url, "describe", TEXTS[0] * 100))
    print("sentiment: ", round(ask(url, "sentiment", TEXTS[0]), 3))
    print("rank:      ", [text for _, text in ask(url, "rank", TEXTS)])
    for text in TEXTS:
        known = ask(url, "Vocabulary", "en", execution_type="class", method_name="learn", method_args=[encode(text)])
        print("vocabulary:", known)
    try:
        ask(url, "sentiment", "!")
    except RuntimeError as error:
        print("error:     ", error)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8888")
