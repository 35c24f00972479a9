"""Packages in a cluster's cache, under ``<application>/pkg/<file>``: where its own tools put them, and its nodes fetch them from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flame_cache_flight.location import location_of
from flame_host.api import CacheError, FlameError, ObjectNotFoundError, PackageNotFoundError, StoreError
from flame_host.wire.lending import borrow

_CHUNK = 1 << 20


class FlightPackages:
    """A `Store` of the schemes ``grpc`` and ``grpcs``."""

    schemes = ("grpc", "grpcs")

    def publish(self, source: Path, location: str, *, name: str, digest: str, overwrite: bool = False) -> str:
        base, _, query = location.partition("?")
        if query:
            location_of(location)  # which remembers the certificates
        url = f"{base.rstrip('/')}/{name}"
        there = self._digest(url)
        if there == digest:
            return url
        if there and not overwrite:
            raise StoreError(f"another file stands at {url}", hint="choose another name, or overwrite it")
        with _Opened(url) as (client, key):
            from pyarrow import flight

            from flame_cache_flight.objects import put_batches
            from flame_cache_flight.rows import row_of

            put_batches(client, flight.FlightDescriptor.for_path(key), row_of(b"").schema, _rows_of(source))
        return url

    def fetch(self, url: str, target: Path, *, size_limit: int, deadline: float) -> None:
        with _Opened(url) as (client, key), target.open("xb") as file:
            for piece in _pieces(client, key, deadline, time.monotonic() + deadline):
                if file.tell() + len(piece) > size_limit:
                    raise StoreError(f"{url} has more than {size_limit} bytes")
                file.write(piece)

    def delete(self, url: str) -> None:
        from pyarrow import flight

        with _Opened(url) as (client, key):
            list(client.do_action(flight.Action("DELETE", key.encode())))

    def _digest(self, url: str) -> str:
        """Of what stands there; empty when nothing does."""
        found = hashlib.sha256()
        try:
            with _Opened(url) as (client, key):
                for piece in _pieces(client, key, 300.0, time.monotonic() + 300.0):
                    found.update(piece)
        except PackageNotFoundError:
            return ""
        return found.hexdigest()


def _rows_of(source: Path) -> Iterator[Any]:
    from flame_cache_flight.rows import row_of

    with source.open("rb") as file:
        empty = True
        while piece := file.read(_CHUNK):
            empty = False
            yield row_of(piece)
        if empty:
            yield row_of(b"")


def _pieces(client: Any, key: str, seconds: float, end: float) -> Iterator[memoryview]:
    from pyarrow import flight

    reader = client.do_get(flight.Ticket(f"{key}:0".encode()), flight.FlightCallOptions(timeout=seconds))
    at = reader.schema.get_field_index("data")
    if at < 0:
        raise StoreError(f"what stands at {key} is a table, and no file")
    for chunk in reader:
        if time.monotonic() > end:
            raise StoreError(f"{key} did not come within {seconds:g} s")
        for value in chunk.data.column(at):
            yield memoryview(value.as_buffer())


class _Opened:
    """A connection for one transfer, with its errors in the words of stores."""

    def __init__(self, url: str) -> None:
        borrow("pyarrow")
        from flame_cache_flight.location import connect
        from flame_host.api.keys import parts_of

        self._url = url
        try:
            location = location_of(url)
            self._key = "/".join(parts_of(location.path, 3))
            self._client = connect(location)
        except CacheError as error:
            raise StoreError(
                f"{url!r:.200} is no package of a cache: {error.message}", hint="grpc://host:9090/<application>/pkg/<file>"
            ) from error

    def __enter__(self) -> tuple[Any, str]:
        return self._client, self._key

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from flame_cache_flight.objects import told

        self._client.close()
        if error is None or (isinstance(error, FlameError) and not isinstance(error, CacheError)):
            return
        try:
            with told(self._url, self._key):
                raise error
        except ObjectNotFoundError as missing:
            raise PackageNotFoundError(
                f"no package stands at {self._url}", hint="it was deleted or evicted: open the Runner again"
            ) from missing
        except CacheError as told_error:
            raise StoreError(f"{self._url}: {told_error.message}", hint=told_error.hint) from told_error
