"""What every serializer must do. Inherit, and say which::

class TestMyFormat(SerializerContract):
    @pytest.fixture
    def serializer(self): return MyFormat()
"""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flame_host.api import (
    Buffer,
    FormatNotAllowedError,
    NotSerializableError,
    SerializationError,
    Serializer,
    buffer_size,
    buffer_view,
    parse_policy,
)

PLAIN_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, -(2**63), 2**64 - 1, 0.0, -0.0, 1.5, math.inf, "", "text", "grüße 🎈", "\0", b"", b"\x00\xff",
    [], [1, "two", [3.0]], {}, {"a": 1}, {"nested": {"list": [1, None]}}, ((1, 3), {}), ((), {"x": [1]}),
]  # fmt: skip
"""Values any format must carry, with their types: the calls of ordinary functions."""


class Handle:
    """Not plain data; stands for a future or an object reference."""

    def __init__(self, index: int) -> None:
        self.index = index


class SerializerContract:
    """The contract of `flame_host.api.Serializer`.

    Attributes:
        values: further values the format says it carries.
    """

    values: Sequence[Any] = ()

    @pytest.fixture
    def serializer(self) -> Serializer:
        """The serializer under test."""
        raise NotImplementedError

    def travelled(self, serializer: Serializer, value: Any) -> Any:
        """To bytes and back, with buffers."""
        buffers: list[Buffer] = []
        data = serializer.dumps(value, buffers=buffers)
        return serializer.loads(data, buffers=[buffer_view(buffer) for buffer in buffers])

    def test_it_keeps_the_protocol(self, serializer: Serializer) -> None:
        assert isinstance(serializer, Serializer)
        assert serializer.version >= 1
        assert serializer.traits <= {"executes-code", "same-python", "cross-language"}

    def test_a_part_that_cannot_travel_is_named(self, serializer: Serializer) -> None:
        stuck = _stuck()
        with pytest.raises(NotSerializableError) as caught:
            serializer.dumps((({"x": [1, stuck]},), {}))
        assert caught.value.path == "args[0]['x'][1]"
        with pytest.raises(NotSerializableError) as caught:
            serializer.dumps(((), {"key": stuck}))
        assert caught.value.path == "kwargs['key']"

    def test_buffers_are_as_before_when_a_value_cannot_travel(self, serializer: Serializer) -> None:
        numpy = pytest.importorskip("numpy")
        buffers: list[Buffer] = [b"first"]
        with pytest.raises(NotSerializableError):
            serializer.dumps(((numpy.zeros(100_000), _stuck()), {}), buffers=buffers)
        assert buffers == [b"first"]

    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80\x05", b"garbage", b"\xff" * 40])
    def test_bytes_that_mean_nothing_are_a_serialization_error(self, serializer: Serializer, data: bytes) -> None:
        with pytest.raises(SerializationError):
            serializer.loads(data)

    def test_plain_values_stand_where_code_may(self, serializer: Serializer) -> None:
        value = {"learning rate": 0.1, "layers": [3, 4]}
        assert serializer.loads_code(serializer.dumps_code(value)) == value

    def test_code_arrives_as_the_function_it_is(self, serializer: Serializer) -> None:
        with serializer.by_value([]):
            assert serializer.loads_code(serializer.dumps_code(parse_policy))("pickle=deny") == {"pickle": "deny"}

    def test_no_module_is_imported_that_is_not_allowed(self, serializer: Serializer) -> None:
        data = serializer.dumps_code(parse_policy)
        asked: list[str] = []

        def refuse(module: str) -> bool:
            asked.append(module)
            return False

        with pytest.raises(FormatNotAllowedError):
            serializer.loads_code(data, allow=refuse)
        assert asked == ([] if "executes-code" in serializer.traits else [parse_policy.__module__])

    def test_a_truncated_value_is_a_serialization_error(self, serializer: Serializer) -> None:
        data = serializer.dumps((("x" * 100, [1.5] * 20), {}))
        for length in range(0, len(data), 7):
            with pytest.raises(SerializationError):
                serializer.loads(data[:length])

    @pytest.mark.parametrize("value", PLAIN_VALUES, ids=lambda value: repr(value)[:30])
    def test_plain_values_arrive_with_their_types(self, serializer: Serializer, value: Any) -> None:
        assert_same(self.travelled(serializer, value), value)

    def test_the_values_of_this_format_arrive_with_their_types(self, serializer: Serializer) -> None:
        for value in self.values:
            assert_same(self.travelled(serializer, value), value)

    def test_data_may_be_a_memoryview(self, serializer: Serializer) -> None:
        assert serializer.loads(memoryview(serializer.dumps([1, "two"]))) == [1, "two"]

    def test_without_buffers_everything_is_in_the_bytes(self, serializer: Serializer) -> None:
        numpy = pytest.importorskip("numpy")
        value: Any = numpy.arange(100_000)
        assert numpy.array_equal(serializer.loads(serializer.dumps(value)), value)

    def test_large_buffers_travel_apart_and_arrive_without_a_copy(self, serializer: Serializer) -> None:
        numpy = pytest.importorskip("numpy")
        value, buffers = numpy.arange(100_000, dtype="f8").reshape(100, -1), list[Buffer]()
        data = serializer.dumps(((value,), {}), buffers=buffers)
        assert [buffer_size(buffer) for buffer in buffers] == [value.nbytes]
        assert len(data) < 2000
        copy = bytearray(buffer_view(buffers[0]))  # writable, and still the reader must not be able to write
        (arrived,), _ = serializer.loads(data, buffers=[memoryview(copy)])
        assert numpy.array_equal(arrived, value)
        assert arrived.dtype == value.dtype
        assert not arrived.flags.writeable
        assert numpy.shares_memory(arrived, numpy.frombuffer(copy, dtype="u1"))

    def test_small_buffers_stay_in_the_bytes(self, serializer: Serializer) -> None:
        numpy = pytest.importorskip("numpy")
        buffers: list[Buffer] = []
        data = serializer.dumps(numpy.arange(10), buffers=buffers)
        assert not buffers
        assert serializer.loads(data).tolist() == list(range(10))

    def test_a_missing_buffer_is_a_serialization_error(self, serializer: Serializer) -> None:
        numpy = pytest.importorskip("numpy")
        data = serializer.dumps(numpy.zeros(100_000), buffers=[])
        with pytest.raises(SerializationError):
            serializer.loads(data)

    def test_references_are_asked_for_and_filled_in(self, serializer: Serializer) -> None:
        data = serializer.dumps(((Handle(0), [Handle(1)]), {"x": Handle(2)}), reference=_index)
        args, kwargs = serializer.loads(data, resolve=lambda index: f"object {index}")
        assert (args, kwargs) == (("object 0", ["object 1"]), {"x": "object 2"})

    def test_plain_data_is_never_asked_about(self, serializer: Serializer) -> None:
        asked: list[object] = []
        serializer.dumps(((1, "x", [2.5, {"k": (b"b", None)}]), {"y": True}), reference=lambda value: asked.append(value))
        assert not asked

    def test_a_reference_with_nobody_to_resolve_it_is_a_serialization_error(self, serializer: Serializer) -> None:
        data = serializer.dumps(((Handle(0),), {}), reference=_index)
        with pytest.raises(SerializationError):
            serializer.loads(data)

    def test_the_error_of_a_resolver_comes_through(self, serializer: Serializer) -> None:
        def resolve(index: int) -> Any:
            raise SerializationError("the object is of a format that is not admitted")

        data = serializer.dumps(((Handle(0),), {}), reference=_index)
        with pytest.raises(SerializationError, match="not admitted"):
            serializer.loads(data, resolve=resolve)

    def test_a_resolver_may_itself_read_values_with_references(self, serializer: Serializer) -> None:
        inner = serializer.dumps([Handle(7)], reference=_index)
        outer = serializer.dumps([Handle(1), Handle(2)], reference=_index)

        def resolve(index: int) -> Any:
            return serializer.loads(inner, resolve=lambda below: (index, below))

        assert serializer.loads(outer, resolve=resolve) == [[(1, 7)], [(2, 7)]]

    def test_a_value_read_within_a_resolver_does_not_see_the_outer_one(self, serializer: Serializer) -> None:
        inner = serializer.dumps([Handle(7)], reference=_index)
        outer = serializer.dumps([Handle(1)], reference=_index)
        with pytest.raises(SerializationError):
            serializer.loads(outer, resolve=lambda index: serializer.loads(inner))

    def test_threads_do_not_disturb_each_other(self, serializer: Serializer) -> None:
        start = threading.Barrier(4)

        def work(number: int) -> bool:
            start.wait()
            value: Any = ((number, "x" * number, [Handle(number)]), {})
            for _ in range(200):
                data = serializer.dumps(value, reference=_index)
                if serializer.loads(data, resolve=lambda index: index)[0] != (number, "x" * number, [number]):
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))

    def test_the_codec_reads_what_the_provider_writes_and_the_other_way_round(self, serializer: Serializer) -> None:
        codec = importlib.import_module(serializer.codec)
        for value in PLAIN_VALUES:
            assert_same(codec.loads(serializer.dumps(value)), value)
            assert_same(serializer.loads(codec.dumps(value)), value)

    def test_the_codec_names_the_part_at_fault_in_its_error(self, serializer: Serializer) -> None:
        codec = importlib.import_module(serializer.codec)
        with pytest.raises(Exception) as caught:
            codec.dumps(((_stuck(),), {}))
        assert vars(caught.value)["path"] == "args[0]"

    def test_the_codec_needs_nothing_of_the_host(self, serializer: Serializer) -> None:
        program = (
            f"import importlib, sys; codec = importlib.import_module({serializer.codec!r}); "
            "assert codec.loads(codec.dumps(((1, 'x'), {}))) == ((1, 'x'), {}); "
            "loaded = {name for name in sys.modules if name.partition('.')[0] in ('flame_host', 'flamepy', 'numpy')}; "
            "assert not loaded, loaded"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def _stuck() -> Iterator[int]:
    """A generator: no format can carry one."""
    yield 1


def _index(value: object) -> int | None:
    return value.index if isinstance(value, Handle) else None


def assert_same(found: Any, value: Any) -> None:
    """Equal in value and in type, all the way down; NaN is the same as NaN, -0.0 is not 0.0."""
    assert type(found) is type(value), f"{value!r} arrived as {found!r}"
    if isinstance(value, float):
        assert repr(found) == repr(value)
    elif isinstance(value, dict):
        assert len(found) == len(value)
        for (found_key, found_item), (key, item) in zip(found.items(), value.items(), strict=True):
            assert_same(found_key, key)
            assert_same(found_item, item)
    elif isinstance(value, (list, tuple)):
        assert len(found) == len(value)
        for found_item, item in zip(found, value, strict=True):
            assert_same(found_item, item)
    elif isinstance(value, (set, frozenset)):
        assert sorted(map(_typed, found)) == sorted(map(_typed, value))
    else:
        assert found == value


def _typed(value: Any) -> str:
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}{sorted(map(_typed, value))}"
    if isinstance(value, tuple):
        return f"tuple{[_typed(item) for item in value]}"
    return f"{type(value).__name__}:{value!r}"
