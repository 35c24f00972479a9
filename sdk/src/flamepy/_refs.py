"""References to objects in a cache."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from flame_host import api


@dataclasses.dataclass(frozen=True)
class ObjectRef(api.ObjectRef):
    """Where an object stands. As an argument of a service call it stands for the object itself."""

    @classmethod
    def of(cls, ref: api.ObjectRef) -> ObjectRef:
        return cls(**{field.name: getattr(ref, field.name) for field in dataclasses.fields(ref)})

    @property
    def url(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{self.key}"

    def get(self) -> Any:
        """The object, as `flamepy.get_object` gives it."""
        from flamepy import _objects

        return _objects.get(self)

    def delete(self) -> None:
        """Free the object now, in place of when its Runner closes. What has it in hand keeps it; deleting twice is no error."""
        from flamepy import _objects

        _objects.delete(self)

    def encode(self) -> bytes:
        """As bytes, for storing it where no pickle is wanted."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> ObjectRef:
        """What `encode` wrote.

        Raises:
            ValueError: the bytes are something else.
        """
        fields = json.loads(data)
        if not isinstance(fields, dict) or not {"endpoint", "key"} <= fields.keys():
            raise ValueError("not an encoded ObjectRef")
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})
