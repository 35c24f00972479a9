"""The path of a task: queue, link, worker and back, with everybody who has a hand in it.

What the steps stand for (``flame_host/engine`` unless said otherwise; a step is what no other thread can come in between of, or what
we take together because nobody else touches it):

======================  =======================================================================================================
a caller                ``session.submit``: append; for each link without anything in flight, pump; ``look_after`` if not watched.
                        ``session.drive`` and ``Link.drive``: take the role, ``_paused``, ``io.pause``, read until it has its
                        answer, ``_stop_driving``. Otherwise it waits on its future's condition (``flamepy/_calls/future.py``).
                        Where a configuration says so, Ctrl-C may come while it drives.
pumping                 ``Link.pump`` and ``_send_some``: look, lock and take (``_taken``); in flight, send, unlock; look again.
                        What the socket does not take stands in the outbox's line (``outbox.py``).
whoever has the role    ``_receive``, ``_handle`` a frame at a time, ``_take_back`` and ``requeued``, ``_account``, pump.
the io loop             ``Loop._run``: learns that a socket is readable, *then* calls ``Link.read``, which may come too late; orders
                        (``io.call(link.read)``); ``Outbox._go_on``, and a pump when the line is empty.
the supervisor          ``session.tick``: for each link recall (or not yet: time is not modelled), pump, ``heal``; ``_has_work`` read
                        by read; no longer watched after a while without work, and ``_has_work`` once more.
a closer                ``session._drain``: until ``_has_work`` says no. Told by the next tick (answers tell it sooner).
a worker                ``worker/runtime/bootstrap.py``: ``serve`` takes what the socket has, runs, answers; ``control._hand_back``. Its
                        sending blocks when nobody reads.
======================  =======================================================================================================

Sockets hold a frame or two. Left out: a worker's death (all its tasks come back, by `Executor._finish`), errors, cancelled calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

IO, SUPERVISOR = 0, 1
NOBODY = -1
FREE = -1
Frame = int | tuple[int, ...]
"""From a worker: the number of an answered task, or those that it hands back."""


class Rules(NamedTuple):
    """Each switch puts one fault back. The first four are those of commit 19e4664, the next two were found by this model in 7ded1ed."""

    parking: bool = False
    """Answers are read by a thread of the executor's that parks, and an assisting caller; unparked only while something is in flight."""
    blocking_send: bool = False
    """A sender waits for the socket to take it all, and holds the lock meanwhile."""
    returned_by_count: bool = False
    """The worker says how many it hands back, and the newest in flight are taken for them."""
    unlocked_account: bool = False
    """The window is opened by answers without the sender's lock."""
    resume_after_release: bool = False
    """A driver gives the role away first, then looks whether anybody has it, then has the loop look at the socket again."""
    taken_unseen: bool = False
    """``_has_work`` does not look at what is on its way from the queue to a worker."""
    returns_unseen: bool = False
    """``_has_work`` does not notice that something has come back while it looked, but for a second look at the queue."""
    line_forgotten: bool = False
    """What the socket did not take is not sent on by the loop, but by the next who sends."""


class Config(NamedTuple):
    """``plans``: what each caller does in turn: +n submits task n, -n waits for it. window: as wide as answers open it. warm: they have,
    and callers have waited, before the first step. closes: somebody drains. interrupts: Ctrl-C may come to who drives."""

    plans: tuple[tuple[int, ...], ...]
    links: int = 1
    window: int = 2
    to_worker: int = 1
    to_host: int = 1
    closes: bool = False
    interrupts: bool = False
    warm: bool = False


class Actor(NamedTuple):
    at: str
    link: int = 0
    back: str = ""  # where to go on after pumping, or what for `_has_work` is asked
    todo: tuple[int, ...] = ()  # links to pump
    turn: int = 0  # the place in its plan


class Link(NamedTuple):
    window: int
    inflight: tuple[int, ...] = ()
    taken: tuple[int, ...] = ()
    line: tuple[int, ...] = ()
    locked: bool = False
    recalling: bool = False
    role: int = FREE
    paused: bool = False
    armed: bool = True
    ordered: bool = False
    unhandled: tuple[Frame, ...] = ()
    # the sockets and the worker
    to_worker: tuple[int, ...] = ()
    to_host: tuple[Frame, ...] = ()
    recall: bool = False
    calls: tuple[int, ...] = ()
    runs: int = 0
    replies: tuple[Frame, ...] = ()
    # parking only
    parked: bool = False
    woken: bool = False
    assisted: bool = False


class World(NamedTuple):
    links: tuple[Link, ...]
    actors: tuple[Actor, ...]
    queue: tuple[int, ...] = ()
    done: frozenset[int] = frozenset()
    watched: bool = False
    draining: bool = False


Step = tuple[str, World]


class LinkModel:
    def __init__(self, config: Config, rules: Rules) -> None:
        self.config = config
        self.rules = rules
        self.tasks = frozenset(n for plan in config.plans for n in plan if n > 0)
        names = ["io loop", "supervisor", *(f"caller {chr(65 + i)}" for i in range(len(config.plans)))]
        self.closer = len(names) if config.closes else NOBODY
        names += ["closer"] * config.closes
        self.readers = range(len(names), len(names) + config.links * rules.parking)
        names += [f"reader of link {i + 1}" for i in range(config.links * rules.parking)]
        self.names = names
        self.all = tuple(range(config.links))
        self._first_look = "work_in_flight" if rules.taken_unseen else "work_taken"
        self.workers = [f"worker {i + 1}" for i in range(config.links)]

    def first(self) -> World:
        reading = self.rules.parking
        links = tuple(
            Link(
                window=self.config.window if self.config.warm else 1,
                role=self.readers[i] if reading else FREE,
                armed=not reading,
                assisted=reading and self.config.warm,
            )
            for i in range(self.config.links)
        )
        actors = [Actor("sleeps"), Actor("off"), *(Actor("plan") for _ in self.config.plans)]
        actors += [Actor("drain")] * self.config.closes
        actors += [Actor("got", link=i) for i in range(len(self.readers))]
        return World(links, tuple(actors))

    def ended(self, world: World) -> bool:
        return world.done == self.tasks and all(
            actor.at == "end" for i, actor in enumerate(world.actors) if i > 1 and i not in self.readers
        )

    def broken(self, world: World) -> str:
        for link in world.links:
            if link.recalling and link.window:
                return "a window is open while its worker is asked to hand back"
        if self.closer > 0 and world.actors[self.closer].at == "end" and world.done != self.tasks:
            return "the session was closed as if there were no work, though a task has not ended"
        return ""

    def steps(self, world: World) -> Iterator[tuple[tuple[str, str], World]]:
        for me, actor in enumerate(world.actors):
            for line, after in getattr(self, f"_{actor.at}")(world, me, actor):
                yield (self.names[me], line), after
        for number, link in enumerate(world.links):
            for line, changed in self._worker(link):
                yield (self.workers[number], line), _linked(world, number, changed)

    # ------------------------------------------------------------------------------------------------ callers

    def _plan(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        plan = self.config.plans[me - 2]
        if actor.turn == len(plan):
            yield "is done", _acting(world, me, actor._replace(at="end"))
            return
        task = plan[actor.turn]
        if task > 0:
            after = world._replace(queue=(*world.queue, task))
            yield f"queues task {task}", _acting(after, me, actor._replace(at="offer", link=0))
        elif -task in world.done:
            yield f"has the answer of task {-task}", _acting(world, me, actor._replace(turn=actor.turn + 1))
        else:
            yield from self._wait(world, me, actor, -task)

    def _end(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        return iter(())

    def _offer(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """To each link that has nothing in flight."""
        if actor.link == len(world.links):
            yield "has it looked after", _acting(world._replace(watched=True), me, actor._replace(at="plan", link=0, turn=actor.turn + 1))
            return
        after = actor._replace(link=actor.link + 1)
        if not world.links[actor.link].inflight:
            after = after._replace(at="pump", back="offer", todo=(actor.link,))
        yield f"looks at link {actor.link + 1}", _acting(world, me, after)

    def _wait(self, world: World, me: int, actor: Actor, task: int) -> Iterator[Step]:
        for number, link in enumerate(world.links):
            if link.inflight[:1] == (task,):
                if self.rules.parking:
                    yield f"wants to assist with task {task}", _acting(world, me, actor._replace(at="assist", link=number))
                    return
                if len(link.inflight) == 1:
                    yield f"wants to drive for task {task}", _acting(world, me, actor._replace(at="drive", link=number))
                    return
        yield f"waits for task {task}", _acting(world, me, actor._replace(at="waits"))

    def _waits(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        task = -self.config.plans[me - 2][actor.turn]
        if task in world.done:
            yield f"is woken by task {task}", _acting(world, me, actor._replace(at="plan", link=0, turn=actor.turn + 1))

    def _drive(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if link.role == FREE:
            yield "takes the role", _both(world, me, actor._replace(at="pausing"), role=me)
        else:
            yield "finds the role taken", _acting(world, me, actor._replace(at="waits"))

    def _pausing(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "notes the pause", _both(world, me, actor._replace(at="disarming"), paused=True)

    def _disarming(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        at = "handle" if world.links[actor.link].unhandled else "got"
        yield "has the loop pass over the socket", _both(world, me, actor._replace(at=at), armed=False)

    def _leaving(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """`_stop_driving`."""
        if self.rules.resume_after_release:
            yield "gives the role away", _both(world, me, actor._replace(at="released"), role=FREE)
        else:
            yield "notes that the pause is over", _both(world, me, actor._replace(at="arming"), paused=False)

    def _released(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        taken = world.links[actor.link].role != FREE
        yield "looks whether somebody reads", _acting(world, me, actor._replace(at="waits" if taken else "resuming"))

    def _resuming(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "notes that the pause is over", _both(world, me, actor._replace(at="arming"), paused=False)

    def _arming(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        after = actor._replace(at="left" if self.rules.resume_after_release else "releasing")
        yield "has the loop look at the socket again", _both(world, me, after, armed=True)

    def _releasing(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "gives the role away", _both(world, me, actor._replace(at="left"), role=FREE)

    def _left(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        left = bool(link.unhandled)
        line = "leaves something to the loop" if left else "has left nothing"
        yield line, _both(world, me, actor._replace(at="waits", link=0), ordered=link.ordered or left)

    # ------------------------------------------------------------------------------------------------ pumping

    def _pump(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        number = actor.todo[0]
        link = world.links[number]
        room = link.window - len(link.inflight)
        if world.queue and room > 0 and not link.line and not link.locked:
            after = _linked(world, number, link._replace(locked=True, taken=world.queue[:room]))._replace(queue=world.queue[room:])
            yield f"takes {_these(world.queue[:room])} from the queue", _acting(after, me, actor._replace(at="send"))
        else:
            yield f"has nothing to send on link {number + 1}", _acting(world, me, _next_pump(actor))

    def _send(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        number = actor.todo[0]
        link = world.links[number]
        frames = (*link.line, *link.taken)
        room = self.config.to_worker - len(link.to_worker)
        after = link._replace(
            inflight=link.inflight + link.taken, taken=(), to_worker=link.to_worker + frames[:room], line=frames[room:], locked=False
        )
        line = f"sends {_these(link.taken)}" + (f", of which {_these(after.line)} stands in line" if after.line else "")
        if self.rules.blocking_send and after.line:
            yield line, _acting(_linked(world, number, after._replace(locked=True)), me, actor._replace(at="insist"))
        else:
            yield line, _acting(_linked(world, number, after), me, actor._replace(at="pump"))

    def _insist(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """The old way: wait until the socket takes it, for surely somebody reads meanwhile."""
        number = actor.todo[0]
        link = world.links[number]
        room = self.config.to_worker - len(link.to_worker)
        if room:
            after = link._replace(to_worker=link.to_worker + link.line[:room], line=link.line[room:], locked=len(link.line) > room)
            yield "sends the rest", _acting(_linked(world, number, after), me, actor._replace(at="insist" if after.line else "pump"))

    # ------------------------------------------------------------------------------------------------ whoever has the role

    def _handle(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """A frame, and what comes after the last one. ``handled``: some were answers."""
        link = world.links[actor.link]
        frame, rest = link.unhandled[0], link.unhandled[1:]
        answered = actor.at == "handled" or isinstance(frame, int)
        on = ("handled" if answered else "handle") if rest else ("account" if answered else "got")
        if isinstance(frame, int):
            if link.inflight[:1] == (frame,):
                after = _both(world, me, actor._replace(at=on), unhandled=rest, inflight=link.inflight[1:])
                yield f"gives task {frame} its answer", after._replace(done=world.done | {frame})
            else:
                yield f"ignores the answer of task {frame}", _both(world, me, actor._replace(at=on), unhandled=rest)
        elif not link.locked:
            if self.rules.returned_by_count:
                kept = link.inflight[: len(link.inflight) - len(frame)]
            else:
                kept = tuple(task for task in link.inflight if task not in frame)
            back = tuple(task for task in link.inflight if task not in kept)
            after = _both(
                world,
                me,
                actor._replace(at="pump", back=on, todo=tuple(range(len(world.links)))),
                unhandled=rest,
                inflight=kept,
                recalling=False,
                window=1 if link.recalling else link.window,
            )
            after = after._replace(queue=back + world.queue, watched=True)
            if not self.rules.returns_unseen:
                looking = [number for number, other in enumerate(after.actors) if other.at.startswith("work")]
                for number in looking:
                    after = _acting(after, number, _sees_work(after.actors[number]))
            yield f"takes back {_these(back)}", after

    _handled = _handle

    def _account(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if self.rules.unlocked_account:
            at = "opening" if link.window and not link.recalling else "more"
            yield "looks at the window", _acting(world, me, actor._replace(at=at))
        elif not link.locked:
            yield "sets the window", _both(world, me, actor._replace(at="more"), window=self.config.window if link.window else 0)

    def _opening(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "opens the window", _both(world, me, actor._replace(at="more"), window=self.config.window)

    def _more(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        on = "settling" if self.closer > 0 else "got"
        after = actor._replace(at="pump", back=on, todo=(actor.link,)) if world.queue else actor._replace(at=on)
        yield "looks at the queue", _acting(world, me, after)

    def _settling(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        if world.draining:
            yield "sees that somebody drains", _acting(world, me, actor._replace(at="work", back="settle"))
        else:
            yield "sees nobody drain", _acting(world, me, actor._replace(at="got"))

    def _got(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """All is handled that was there: read on, or leave."""
        link = world.links[actor.link]
        receives = _both(world, me, actor._replace(at="handle", turn=1 if me == IO else actor.turn), unhandled=link.to_host, to_host=())
        if me == IO:
            if actor.turn == 0 and link.to_host:
                yield f"receives {_these(link.to_host)}", receives
            else:
                yield "gives the role away", _both(world, me, Actor("sleeps"), role=FREE)
            return
        if me in self.readers:
            if link.assisted and not link.inflight and link.window:
                yield "parks", _both(world, me, actor._replace(at="parking"), parked=True)._replace(watched=True)
            elif link.to_host:
                yield f"receives {_these(link.to_host)}", receives
            return
        task = -self.config.plans[me - 2][actor.turn]
        enough = task in world.done or (not self.rules.parking and link.inflight[:1] != (task,))
        leaves = actor._replace(at="deserting" if self.rules.parking else "leaving")
        if enough:
            yield "has what it wanted", _acting(world, me, leaves)
        elif link.to_host:
            yield f"receives {_these(link.to_host)}", receives
            if self.config.interrupts:
                yield (
                    f"receives {_these(link.to_host)}, and Ctrl-C",
                    _both(world, me, leaves, unhandled=link.to_host, to_host=()),
                )

    # ------------------------------------------------------------------------------------------------ the io loop

    def _sleeps(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        for number, link in enumerate(world.links):
            if link.armed and link.to_host:
                yield f"learns that link {number + 1} is readable", _acting(world, me, Actor("called", link=number))
            if link.ordered:
                yield f"is asked to read link {number + 1}", _both(world, me, Actor("called", link=number), ordered=False)
            room = self.config.to_worker - len(link.to_worker)
            if link.line and room and not self.rules.blocking_send and not self.rules.line_forgotten:
                after = _linked(world, number, link._replace(to_worker=link.to_worker + link.line[:room], line=link.line[room:]))
                on = actor if link.line[room:] else Actor("pump", back="sleeps", todo=(number,))
                yield f"sends on {_these(link.line[:room])}", _acting(after, me, on)

    def _called(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        if world.links[actor.link].role == FREE:
            at = "handle" if world.links[actor.link].unhandled else "got"
            yield "takes the role", _both(world, me, actor._replace(at=at), role=IO)
        else:
            yield "finds the role taken", _acting(world, me, Actor("sleeps"))

    # ------------------------------------------------------------------------------------------------ the supervisor

    def _off(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        if world.watched:
            yield "begins to tick", _acting(world, me, Actor("tick"))

    def _tick(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        on = actor._replace(at="pump", back="heal", todo=(actor.link,))
        yield "finds nothing to recall", _acting(world, me, on)
        if len(link.inflight) > 1:
            yield "finds tasks that wait behind another", _acting(world, me, actor._replace(at="recall"))

    def _recall(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        on = actor._replace(at="pump", back="heal", todo=(actor.link,))
        if link.locked:
            return
        if link.window and not link.recalling:
            yield f"recalls from worker {actor.link + 1}", _both(world, me, on, recalling=True, window=0, recall=True)
        else:
            yield "cannot recall now", _acting(world, me, on)

    def _heal(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if self.rules.parking and link.parked and link.inflight:
            yield "unparks the reader", _both(world, me, self._next_link(actor), **_UNPARKED)
        elif link.role == FREE and (link.paused or link.unhandled):
            yield "sees that nobody reads", _acting(world, me, actor._replace(at="mend"))
        else:
            yield "sees that it is read", _acting(world, me, self._next_link(actor))

    def _mend(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "notes that the pause is over", _both(world, me, actor._replace(at="rearm"), paused=False)

    def _rearm(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "has the loop read", _both(world, me, self._next_link(actor), armed=True, ordered=True)

    def _next_link(self, actor: Actor) -> Actor:
        last = actor.link + 1 == self.config.links
        return Actor("work", back="tick") if last else Actor("tick", link=actor.link + 1)

    # `_has_work`, read by read: the queue, then of each link what was taken and what is in flight. Asked by the supervisor (``tick``,
    # and ``off`` after the last one), by a closer (``drain``), and by who has handled answers while somebody drains (``settle``).

    def _work(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield from self._asked(world, me, actor, bool(world.queue), actor._replace(at=self._first_look, todo=self.all))

    def _work_taken(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield from self._asked(world, me, actor, bool(world.links[actor.todo[0]].taken), actor._replace(at="work_in_flight"))

    def _work_in_flight(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        rest = actor.todo[1:]
        if rest:
            on = actor._replace(at=self._first_look, todo=rest)
        else:
            on = actor._replace(at="work_again" if self.rules.returns_unseen else _ANSWERS[actor.back][1], todo=())
        yield from self._asked(world, me, actor, bool(world.links[actor.todo[0]].inflight), on)

    def _work_again(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield from self._asked(world, me, actor, bool(world.queue), actor._replace(at=_ANSWERS[actor.back][1]))

    def _asked(self, world: World, me: int, actor: Actor, seen: bool, on: Actor) -> Iterator[Step]:
        if seen:
            yield "sees work", _acting(world, me, _sees_work(actor))
        else:
            yield "sees no work so far", _acting(world, me, on if on.at.startswith("work") else on._replace(back=""))

    def _settled(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """Nothing is left to do: tell the closer, who must not be looking meanwhile (``_calm``)."""
        closer = world.actors[self.closer]
        if not closer.at.startswith("work"):
            after = _acting(world, me, actor._replace(at="got"))
            if closer.at == "calm":
                after = _acting(after, self.closer, Actor("work", back="drain"))
            yield "says that there is no work", after

    def _quiet(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """No work. A closer is told; the session is watched for a while yet, or not any more."""
        told = world
        if self.closer > 0 and world.actors[self.closer].at == "calm":
            told = _acting(world, self.closer, Actor("work", back="drain"))
        yield "waits for more", _acting(told, me, Actor("tick"))
        after = _acting(told._replace(watched=False), me, Actor("work", back="off"))
        if self.rules.parking:
            for number, link in enumerate(world.links):
                if link.parked:
                    after = _linked(after, number, link._replace(**_UNPARKED))
        yield "stops watching", after

    def _relook(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "watches again", _acting(world._replace(watched=True), me, Actor("off"))

    # ------------------------------------------------------------------------------------------------ a closer

    def _drain(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        """Once all have been submitted, as at the end of a ``with`` block."""
        submitted = all(not any(task > 0 for task in plan[world.actors[2 + i].turn :]) for i, plan in enumerate(self.config.plans))
        if submitted:
            yield "drains", _acting(world._replace(draining=True, watched=True), me, Actor("work", back="drain"))

    def _calm(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        return iter(())

    # ------------------------------------------------------------------------------------------------ parking

    def _assist(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if link.parked and link.role == FREE:
            yield "assists", _both(world, me, actor._replace(at="got"), role=me, assisted=True)
        else:
            yield "cannot assist", _both(world, me, actor._replace(at="waits"), assisted=True)

    def _deserting(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "gives the role away", _both(world, me, actor._replace(at="deserted"), role=FREE)

    def _deserted(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if link.parked and (link.inflight or link.unhandled):
            yield "unparks the reader", _both(world, me, actor._replace(at="waits"), **_UNPARKED)
        else:
            yield "leaves the reader parked", _acting(world, me, actor._replace(at="waits"))

    def _parking(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        yield "gives the role away", _both(world, me, actor._replace(at="parked"), role=FREE)

    def _parked(self, world: World, me: int, actor: Actor) -> Iterator[Step]:
        link = world.links[actor.link]
        if link.woken and link.role == FREE:
            at = "handle" if link.unhandled else "got"
            yield "reads again", _both(world, me, actor._replace(at=at), role=me, woken=False)

    # ------------------------------------------------------------------------------------------------ workers

    def _worker(self, link: Link) -> Iterator[tuple[str, Link]]:
        reads = not link.runs and not link.calls and not link.replies  # it has answered all, and holds its lock for reading
        if reads and link.to_worker:
            yield f"receives {_these(link.to_worker)}", link._replace(calls=link.to_worker, to_worker=())
        if not link.runs and link.calls:
            yield f"runs task {link.calls[0]}", link._replace(runs=link.calls[0], calls=link.calls[1:])
        if link.runs:
            yield f"has done task {link.runs}", link._replace(runs=0, replies=(*link.replies, link.runs))
        if link.replies and len(link.to_host) < self.config.to_host:
            yield f"answers {_these(link.replies[:1])}", link._replace(to_host=link.to_host + link.replies[:1], replies=link.replies[1:])
        if link.recall:
            back = link.calls if reads else link.calls + link.to_worker
            after = link._replace(recall=False, calls=(), replies=(*link.replies, back))
            yield f"hands back {_these(back)}", after if reads else after._replace(to_worker=())


_ANSWERS = {"tick": ("tick", "quiet"), "off": ("relook", "off"), "drain": ("calm", "end"), "settle": ("got", "settled")}
"""Where `_has_work` is asked, and where its yes and its no lead."""
_UNPARKED = {"parked": False, "woken": True, "assisted": False}


def _linked(world: World, number: int, link: Link) -> World:
    links = world.links
    return world._replace(links=(*links[:number], link, *links[number + 1 :]))


def _acting(world: World, me: int, actor: Actor) -> World:
    actors = world.actors
    return world._replace(actors=(*actors[:me], actor, *actors[me + 1 :]))


def _both(world: World, me: int, actor: Actor, **changes: object) -> World:
    """The actor goes on, and its link is changed."""
    number = world.actors[me].link
    links, actors = world.links, world.actors
    changed = links[number]._replace(**changes)
    return world._replace(links=(*links[:number], changed, *links[number + 1 :]), actors=(*actors[:me], actor, *actors[me + 1 :]))


def _sees_work(actor: Actor) -> Actor:
    return actor._replace(at=_ANSWERS[actor.back][0], back="", todo=())


def _next_pump(actor: Actor) -> Actor:
    rest = actor.todo[1:]
    return actor._replace(todo=rest) if rest else actor._replace(at=actor.back, todo=(), back="")


def _these(frames: tuple[Frame, ...]) -> str:
    return ", ".join(str(frame) if isinstance(frame, int) else f"RETURNED {list(frame)}" for frame in frames) or "nothing"
