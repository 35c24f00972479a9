"""The items of generators, and the credit that keeps a worker from running ahead of whoever takes them.

What the steps stand for:

======================  =======================================================================================================
a worker's main thread  ``worker/runtime/streams.py``, ``send_items``: OPEN_STREAM, then items, no more than a window
                        ahead of what it knows to be taken; ``Credit.wait`` otherwise (without the 0.2 s of the code, which
                        are not part of the protocol); RESULT, at any time.
its control thread      ``control.listen``, ``Credit.give``: what it knows, then the waking.
the reader              ``engine/link.py``, ``_handle``: OPEN_STREAM makes the items, ITEM brings one, RESULT ends the task. One at a
                        time, and there always is one: see `link`. A dead worker's last words are read before its tasks go back to
                        the queue (``executor.py``, ``_try_to_finish``), unless items have been delivered: then the task fails.
who iterates            ``flamepy/_calls/streams.py``, ``Items.take``: takes, counts, says how many after so many (here: each).
who waits for the end   ``ObjectFuture.wait``, ``Items.let_all_come``: all may come, said once.
saying                  ``session.grant``, ``Executor.grant``: is the task the running one? Then note it and tell the worker.
the supervisor          ``Executor.remind``: says again what was noted.
======================  =======================================================================================================

The window is 2 here, a grant is 1, and streams end after up to four items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

WINDOW = 2
MOST_ITEMS = 4
ALL = 9
IN_PIPE = 2


class Rules(NamedTuple):
    """Each switch puts one fault back. The first two are those of commit 19e4664, the others were found on the way from 7ded1ed."""

    counts_from_last: bool = False
    """As it was: credit is a number of *further* items, dropped when the worker does not run that task, and looked up twice, so that a
    stream that ends in between is a KeyError, and ends the control thread."""
    control_dies: bool = False
    """Only the dropping and the KeyError, with credit that says how many in all."""
    said_unordered: bool = False
    """Who says how many were taken looks whether the task runs, and says it later: after others, even after the task's end."""
    not_said_again: bool = False
    """When the task is tried again nobody tells the new worker what has been said to the lost one."""


class Config(NamedTuple):
    """``readers``: pairs of a stream, 1 or 2, and whether that reader only waits for its end. deaths: workers that may be lost."""

    readers: tuple[tuple[int, bool], ...]
    deaths: int = 0
    reminds: bool = False


class Worker(NamedTuple):
    calls: tuple[int, ...] = ()
    at: str = "idle"
    runs: int = 0
    sent: int = 0
    known: tuple[int, int] = (0, 0)
    tokens: int = 0  # counts_from_last only
    woken: bool = False
    listens: str = "yes"
    dead: bool = False


class Stream(NamedTuple):
    opened: bool = False
    arrived: int = 0
    taken: int = 0
    granted: int = 0
    delivered: bool = False
    done: bool = False


class Reader(NamedTuple):
    at: str = "next"
    says: int = 0


class World(NamedTuple):
    worker: Worker
    streams: tuple[Stream, ...]
    readers: tuple[Reader, ...]
    inflight: tuple[int, ...] = ()
    queue: tuple[int, ...] = ()
    noted: tuple[int, int] = (0, 0)
    orders: tuple[tuple[int, int], ...] = ()  # on the control socket
    frames: tuple[tuple[str, int], ...] = ()  # on the data socket
    deaths: int = 0
    reminder: tuple[int, int] = (0, 0)


Step = tuple[str, World]


class StreamModel:
    def __init__(self, config: Config, rules: Rules) -> None:
        self.config = config
        self.rules = rules
        self.numbers = tuple(sorted({stream for stream, _ in config.readers}))

    def first(self) -> World:
        return World(
            worker=Worker(calls=self.numbers),
            streams=tuple(Stream() for _ in self.numbers),
            readers=tuple(Reader() for _ in self.config.readers),
            inflight=self.numbers,
            deaths=self.config.deaths,
        )

    def ended(self, world: World) -> bool:
        return all(reader.at == "end" for reader in world.readers)

    def broken(self, world: World) -> str:
        worker = world.worker
        if worker.runs and not self.rules.counts_from_last:
            stream = world.streams[worker.runs - 1]
            if worker.known[0] == worker.runs and worker.known[1] > stream.granted:
                return "a worker was told of more than has been taken"
        return ""

    def steps(self, world: World) -> Iterator[tuple[tuple[str, str], World]]:
        for who, steps in (
            ("worker", self._worker(world)),
            ("its control thread", self._control(world)),
            ("reader of the socket", self._reading(world)),
            ("supervisor", self._supervising(world)),
        ):
            for line, after in steps:
                yield (who, line), after
        for number in range(len(world.readers)):
            for line, after in self._consumer(world, number):
                yield (f"consumer {chr(65 + number)}", line), after

    # ------------------------------------------------------------------------------------------------ the worker

    def _worker(self, world: World) -> Iterator[Step]:
        worker = world.worker
        if worker.dead:
            return
        room = len(world.frames) < IN_PIPE

        def on(**changes: object) -> World:
            return world._replace(worker=worker._replace(**changes))  # type: ignore[arg-type]

        def sends(kind: str, **changes: object) -> World:
            return on(**changes)._replace(frames=(*world.frames, (kind, worker.runs)))

        if worker.at == "idle" and worker.calls:
            begun = on(calls=worker.calls[1:], at="opens", runs=worker.calls[0], sent=0, tokens=WINDOW)
            yield f"begins stream {worker.calls[0]}", begun
        elif worker.at == "opens" and room:
            yield "sends OPEN_STREAM", sends("open", at="body")
        elif worker.at == "body":
            yield "ends the stream", on(at="ends")
            if worker.sent < MOST_ITEMS:
                yield "has an item", on(at="looks")
        elif worker.at == "looks":
            if self.rules.counts_from_last:
                may = worker.tokens > 0
            else:
                may = worker.sent < WINDOW + (worker.known[1] if worker.known[0] == worker.runs else 0)
            yield f"looks at its credit: {'enough' if may else 'none'}", on(at="item" if may else "waits")
        elif worker.at == "waits" and worker.woken:
            yield "is woken", on(at="looks", woken=False)
        elif worker.at == "item" and room:
            yield "sends an item", sends("item", at="body", sent=worker.sent + 1, tokens=worker.tokens - 1)
        elif worker.at == "ends" and room:
            yield "sends RESULT", sends("result", at="idle", runs=0, sent=0, tokens=0)
        if world.deaths:
            yield "is killed", world._replace(worker=Worker(dead=True), orders=(), deaths=world.deaths - 1)

    def _control(self, world: World) -> Iterator[Step]:
        worker = world.worker
        if worker.dead or not world.orders:
            return
        (number, taken), rest = world.orders[0], world.orders[1:]
        done = world._replace(orders=rest)
        if worker.listens == "yes" and (self.rules.counts_from_last or self.rules.control_dies):
            if worker.runs == number:
                yield f"looks for stream {number}", world._replace(worker=worker._replace(listens="found"))
            else:
                yield f"drops the credit for stream {number}", done
        elif worker.listens == "found" and worker.runs != number:
            yield "dies of a KeyError", world._replace(worker=worker._replace(listens="no"))
        elif worker.listens == "found" and self.rules.counts_from_last:
            more = worker._replace(tokens=min(ALL, worker.tokens + taken), woken=True, listens="yes")
            yield f"adds {taken} to the credit", done._replace(worker=more)
        elif worker.listens in ("yes", "found"):
            yield (
                f"knows that {taken} of stream {number} are taken",
                world._replace(worker=worker._replace(known=(number, taken), listens="wakes")),
            )
        elif worker.listens == "wakes":
            yield "wakes the main thread", done._replace(worker=worker._replace(woken=True, listens="yes"))

    # ------------------------------------------------------------------------------------------------ the reader

    def _reading(self, world: World) -> Iterator[Step]:
        if world.frames:
            (kind, number), rest = world.frames[0], world.frames[1:]
            stream = world.streams[number - 1]
            after = world._replace(frames=rest)
            if kind == "open":
                after = _streaming(after, number, stream._replace(opened=True))
                if stream.granted and not self.rules.not_said_again:
                    after = _said(after, number, stream.granted)
                yield f"opens stream {number}" + (" again" if stream.opened else ""), after
            elif kind == "item":
                after = _streaming(after, number, stream._replace(arrived=stream.arrived + 1, delivered=True))
                yield f"delivers an item of stream {number}", after
            else:
                yield f"ends stream {number}", _streaming(after, number, stream._replace(done=True))._replace(inflight=world.inflight[1:])
        elif world.worker.dead and world.inflight:
            running, others = world.inflight[0], world.inflight[1:]
            stream = world.streams[running - 1]
            if stream.delivered:
                after = _streaming(world, running, stream._replace(done=True))
                yield f"fails stream {running}, whose worker is lost", after._replace(inflight=(), queue=others)
            else:
                yield f"has stream {running} tried again", world._replace(inflight=(), queue=world.inflight)
        elif world.worker.dead and world.queue:
            after = world._replace(worker=Worker(calls=world.queue), inflight=world.queue, queue=(), noted=(0, 0))
            yield "sends what waits to a new worker", after

    def _supervising(self, world: World) -> Iterator[Step]:
        if not self.config.reminds:
            return
        running = world.inflight[:1] == (world.noted[0],)
        if self.rules.said_unordered:
            if world.reminder[0]:
                yield f"reminds of {world.reminder[1]}", _told(world._replace(reminder=(0, 0)), *world.reminder)
            elif running and not world.orders:
                yield "looks what has been said", world._replace(reminder=world.noted)
        elif running and not world.orders:
            yield f"reminds of {world.noted[1]}", _told(world, *world.noted)

    # ------------------------------------------------------------------------------------------------ consumers

    def _consumer(self, world: World, me: int) -> Iterator[Step]:
        reader = world.readers[me]
        number, all_at_once = self.config.readers[me]
        stream = world.streams[number - 1]
        if reader.at == "next":
            if all_at_once and stream.opened:
                after = _streaming(world, number, stream._replace(granted=ALL))
                yield "lets all come", _reading_on(after, me, "grants")
            elif all_at_once:
                if stream.done:
                    yield "sees the end", _reading_on(world, me, "end")
            elif stream.arrived:
                grants = stream.taken + 1 >= stream.granted + 1
                after = stream._replace(
                    arrived=stream.arrived - 1, taken=stream.taken + 1, granted=stream.taken + 1 if grants else stream.granted
                )
                yield "takes an item", _reading_on(_streaming(world, number, after), me, "grants" if grants else "next")
            elif stream.done:
                yield "sees the end", _reading_on(world, me, "end")
        elif reader.at == "grants":
            says = stream.granted
            if self.rules.counts_from_last:
                says = ALL if all_at_once else 1
            on = "last" if all_at_once else "next"
            if world.inflight[:1] != (number,):
                yield "finds its task not running", _reading_on(world, me, on)
            elif self.rules.said_unordered:
                yield "finds its task running", _reading_on(world, me, "says", says)
            elif self.rules.counts_from_last:
                yield f"says {says} more", _reading_on(_told(world, number, says), me, on)
            else:
                yield f"says {says}", _reading_on(_said(world, number, says), me, on)
        elif reader.at == "says":
            after = _told(world._replace(noted=(number, reader.says)), number, reader.says)
            yield f"says {reader.says}", _reading_on(after, me, "last" if all_at_once else "next")
        elif reader.at == "last" and stream.done:
            yield "sees the end", _reading_on(world, me, "end")


def _said(world: World, number: int, taken: int) -> World:
    """Noted and told in one go, and never less than before."""
    if world.inflight[:1] != (number,):
        return world
    if world.noted[0] == number:
        taken = max(taken, world.noted[1])
    return _told(world._replace(noted=(number, taken)), number, taken)


def _told(world: World, number: int, taken: int) -> World:
    return world if world.worker.dead else world._replace(orders=(*world.orders, (number, taken)))


def _streaming(world: World, number: int, stream: Stream) -> World:
    streams = world.streams
    return world._replace(streams=(*streams[: number - 1], stream, *streams[number:]))


def _reading_on(world: World, me: int, at: str, says: int = 0) -> World:
    readers = world.readers
    return world._replace(readers=(*readers[:me], Reader(at, says), *readers[me + 1 :]))
