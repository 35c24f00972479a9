"""A notebook, executed by a real kernel: run a cell again, edit a module, interrupt, see a bar."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(autouse=True)
def shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAME_PROGRESS")


MAKE = "rr = Runner('book')\nsvc = rr.service(work.answer)\nprint(svc().get())"
EDIT = "from pathlib import Path\nPath('work.py').write_text('def answer():\\n    return 42\\n')\nimport importlib\nimportlib.reload(work)"
MAP = "import time\ndef slow(n):\n    time.sleep(0.1)\n    return n\nsum(rr.service(slow).map(range(20)))"
CELLS = [
    "import os, work\nfrom flamepy import Runner\nprint(os.getpid())",
    MAKE,
    EDIT,
    MAKE,
    "rr",
    "svc",
    MAP,
    "svc2 = rr.service(time.sleep)\nsvc2(120).get()",
    "svc().get()",
]


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") or str(output.get("data", "")) for output in cell.outputs)


def test_a_notebook_is_worked_in(project: Path) -> None:
    (project / "work.py").write_text("def answer():\n    return 41\n")
    (project / "pyproject.toml").write_text('[project]\nname = "book"\nversion = "1"\n')
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = nbclient.NotebookClient(book, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(project)}})
    with client.setup_kernel():
        for index, cell in enumerate(book.cells):
            if index == 7:
                continue
            client.execute_cell(cell, index)
            if index == 6:
                _interrupted(client, book.cells[7], int(text_of(book.cells[0])))
    assert "41" in text_of(book.cells[1])
    assert "42" in text_of(book.cells[3])  # the cell was run again, with the module as it is now
    assert "<table>" in text_of(book.cells[4])
    assert "stateless" in text_of(book.cells[5])
    assert "190" in text_of(book.cells[6])
    assert "FloatProgress" in text_of(book.cells[6]) or "<progress" in text_of(book.cells[6]) or "HBox" in text_of(book.cells[6])
    assert "42" in text_of(book.cells[8])  # all goes on after an interruption


def _interrupted(client: Any, cell: Any, kernel: int) -> None:
    def interrupt() -> None:
        time.sleep(3)
        os.kill(kernel, signal.SIGINT)  # what Jupyter's stop button does

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="KeyboardInterrupt"):
        client.execute_cell(cell, 7)
    thread.join()
