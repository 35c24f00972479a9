"""Any Python object: the contract, and what only pickle can do."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from flame_serialize_cloudpickle import codec
from flame_serialize_cloudpickle.cloudpickle_serializer import CloudpickleSerializer
from hypothesis import given
from hypothesis import strategies as st

from flame_host.api import Buffer, NotSerializableError, SerializationError, buffer_view
from flame_host.testing.serializers import SerializerContract, assert_same

SERIALIZER = CloudpickleSerializer()


class TestCloudpickle(SerializerContract):
    values = (1j, {1, (2,)}, frozenset({3}), bytearray(b"x"), 2**200, range(3), ValueError, ..., types.SimpleNamespace(a=1))

    @pytest.fixture
    def serializer(self) -> CloudpickleSerializer:
        return SERIALIZER


class Locked:
    def __init__(self) -> None:
        self.name = "fine"
        self._lock = threading.Lock()


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


class Failing:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


LOCK = threading.Lock()


def by_closure() -> Any:
    db = threading.Lock()
    return lambda: db


def by_default() -> Any:
    return lambda x=LOCK: x


def by_global() -> Any:
    code = compile("def f():\n    return LOCK", "made", "exec")
    space: dict[str, Any] = {"LOCK": LOCK, "__name__": "__main__"}
    exec(code, space)
    return space["f"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Locked(), "self._lock"),
        ([Locked()], "value[0]._lock"),
        ({"k": (1, Locked())}, "value['k'][1]._lock"),
        (((Locked(),), {}), "args[0]._lock"),
        (Slotted(Slotted(LOCK)), "self.inner.inner"),
        (functools.partial(print, LOCK), "self.args[0]"),
        (Locked().__init__, "value.__self__._lock"),  # type: ignore[misc]
        (Failing(), "self"),
        ({"deep": [Failing()]}, "value['deep'][0]"),
        (ValueError("x", LOCK), "value.args[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_smallest_part_at_fault_is_named(value: Any, path: str) -> None:
    with pytest.raises(NotSerializableError) as caught:
        SERIALIZER.dumps(value)
    assert caught.value.path == path
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("function", "start"), [(by_closure(), "closure variable 'db'"), (by_default(), "default 0"), (by_global(), "global variable 'LOCK'")]
)
def test_what_a_function_drags_along_is_named(function: Any, start: str) -> None:
    with pytest.raises(NotSerializableError) as caught:
        SERIALIZER.dumps(function)
    assert caught.value.path.startswith(start)


def test_a_hint_says_what_to_do_about_a_lock() -> None:
    with pytest.raises(NotSerializableError, match="__getstate__"):
        SERIALIZER.dumps(Locked())


def test_a_cycle_around_the_unpicklable_part_does_not_hang_the_search() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    ring.append(LOCK)
    with pytest.raises(NotSerializableError) as caught:
        SERIALIZER.dumps(ring)
    assert caught.value.path == "value[2]"


def test_very_deep_values_are_refused_and_not_a_crash() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotSerializableError):
        SERIALIZER.dumps(deep)
    while deep:  # take it apart level by level: freeing it as a whole is the interpreter's business, not this test's
        deep = deep.pop()


def test_a_class_that_cannot_be_found_on_reading_is_a_serialization_error() -> None:
    data = b"\x80\x05\x8c\x0bno_such_mod\x8c\x01x\x93."
    with pytest.raises(SerializationError, match="no_such_mod") as caught:
        SERIALIZER.loads(data)
    assert "install it" in caught.value.hint


def test_large_bytes_travel_apart_and_are_shared_within_a_call() -> None:
    large = b"x" * 100_000
    buffers: list[Buffer] = []
    data = SERIALIZER.dumps(((large, large), {"k": large}), buffers=buffers)
    assert len(buffers) == 1
    assert len(data) < 300
    (first, second), kwargs = SERIALIZER.loads(data, buffers=[buffer_view(buffer) for buffer in buffers])
    assert first is second is kwargs["k"]
    assert type(first) is bytes
    assert first == large


def test_the_same_object_twice_is_the_same_object_afterwards() -> None:
    shared: list[int] = []
    (first, second), kwargs = SERIALIZER.loads(SERIALIZER.dumps(((shared, shared), {"k": shared})))
    assert first is second is kwargs["k"]


def test_functions_of_the_main_script_and_closures_run_elsewhere(tmp_path: Path) -> None:
    offset = 10
    (tmp_path / "data").write_bytes(SERIALIZER.dumps(lambda x: x + offset))
    program = "import sys; from flame_serialize_cloudpickle.codec import loads; print(loads(open(sys.argv[1], 'rb').read())(5))"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "15", done.stderr


def test_modules_can_be_named_to_travel_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_by_value.py").write_text("FACTOR = 3\ndef triple(x):\n    return x * FACTOR\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import named_by_value  # type: ignore[import-not-found]

    assert b"named_by_value" in SERIALIZER.dumps(named_by_value.triple)
    with SERIALIZER.by_value(["named_by_value"]):
        (tmp_path / "data").write_bytes(SERIALIZER.dumps(named_by_value.triple))
    program = "import sys; from flame_serialize_cloudpickle.codec import loads; print(loads(open(sys.argv[1], 'rb').read())(5))"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.stdout.strip() == "15", done.stderr
    import cloudpickle

    assert "named_by_value" not in cloudpickle.list_registry_pickle_by_value()
    del sys.modules["named_by_value"]


def test_plain_values_do_not_load_cloudpickle() -> None:
    program = (
        "import sys; from flame_serialize_cloudpickle import codec; codec.loads(codec.dumps(((1, 'x', [2]), {'k': 1.5}))); "
        "assert 'cloudpickle' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain)
def test_any_plain_value_arrives_as_it_was(value: Any) -> None:
    assert_same(SERIALIZER.loads(SERIALIZER.dumps(value)), value)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_behind_a_pickle_header_never_escape_the_error_tree(data: bytes) -> None:
    # No opcode that imports: the test must not run what hypothesis finds.
    harmless = bytes(byte for byte in data if byte not in b"cio\x81\x82\x83\x84\x92\x93R")
    try:
        SERIALIZER.loads(b"\x80\x05" + harmless)
    except SerializationError:
        pass


def test_the_codec_error_carries_path_type_and_reason() -> None:
    with pytest.raises(codec.CannotPickle) as caught:
        codec.dumps(Locked())
    assert (caught.value.path, caught.value.type_name) == ("self._lock", "_thread.lock")
    assert "pickle" in caught.value.reason


def test_an_execution_object_is_its_workers_own_to_change():
    numpy = pytest.importorskip("numpy")
    serializer, buffers = CloudpickleSerializer(), []
    data = serializer.dumps({"weights": numpy.zeros(100_000)}, buffers=buffers)
    copies = [bytearray(buffer) for buffer in buffers]
    loaded = serializer.loads_code(data, buffers=[memoryview(copy) for copy in copies])
    loaded["weights"] += 1
    assert numpy.frombuffer(copies[0])[0] == 1
    assert not serializer.loads(data, buffers=[memoryview(copy) for copy in copies])["weights"].flags.writeable
