"""The generated files: what they refuse, what they hold, and that a clean process can import them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from flamepy.build import BuildError, HandlerGenerator
from flamepy.build.handlers import check_imports
from flamepy.build.runtime import bundle_runtime


def manifest(**resources: list[tuple[str, str]]) -> dict[str, Any]:
    entries = {
        name.replace("__", "-"): {"functions": [{"name": function, "module": module} for module, function in functions]}
        for name, functions in resources.items()
    }
    return {"version": "1.0", "resources": entries, "function_registry": {}}


def test_a_file_of_the_project_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "handler_gpu.py").write_text("mine = 1\n")
    with pytest.raises(BuildError, match=r"handler_gpu\.py: stands where the handler"):
        HandlerGenerator(manifest(gpu=[]), tmp_path).generate_handlers()
    assert (tmp_path / "handler_gpu.py").read_text() == "mine = 1\n"


def test_a_handler_that_cannot_be_imported_is_an_error_with_what_it_printed(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("import no_such_library\n")
    bundle_runtime(tmp_path)
    handlers = HandlerGenerator(manifest(gpu=[("work", "f")]), tmp_path).generate_handlers()
    with pytest.raises(BuildError, match=r"handler_gpu\.py: cannot be imported by a worker:(.|\n)*No module named 'no_such_library'"):
        check_imports(handlers, Path(sys.executable), tmp_path)


def test_the_import_check_sees_nothing_of_this_environment(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("import pytest\n")  # installed here, but not in the archive
    bundle_runtime(tmp_path)
    with pytest.raises(BuildError, match="No module named 'pytest'"):
        check_imports(HandlerGenerator(manifest(gpu=[("work", "f")]), tmp_path).generate_handlers(), Path(sys.executable), tmp_path)


def test_each_resource_gets_a_file(tmp_path: Path) -> None:
    paths = HandlerGenerator(manifest(gpu__1=[("a", "f")], cpu__1=[("b", "g")]), tmp_path).generate_handlers()
    assert [path.name for path in paths] == ["handler_cpu-1.py", "handler_gpu-1.py"]
    assert all(path.parent == tmp_path for path in paths)


def test_a_handler_registers_functions_and_calls_the_factory(tmp_path: Path) -> None:
    (path,) = HandlerGenerator(manifest(gpu=[("workers.gpu", "infer"), ("01_hello.x-y", "Encoder")]), tmp_path).generate_handlers()
    text = path.read_text()
    assert 'infer = importlib.import_module("workers.gpu").infer' in text
    assert 'Encoder = importlib.import_module("01_hello.x-y").Encoder' in text
    assert 'FUNCTION_REGISTRY = {\n    "infer": infer,\n    "Encoder": Encoder,\n}' in text
    assert "from flame_host.handler import create_handler" in text
    assert "handler = create_handler(FUNCTION_REGISTRY)" in text
    assert 'runpod.serverless.start({"handler": handler})' in text


def test_a_handler_holds_no_logic_of_its_own(tmp_path: Path) -> None:
    (path,) = HandlerGenerator(manifest(gpu=[("a", "f")]), tmp_path).generate_handlers()
    text = path.read_text()
    assert not [word for word in ("base64", "import json", "cloudpickle", "def ") if word in text]
    assert len(text.splitlines()) <= 30


@pytest.mark.parametrize("resource", ['q"uote', "tri'''ple", 'tri"""ple', "new\nline", "back\\slash", "snow☃", "../up"])
def test_any_resource_name_makes_a_valid_file_inside_the_directory(tmp_path: Path, resource: str) -> None:
    given = {"resources": {resource: {"functions": [{"name": "f", "module": "a"}]}}}
    (path,) = HandlerGenerator(given, tmp_path).generate_handlers()
    assert path.parent == tmp_path
    constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert resource in constants


def test_functions_named_like_the_handler_s_own_names_do_not_disturb_it(tmp_path: Path) -> None:
    names = ["create_handler", "importlib", "os", "handler", "ROOT"]
    (tmp_path / "work.py").write_text("".join(f"def {name}(): return {name!r}\n" for name in names))
    bundle_runtime(tmp_path)
    handlers = HandlerGenerator(manifest(gpu=[("work", name) for name in names]), tmp_path).generate_handlers()
    check_imports(handlers, Path(sys.executable), tmp_path)


def test_a_resource_without_functions_still_answers(tmp_path: Path) -> None:
    bundle_runtime(tmp_path)
    handlers = HandlerGenerator(manifest(gpu=[]), tmp_path).generate_handlers()
    assert "FUNCTION_REGISTRY = {}" in handlers[0].read_text()
    check_imports(handlers, Path(sys.executable), tmp_path)


def test_modules_under_src_and_odd_names_are_imported(tmp_path: Path) -> None:
    for file in ("src/lib/mod.py", "01_hello/gpu-worker.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("def f(): ...\ndef g(): ...\n")
    bundle_runtime(tmp_path)
    given = {**manifest(gpu=[("lib.mod", "f"), ("01_hello.gpu-worker", "g")]), "source_paths": ["src", "."]}
    check_imports(HandlerGenerator(given, tmp_path).generate_handlers(), Path(sys.executable), tmp_path)
