"""A machine in which one thread at a time runs, and which one is decided by a strategy, step by step.

The standard library's locks, threads, clocks, sockets and pollers are replaced in this process, before our modules are imported; ours
are what they are. A step is a line of the code under test (by `sys.settrace`) or an operation of a lock, a socket or a poller. Where
nobody can go on, the clock jumps to whoever wakes first; where nobody ever would, or a scenario takes longer than it may by that
clock, the schedule is a finding. A run is a function of its seed.
"""

from __future__ import annotations

import _thread
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_allocate = _thread.allocate_lock
_real_write = os.write
START = 1000.0  # where the clock begins: zero would look like "not set"


class Killed(BaseException):
    """This thread's process was killed."""


class Finding(Exception):
    """A schedule in which something does not go on."""


class SimThread:
    """Has the shape of `threading.Thread`; runs only while it is the scheduler's current one."""

    def __init__(self, target: Callable[..., object], name: str = "", daemon: bool = True, args: tuple[Any, ...] = ()) -> None:
        self.name = name or target.__name__
        self.daemon = daemon
        self.process: Any = None
        self.killed = False
        self.ended = False
        self.interrupts: list[Callable[[], object]] = []
        self.ready: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.ident = 0
        self._target, self._args = target, args
        self._baton = _allocate()
        self._baton.acquire()

    def start(self) -> None:
        machine = Machine.current
        self.process = self.process or (machine.running.process if machine.running else None)
        machine.threads.append(self)
        _thread.start_new_thread(self._live, (machine,))
        machine.step()

    def _live(self, machine: Machine) -> None:
        self.ident = _thread.get_ident()
        self._baton.acquire()
        sys.settrace(machine.tracer)
        try:
            if not self.killed:
                self._target(*self._args)
        except Killed:
            pass
        except SystemExit:
            pass
        except BaseException:
            machine.problems.append(f"thread {self.name} ended by\n{traceback.format_exc()}")
        finally:
            sys.settrace(None)
            self.ended = True
            machine.threads.remove(self)
            machine.dispatch(self)

    def run_now(self) -> None:
        self._baton.release()

    def pause(self) -> None:
        self._baton.acquire()

    def join(self, timeout: float | None = None) -> None:
        Machine.current.wait(lambda: self.ended, timeout)

    def is_alive(self) -> bool:
        return not self.ended


class Machine:
    """One run.

    Args:
        choose: given the number of threads that could run, whether the running one is among them, says which (0 is the running one).
        limit: seconds of the machine's clock that the scenario may take. most: steps that it may take.
    """

    current: Machine

    def __init__(self, choose: Callable[[int, bool], int], limit: float, most: int, watched: Callable[[str], bool]) -> None:
        Machine.current = self
        self.choose = choose
        self.clock = START
        self.steps = 0
        self.threads: list[SimThread] = []
        self.running: SimThread | None = None
        self.problems: list[str] = []
        self.describe: Callable[[], str] = str
        self._until, self._most = START + limit, most
        self._over = _allocate()
        self._over.acquire()
        self._watched = watched
        self._known: dict[Any, bool] = {}

    def run(self, main: Callable[[], object]) -> None:
        """Run until ``main`` has returned; raises `Finding`."""

        def whole() -> None:
            try:
                main()
            except Killed:
                raise
            except BaseException:
                self.problems.append(f"the scenario failed:\n{traceback.format_exc()}")
            self._end_others()

        first = SimThread(whole, "main")
        self.threads.append(first)
        _thread.start_new_thread(first._live, (self,))
        self.running = first
        first.run_now()
        self._over.acquire()
        Machine.current = _Still()
        if self.problems:
            raise Finding("\n".join(self.problems))

    def _end_others(self) -> None:
        for thread in self.threads:
            thread.killed = thread is not self.running
        self._until = float("inf")
        self.wait(lambda: len(self.threads) == 1)

    # ------------------------------------------------------------------------------------------------ steps

    def tracer(self, frame: Any, event: str, _: Any) -> Any:
        code = frame.f_code
        watched = self._known.get(code)
        if watched is None:
            watched = self._known[code] = self._watched(code.co_filename)
        return self._line if watched else None

    def _line(self, frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            self.step(interruptible=False)
        return self._line

    def step(self, interruptible: bool = True) -> None:
        """The running thread is about to do something that others can see."""
        me = self.running
        if me is None or me.ident != _thread.get_ident():
            return  # a finalizer in a thread that is being taken down
        if me.killed:
            raise Killed
        self.steps += 1
        self.clock += 1e-6
        if self.steps > self._most:
            self._give_up(f"more than {self._most} steps")
        self.dispatch(me)
        if interruptible and me.interrupts:
            me.interrupts.pop(0)()

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Until it is ready; False if the time was over before."""
        me = self.running
        assert me is not None
        self.step()
        me.ready, me.deadline = ready, None if timeout is None else self.clock + max(0.0, timeout)
        if not ready():
            self.dispatch(None)
        me.ready = None
        if me.killed:
            raise Killed
        if me.interrupts:
            me.interrupts.pop(0)()
        return ready()

    def dispatch(self, me: SimThread | None) -> None:
        """Let the next thread run; returns when the caller's turn comes again. ``me``: the caller, if it could go on."""
        caller = self.running
        alive = me is not None and not me.ended
        able = [me] if alive else []
        able += [thread for thread in self.threads if thread is not me and self._could_run(thread)]
        if not able:
            able = self._sleepers()
        if not able:
            if not self.threads:
                self.running = None
                self._over.release()
                return
            self._give_up("nobody can ever go on")
        chosen = able[self.choose(len(able), alive)] if len(able) > 1 else able[0]
        if chosen is caller:
            return
        self.running = chosen
        if caller is not None and caller.ended:
            chosen.run_now()
            return
        chosen.run_now()
        assert caller is not None
        caller.pause()

    def _could_run(self, thread: SimThread) -> bool:
        if thread.ready is None or thread.killed or thread.interrupts:
            return True
        return thread.ready() or (thread.deadline is not None and thread.deadline <= self.clock)

    def _sleepers(self) -> list[SimThread]:
        """Time passes until somebody's is over."""
        due = [thread.deadline for thread in self.threads if thread.deadline is not None and thread.ready is not None]
        if not due:
            return []
        self.clock = max(self.clock, min(due))
        if self.clock > self._until:
            self._give_up(f"not done after {self.clock - START:.1f} s")
        return [thread for thread in self.threads if self._could_run(thread)]

    def kill(self, process: object) -> None:
        for thread in self.threads:
            if thread.process is process and thread is not self.running:
                thread.killed = True

    def _give_up(self, why: str) -> None:
        """What is left of the threads cannot be ended in order: say what was found, and leave the process."""
        lines = [f"FINDING in {os.environ.get('FLAME_SCHEDULE', '?')}: {why} ({self.steps} steps)"]
        try:
            lines.append(self.describe())
        except BaseException as error:
            lines.append(f"(no description: {error!r})")
        frames = sys._current_frames()
        for thread in self.threads:
            stack = traceback.extract_stack(frames[thread.ident]) if thread.ident in frames else []
            ours = [entry for entry in stack if self._watched(entry.filename)] or stack
            lines.append(
                f"{thread.name}:" + "".join(f"\n    {entry.filename}:{entry.lineno} {entry.name}: {entry.line}" for entry in ours[-6:])
            )
        _real_write(2, ("\n".join([*lines, *self.problems]) + "\n").encode())
        os._exit(3)


class _Still(Machine):
    """Before and between the runs: nothing else runs, and nothing is waited for."""

    def __init__(self) -> None:
        self.clock = START
        self.threads, self.running = [], None

    def step(self, interruptible: bool = True) -> None: ...

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        return ready()


Machine.current = _Still()

# ---------------------------------------------------------------------------------------------------- strategies


class RandomStrategy:
    """Another thread at a step with some probability; which one is even."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._often = self._chance.choice([0.01, 0.03, 0.1, 0.3])

    def __call__(self, count: int, running: bool) -> int:
        if running and self._chance.random() >= self._often:
            return 0
        return self._chance.randrange(count)


class BoundedStrategy:
    """Every schedule with at most ``preemptions`` changes of thread that were not needed, within the first ``depth`` choices.

    Call `next` after each run: False when all have been seen.
    """

    def __init__(self, depth: int, preemptions: int) -> None:
        self._depth, self._bound = depth, preemptions
        self._plan: list[int] = []
        self._counts: list[int] = []
        self._at = 0

    def __call__(self, count: int, running: bool) -> int:
        index, self._at = self._at, self._at + 1
        if index >= self._depth:
            return 0
        if index == len(self._plan):
            self._plan.append(0)
        if index == len(self._counts):
            self._counts.append(count)
        return min(self._plan[index], count - 1)

    @property
    def plan(self) -> list[int]:
        return self._plan

    def next(self) -> bool:
        while self._plan:
            last = len(self._plan) - 1
            if self._plan[last] + 1 < self._counts[last] and sum(map(bool, self._plan[:last])) < self._bound:
                self._plan[last] += 1
                break
            self._plan.pop()
            self._counts.pop()
        self._counts = self._counts[: len(self._plan)]
        self._at = 0
        return bool(self._plan)


# ---------------------------------------------------------------------------------------------------- locks and clocks


def machine_thread_killed() -> bool:
    running = Machine.current.running
    return running is not None and running.killed


def _held(owner: Any) -> bool:
    return owner is not None and not getattr(owner, "ended", False)


class SimLock:
    def __init__(self) -> None:
        self._owner: object = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        machine = Machine.current
        machine.step()
        left = None if timeout < 0 else timeout
        if _held(self._owner) and not (blocking and machine.wait(lambda: not _held(self._owner), left)):
            return False
        self._owner = machine.running or self
        return True

    def release(self) -> None:
        if self._owner is None:
            if machine_thread_killed():
                raise Killed
            raise RuntimeError("release unlocked lock")
        self._owner = None
        Machine.current.step()

    def locked(self) -> bool:
        return self._owner is not None

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class SimRLock:
    def __init__(self) -> None:
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        machine = Machine.current
        machine.step()
        me = machine.running
        if self._owner is not me:
            if _held(self._owner) and (not blocking or not machine.wait(lambda: not _held(self._owner), None if timeout < 0 else timeout)):
                return False
            self._count = 0
        self._owner = me
        self._count += 1
        return True

    def _at_fork_reinit(self) -> None:
        """Nobody forks here."""

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None
        Machine.current.step()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._owner is Machine.current.running

    def _release_save(self) -> tuple[int, object]:
        state = (self._count, self._owner)
        self._count, self._owner = 0, None
        return state

    def _acquire_restore(self, state: tuple[int, object]) -> None:
        Machine.current.wait(lambda: not _held(self._owner))
        self._count, self._owner = state


class _Nobody:
    name = "none"


def install() -> None:
    """Replace the standard library's parts. Before anything of ours is imported."""
    import queue
    import threading
    import time

    threading.Lock = threading._allocate_lock = SimLock  # type: ignore[attr-defined, assignment, misc]
    threading.RLock = SimRLock  # type: ignore[assignment, misc]
    threading.Thread = SimThread  # type: ignore[assignment, misc]
    threading.current_thread = lambda: Machine.current.running or _Nobody()  # type: ignore[assignment, return-value]
    threading.active_count = lambda: len(Machine.current.threads)
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined, assignment, misc]
    time.monotonic = lambda: Machine.current.clock
    time.time = lambda: Machine.current.clock
    time.sleep = lambda seconds: Machine.current.wait(lambda: False, seconds) and None
    signal.signal = lambda *_: None  # type: ignore[assignment, return-value]
    sys.addaudithook = lambda *_: None
