"""The manifest: names that clash first, then its shape, held against the published schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flamepy.build import BuildError, ManifestBuilder, RemoteFunctionMetadata
from flamepy.build.manifest import handler_module, manifest_schema, put_together


def function(name: str, resource: str = "gpu-1", **more: Any) -> RemoteFunctionMetadata:
    given: dict[str, Any] = {"module_path": "workers.gpu", "resource_type": "LiveServerless", "file_path": Path("workers/gpu.py")}
    return RemoteFunctionMetadata(function_name=name, resource_config_name=resource, **{**given, **more})


def valid(manifest: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft202012Validator(manifest_schema()).validate(manifest)
    return manifest


def test_one_name_in_two_resources_is_an_error_that_names_both() -> None:
    with pytest.raises(BuildError, match=r"'f' is served by resource 'cpu-1' and by resource 'gpu-1'"):
        ManifestBuilder("app", [function("f"), function("f", "cpu-1")]).build()


def test_one_name_twice_in_a_resource_is_an_error() -> None:
    with pytest.raises(ValueError, match="'f' is served by"):
        ManifestBuilder("app", [function("f"), function("f", module_path="other")]).build()


def test_two_resources_of_one_name_must_be_the_same() -> None:
    with pytest.raises(BuildError, match=r"'gpu-1' of g is not the one of f .*: they differ in type \(LiveServerless, CpuResource\)"):
        ManifestBuilder("app", [function("f"), function("g", resource_type="CpuResource")]).build()
    with pytest.raises(BuildError, match="they differ in cpu"):
        ManifestBuilder("app", [function("f", settings={"cpu": 1}), function("g", settings={"cpu": 2})]).build()
    kinds = [{"options": {kind: "any"}} for kind in ("cpu", "gpu")]
    with pytest.raises(BuildError, match=r"differ in cpu= and gpu="):
        ManifestBuilder("app", [function(name, settings=settings) for name, settings in zip("fg", kinds, strict=True)]).build()


def test_a_resource_described_in_two_places_is_told_as_put_together() -> None:
    alike = [function("f", settings={"cpu": 1}), function("g", settings={"cpu": 1})]
    assert put_together(alike) == []
    (line,) = put_together([*alike, function("h", settings={"cpu": 1, "workers": (0, 5)}, file_path=Path("two.py"), line=3)])
    assert line.startswith("resource 'gpu-1' is put together of what ")
    assert "two.py:3" in line


def test_resources_whose_handlers_would_be_one_file_are_an_error() -> None:
    with pytest.raises(BuildError, match="differ in case only"):
        ManifestBuilder("app", [function("f", "GPU"), function("g", "gpu")]).build()


@pytest.mark.parametrize("change", [{"version": "2.0"}, {"resources": []}, {"function_registry": {"f": 1}}, {"generated_at": "today"}])
def test_the_schema_refuses_what_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        valid({**ManifestBuilder("app", [function("f")]).build(), **change})


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


def test_functions_are_grouped_by_resource_and_registered() -> None:
    functions = [
        function("infer", is_async=True),
        function("Encoder", is_class=True),
        function("clean", "cpu-1", resource_type="CpuResource"),
    ]
    manifest = valid(ManifestBuilder("app", functions).build())
    assert (manifest["version"], manifest["project_name"]) == ("1.0", "app")
    assert list(manifest["resources"]) == ["cpu-1", "gpu-1"]
    assert manifest["function_registry"] == {"Encoder": "gpu-1", "clean": "cpu-1", "infer": "gpu-1"}
    gpu = manifest["resources"]["gpu-1"]
    assert (gpu["resource_type"], gpu["handler_file"]) == ("LiveServerless", "handler_gpu-1.py")
    described = [{key: entry[key] for key in ("name", "module", "is_async", "is_class")} for entry in gpu["functions"]]
    assert described == [
        {"name": "infer", "module": "workers.gpu", "is_async": True, "is_class": False},
        {"name": "Encoder", "module": "workers.gpu", "is_async": False, "is_class": True},
    ]


def test_no_functions_make_an_empty_manifest() -> None:
    manifest = valid(ManifestBuilder("app", []).build())
    assert (manifest["resources"], manifest["function_registry"]) == ({}, {})


def test_dependencies_of_functions_and_resource_are_put_together() -> None:
    functions = [
        function("f", settings={"dependencies": ["a"]}, dependencies=("b",)),
        function("g", settings={"dependencies": ["a"]}, dependencies=("b", "c")),
    ]
    assert ManifestBuilder("app", functions).build()["resources"]["gpu-1"]["dependencies"] == ["a", "b", "c"]


def test_the_time_is_utc_and_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", ManifestBuilder("app", []).build()["generated_at"])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert ManifestBuilder("app", []).build()["generated_at"] == "1970-01-02T00:00:00Z"


def test_it_is_written_as_json(tmp_path: Path) -> None:
    path = ManifestBuilder("app", [function("f")]).write_to_file(tmp_path / "flash_manifest.json")
    assert valid(json.loads(path.read_text()))["function_registry"] == {"f": "gpu-1"}


@pytest.mark.parametrize("name", ["gpu-1", "gpu_worker", "GPU"])
def test_a_plain_resource_name_is_its_handler_s_name(name: str) -> None:
    assert handler_module(name) == f"handler_{name}"


@pytest.mark.parametrize("name", ["a/b", "../up", "a b", "über", "a.b", "x" * 300, "NUL:", "a\nb", "a'b"])
def test_any_other_name_becomes_a_safe_one(name: str) -> None:
    assert re.fullmatch(r"handler_[A-Za-z0-9_-]{1,90}", handler_module(name))


def test_names_that_look_alike_keep_files_of_their_own() -> None:
    assert len({handler_module(name) for name in ("a/b", "a b", "a_b", "a.b")}) == 4
