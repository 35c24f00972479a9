"""Plain data in any language: the contract, types that must survive, and what must be refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import sys
import uuid
import zoneinfo
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy
import pytest
from flame_serialize_msgpack import codec
from flame_serialize_msgpack.msgpack_serializer import MsgpackSerializer
from hypothesis import given
from hypothesis import strategies as st

from flame_host.api import Buffer, FormatNotAllowedError, NotSerializableError, SerializationError, buffer_view
from flame_host.testing.serializers import SerializerContract, assert_same

SERIALIZER = MsgpackSerializer()
UTC = datetime.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class TestMsgpack(SerializerContract):
    values = (
        (), (1, (2, [3])), {1, (2, 3)}, set(), frozenset({"a", None}), 2**64, -(2**63) - 1, 2**1000, -(2**1000), bytearray(b"x"),
        1j, complex("inf"), {1: "int", (2, 3): "tuple", b"b": None, None: 1, 1.5: 2, 2**70: 3},
        datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
        datetime.datetime(1, 1, 1, tzinfo=UTC), datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3), "X")),
        datetime.date(1, 1, 1), datetime.time(23, 59, fold=1), datetime.time(1, tzinfo=UTC), datetime.timedelta(-5, 3, 7),
        decimal.Decimal("1.10"), decimal.Decimal("-Infinity"), uuid.UUID(int=5), pathlib.Path("/a/b"), pathlib.PureWindowsPath("c:/x"),
        numpy.float32(1.5), numpy.int64(-1), numpy.bool_(True), numpy.datetime64("2020-01-01"), numpy.str_("x"),
    )  # fmt: skip

    @pytest.fixture
    def serializer(self) -> MsgpackSerializer:
        return SERIALIZER


class Point(collections.namedtuple("Point", "x y")):
    pass


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


@dataclasses.dataclass
class Data:
    x: Any = 1

    def __post_init__(self) -> None:
        ran.append(self)


ran: list[Any] = []


class OfData(Data):
    pass


@dataclasses.dataclass(frozen=True)
class Frozen:
    __slots__ = ("inside", "when")
    when: datetime.date
    inside: tuple[Data, ...]


@dataclasses.dataclass
class Failure(Exception):
    x: int = 1


holding_more = Data(2)
holding_more.more = 1  # type: ignore[attr-defined]


class Counter:
    def __init__(self) -> None:
        self.total = 0
        self.seen = {1, 2}

    def add(self, number: int) -> int:
        self.total += number
        return self.total


class Pickled(Counter):
    def __getstate__(self) -> dict[str, int]:
        return {"total": self.total * 2}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.total = state["total"] + 1


class Slotted:
    __slots__ = ("x",)


class Listed(list[int]):
    pass


class Holding:
    def __init__(self) -> None:
        self.inner = [Counter()]


shared: list[int] = [1]
ring: list[Any] = []
ring.append(ring)
deep: list[Any] = []
for _ in range(500):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ([shared, shared], "value[1]", "more than one place"),
        (((shared,), {"k": shared}), "kwargs['k']", "more than one place"),
        (ring, "value[0]", "more than one place"),
        (deep, None, "deep"),
        ({"p": Point(1, 2)}, "value['p']", "plain tuple"),
        ([Colour.RED], "value[0]", "plain int"),
        ([Text("x")], "value[0]", "plain str"),
        ({Text("x"): 1}, "value['x']", "plain str"),
        (collections.OrderedDict(a=1), "value", "plain dict"),
        (collections.defaultdict(list), "value", "plain dict"),
        (OfData(), "value", "a subclass of a dataclass that is none itself"),
        ([Data([Text("x")])], "value[0].x[0]", "plain str"),
        ({"a": holding_more}, "value['a']", "holds more beside its fields"),
        (Failure(), "value", "a kind of Exception"),
        (dataclasses.make_dataclass("Made", ["x"])(1), "value", "is not what"),
        ([json.dumps], "value[0]", "is code"),
        (Counter, "value", "is code"),
        ({"a": {1, (2, Text("x"))}}, "value['a']", "an element that"),
        ({"a": ["ok", "\ud800"]}, "value['a'][1]", "Unicode"),
        (numpy.array([object()]), "value", "Python objects"),
        (numpy.zeros(2, dtype=[("a", "i4")]), "value", "dtype"),
        (numpy.ma.masked_array([1, 2]), "value", "not plain data"),
        (memoryview(b"x"), "value", "not plain data"),
        (datetime.datetime(2000, 1, 1, tzinfo=type("Z", (datetime.tzinfo,), {})()), "value", "time zone"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_would_change_is_refused_and_named(value: Any, path: str | None, reason: str) -> None:
    with pytest.raises(NotSerializableError, match=reason) as caught:
        SERIALIZER.dumps(value)
    assert path is None or caught.value.path == path


def test_dataclasses_arrive_as_they_were_and_nothing_of_them_runs() -> None:
    value = Frozen(datetime.date(2020, 1, 1), (Data({"a": [1]}), Data(None)))
    data = SERIALIZER.dumps([value, {value.when: Data(b"x")}])
    ran.clear()
    found = SERIALIZER.loads(data)
    assert found == [value, {value.when: Data(b"x")}]
    assert [type(item) for item in (found[0], *found[0].inside)] == [Frozen, Data, Data]
    assert len(ran) == 1, "only the one made by this test"


@pytest.mark.parametrize(
    ("module", "name", "contents", "reason"),
    [
        ("not_loaded_anywhere", "Data", {"x": 1}, "not loaded here; nothing is imported"),
        ("wsgiref.simple_server", "Data", {"x": 1}, "not loaded here"),
        (__name__, "Data", {"y": 1}, "has the fields x here"),
        (__name__, "Data", {"x": 1, "__class__": 1}, "has the fields x here"),
        (__name__, "Data", [1], "has the fields x here"),
        (__name__, "OfData", {"x": 1}, "is no dataclass"),
        (__name__, "Counter", {}, "is no dataclass"),
        (__name__, "Failure", {"x": 1}, "a kind of Exception"),
        (__name__, "dataclasses.Field", {}, "is no dataclass"),
        (__name__, "ran", {}, "is no dataclass"),
        ("os", "system", {}, "is no dataclass"),
        (1, "Data", {}, "not two strings"),
    ],
)
def test_a_message_can_only_fill_a_dataclass_that_is_loaded(module: Any, name: str, contents: Any, reason: str) -> None:
    before = set(sys.modules)
    data = msgpack.packb([msgpack.ExtType(18, msgpack.packb([module, name, contents]))])
    with pytest.raises(SerializationError, match=reason):
        SERIALIZER.loads(data)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype="i2").reshape(2, 3), numpy.asfortranarray(numpy.arange(60_000.0).reshape(200, 300)),
        numpy.arange(90_000)[::3],
        numpy.zeros((0, 3)), numpy.array(5), numpy.array(["a", "bb"]), numpy.array([b"x"]), numpy.array(["2020-01-01"], dtype="M8[D]"),
        numpy.zeros((300, 300), dtype=">i4"), numpy.zeros(70_000, dtype=bool), numpy.ones(40_000, dtype="c16"),
        numpy.zeros((0,), dtype=">f2"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)  # fmt: skip
def test_arrays_keep_value_dtype_shape_and_order(array: Any) -> None:
    buffers: list[Buffer] = []
    data = SERIALIZER.dumps(array, buffers=buffers)
    found = SERIALIZER.loads(data, buffers=[buffer_view(buffer) for buffer in buffers])
    for arrived in (found, SERIALIZER.loads(SERIALIZER.dumps(array))):
        assert numpy.array_equal(arrived, array)
        assert (arrived.dtype, arrived.shape, arrived.flags.f_contiguous) == (array.dtype, array.shape, array.copy("K").flags.f_contiguous)
    assert bool(buffers) == (array.nbytes >= 65536)
    assert found.flags.writeable == (not buffers)


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(msgpack.ExtType(99, b"")),
        msgpack.packb(msgpack.ExtType(14, msgpack.packb(["O", [1], "C", b"12345678"]))),
        msgpack.packb(msgpack.ExtType(14, msgpack.packb(["i4,O", [1], "C", b"12345678"]))),
        msgpack.packb(msgpack.ExtType(14, msgpack.packb(["f8", [1 << 40], "C", b"12345678"]))),
        msgpack.packb(msgpack.ExtType(14, msgpack.packb(["f8", [1], "C", 3]))),
        msgpack.packb(msgpack.ExtType(14, msgpack.packb(["f8", [1], "C", -1]))),
        msgpack.packb(msgpack.ExtType(16, msgpack.packb(0))),
        msgpack.packb(msgpack.ExtType(7, msgpack.packb([2000, 1, 1, 0, 0, 0, 0, 0, "../../etc/passwd"]))),
        msgpack.packb(msgpack.ExtType(11, b"no number")),
        msgpack.packb(msgpack.ExtType(2, msgpack.packb([[1]]))),
        msgpack.packb(1) + b"\x01",
    ],
)
def test_forged_values_are_a_serialization_error(data: bytes) -> None:
    with pytest.raises(SerializationError):
        SERIALIZER.loads(data)


def test_a_bomb_of_nested_extensions_is_a_serialization_error() -> None:
    data = msgpack.packb([])
    for _ in range(3000):
        data = msgpack.packb(msgpack.ExtType(1, data))
    with pytest.raises(SerializationError):
        SERIALIZER.loads(data)


@pytest.mark.parametrize("value", [json.dumps, json.JSONEncoder, Counter, Counter(), len])
def test_no_argument_and_no_result_can_name_code(value: Any) -> None:
    with pytest.raises(NotSerializableError):
        SERIALIZER.dumps(((value,), {}))
    data = SERIALIZER.dumps_code(value)
    with pytest.raises(FormatNotAllowedError, match="nothing was imported"):
        SERIALIZER.loads(data)
    nested = msgpack.packb([msgpack.unpackb(data)])
    with pytest.raises(FormatNotAllowedError):
        SERIALIZER.loads_code(nested)


def test_reading_refused_code_imports_nothing() -> None:
    data = msgpack.packb(msgpack.ExtType(20, msgpack.packb(["this", "s"])))
    with pytest.raises(FormatNotAllowedError):
        SERIALIZER.loads(data)
    with pytest.raises(FormatNotAllowedError):
        SERIALIZER.loads_code(data, allow=lambda module: module == "my_application")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [("json", "decoder"), ("json", "no_such"), ("no_such_module_at_all", "f"), ("json", "codecs.open"), ("__main__", "f"), (1, 2)],
)
def test_an_import_path_that_leads_to_no_code_of_its_module_is_an_error(module: Any, name: Any) -> None:
    with pytest.raises((SerializationError, ImportError, AttributeError)):
        SERIALIZER.loads_code(msgpack.packb(msgpack.ExtType(20, msgpack.packb([module, name]))))


def local_function() -> Any:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: 0, "no import can reach"),
        (local_function(), "no import can reach"),
        (Counter().add, "bound method"),
        (Slotted(), "slots"),
        (Listed(), "contents are not attributes"),
        (ValueError("x"), "not plain data|pickles in its own way|contents"),
        (Colour.RED, "pickles in its own way|contents"),
    ],
)
def test_code_that_cannot_go_by_import_path_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(NotSerializableError, match=reason):
        SERIALIZER.dumps_code(value)


def test_state_that_is_not_plain_is_named() -> None:
    with pytest.raises(NotSerializableError) as caught:
        SERIALIZER.dumps_code(Holding())
    assert caught.value.path == "self['inner'][0]"


def test_functions_classes_and_instances_go_by_import_path() -> None:
    for code in (json.dumps, json.JSONEncoder, Counter, Counter.add, len):
        assert SERIALIZER.loads_code(SERIALIZER.dumps_code(code)) is code
    counter = Counter()
    counter.add(5)
    found = SERIALIZER.loads_code(SERIALIZER.dumps_code(counter))
    assert (type(found), found.total, found.seen) == (Counter, 5, {1, 2})
    pickled = Pickled()
    pickled.total = 10
    assert SERIALIZER.loads_code(SERIALIZER.dumps_code(pickled)).total == 21
    assert SERIALIZER.loads_code(SERIALIZER.dumps_code({"plain": (1,)})) == {"plain": (1,)}


def test_an_instance_may_hold_large_arrays() -> None:
    counter = Counter()
    counter.weights = numpy.arange(100_000.0)  # type: ignore[attr-defined]
    buffers: list[Buffer] = []
    data = SERIALIZER.dumps_code(counter, buffers=buffers)
    found = SERIALIZER.loads_code(data, buffers=[buffer_view(buffer) for buffer in buffers])
    assert len(buffers) == 1
    assert numpy.array_equal(found.weights, counter.weights)  # type: ignore[attr-defined]


def test_what_other_languages_write_is_read() -> None:
    assert SERIALIZER.loads(bytes.fromhex("9292010380")) == [[1, 3], {}]
    assert SERIALIZER.loads(msgpack.packb(msgpack.Timestamp(0))) == datetime.datetime(1970, 1, 1, tzinfo=UTC)


keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False)
leaves = (
    keys | st.floats() | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.uuids() | st.dates() | st.timedeltas()
    | st.datetimes() | st.datetimes(timezones=st.timezones()) | st.times()
)  # fmt: skip
plain = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys | st.tuples(keys), inner) | st.sets(keys) | st.frozensets(keys)
    ),
    max_leaves=20,
)


@given(plain)
def test_any_plain_value_arrives_as_it_was(value: Any) -> None:
    assert_same(SERIALIZER.loads(SERIALIZER.dumps(value)), value)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_escape_the_error_tree(data: bytes) -> None:
    try:
        SERIALIZER.loads(data)
    except SerializationError:
        pass


def test_the_codec_error_carries_path_reason_and_hint() -> None:
    with pytest.raises(codec.CannotPack) as caught:
        codec.dumps([Text("x")])
    assert (caught.value.path, "str(x)" in caught.value.hint) == ("value[0]", True)
