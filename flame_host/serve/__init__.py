"""``flame-host serve``: a Flame cluster of one machine, which is the local engine behind a wire.

It needs the extra ``flame-host[serve]``. The way of a task: `frontend` (the wire) ▸ `cluster` (what is there, and what may be done
with it) ▸ `store` (what must not be lost) ▸ `executors` (sessions of the local engine) ▸ back. Objects go through `objects`, by
`flight` or from within.
"""
