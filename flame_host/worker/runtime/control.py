"""The control socket, served by a thread of its own, so that a call can be interrupted, and calls not begun be handed back.

Standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from .channel import CALL, CANCEL, CREDIT, RECALL, STOP, ChannelClosed, Receiver, returned, taken_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bootstrap import Worker


def listen(worker: Worker) -> None:
    """Until the host's end closes: then this process ends, whatever it is doing."""
    receiver = Receiver(worker.control)
    try:
        while True:
            for frame in receiver.receive():
                kind, number = frame[0], frame[3]
                if kind == STOP:
                    worker.data.shutdown(socket.SHUT_RD)
                elif kind == RECALL:
                    _hand_back(worker)
                elif kind == CANCEL:
                    worker.task.interrupt(number)
                elif kind == CREDIT:
                    worker.give_credit(number, taken_of(frame))
    except ChannelClosed:
        pass
    except BaseException:
        # A worker that does not listen any more would never answer a recall. What it printed last, and its end, are seen.
        sys.excepthook(*sys.exc_info())
    finally:
        os.kill(0, signal.SIGKILL)  # the process group: children too


def _hand_back(worker: Worker) -> None:
    """Return the calls that have not begun, so that another worker can take them."""
    if worker.reading.acquire(False):
        try:
            received = worker.receiver.receive(socket.MSG_DONTWAIT)
            worker.queue.extend(frame for frame in received if frame[0] == CALL)
        except (BlockingIOError, ChannelClosed):
            pass
        finally:
            worker.reading.release()
    numbers = []
    while True:
        try:
            numbers.append(worker.queue.pop()[3])
        except IndexError:
            break
    worker.task.unwanted.difference_update(numbers)  # that they were cancelled, the host knows
    worker.replies.add_frame(returned(numbers))
    worker.replies.flush()
