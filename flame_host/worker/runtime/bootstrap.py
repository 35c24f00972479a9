"""The worker's side: runs in the application's interpreter, standard library only, Python 3.8 syntax.

Life of a worker: START names its paths, limits and codecs and carries the execution object; READY answers, or ERROR. Then CALL
frames come on the data socket and RESULT or ERROR frames go back, in order. The control socket is served by a thread of its own,
so that a call can be interrupted, and calls not yet begun can be handed back, while another runs.
"""

import errno
import io
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque

_LENGTH = struct.Struct("<I")
_REPLY_DELAY = 0.001  # seconds a reply may wait for company
_LONGEST_TEXT = 256 << 10  # characters of an error's message, traceback or note
_MOST_NOTES = 100
_LARGEST_ERROR = 16 << 20  # bytes of an exception that travels itself
_STREAM_WINDOW = 64
"""Items of a generator sent ahead of what the client has taken."""


class Interrupted(BaseException):
    """Raised in the task's thread to end it: not an Exception, so that the task does not swallow it by accident."""


# ---------------------------------------------------------------------------------------------------------------- reports


def error_report(error, dumps=None, kind="raised", path="", loads=None):
    """Describe an exception so that the other side can rebuild it, or at least tell about it.

    The format: length, that many bytes of JSON (type, message, text, notes, frames, kind, cause, path), then the exception itself
    as ``dumps`` writes it, or nothing when it cannot travel.
    """
    head = json.dumps(_describe(error, kind, path), default=str).encode("utf-8", "surrogatepass")
    body = b""
    if dumps is not None:
        body = _travelling(error, dumps, loads)
        if len(body) > _LARGEST_ERROR:
            body = b""
    return _LENGTH.pack(len(head)) + head + body


def _travelling(error, dumps, loads):
    """The exception itself; or class, arguments and attributes, where its constructor wants other arguments than it keeps.

    An exception that cannot travel at all is told about all the same.
    """
    try:
        body = bytes(dumps(error))
        if loads is not None:
            loads(body)
        return body
    except BaseException:
        try:
            return bytes(dumps((type(error), error.args, dict(error.__dict__))))
        except BaseException:
            return b""


def _describe(error, kind="", path="", seen=()):
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and (id(cause) in seen or len(seen) > 10):
        cause = None
    return {
        "type": type(error).__module__ + "." + type(error).__qualname__,
        "message": _bounded(_text_of(error)),
        "text": _bounded(_formatted(error)),
        "notes": [_bounded(str(note)) for note in list(getattr(error, "__notes__", ()))[:_MOST_NOTES]],
        "frames": _frames(error.__traceback__),
        "kind": kind,
        "path": path or getattr(error, "path", "") or "",
        "explicit": error.__cause__ is not None,
        "cause": _describe(cause, seen=(*seen, id(error))) if cause is not None else None,
    }


def _bounded(text):
    """Head and tail of what nobody would read, and the host would have to keep."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return "%s\n... %d characters left out ...\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def _text_of(error):
    try:
        return str(error)
    except Exception as broken:
        return "<str() of the exception raised %s>" % type(broken).__name__


def _formatted(error):
    try:
        lines = traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
    except Exception:
        lines = ["%s: %s\n" % (type(error).__qualname__, _text_of(error))]
    return "".join(lines)


def _without_ours(trace):
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace or (first if first is None else None)


def _frames(trace):
    try:
        summary = traceback.extract_tb(_without_ours(trace), limit=-100)
        return [[frame.filename, frame.lineno, frame.name, frame.line or ""] for frame in summary]
    except Exception:
        return []


# ---------------------------------------------------------------------------------------------------------------- output


class TaskOutput(io.TextIOBase):
    """Standard output or error of the user's code: whole lines go to the host, marked with the task that wrote them."""

    def __init__(self, worker, name, fd):
        self._worker = worker
        self._fd = fd
        self.partial = ""
        self._lock = threading.RLock()
        self.name = "<%s>" % name
        self._stream = 1 if name == "stdout" else 2
        self.buffer = io.FileIO(fd, "w", closefd=False)

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self):
        return True

    def fileno(self):
        return self._fd

    def isatty(self):
        return False

    def close(self):
        """A task may close what it thinks is its own; the next one prints all the same."""
        self.flush()

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        with self._lock:
            self.partial += text
            if "\n" in self.partial or len(self.partial) > 8192:
                head, newline, self.partial = self.partial.rpartition("\n")
                self._emit(head + newline if newline else self._take())
        return len(text)

    def flush(self):
        with self._lock:
            if self.partial:
                self._emit(self._take())

    def _take(self):
        rest, self.partial = self.partial, ""
        return rest

    def _emit(self, text):
        self._worker.send_log(self._stream, text.encode("utf-8", "backslashreplace"))


# ---------------------------------------------------------------------------------------------------------------- worker


class Worker:
    """State of this process."""

    def __init__(self, channel, memory, isolation, forked, data_fd, control_fd, progress_fd):
        self.channel = channel
        self.isolation = isolation
        self.data = socket.socket(fileno=data_fd)
        self.control = socket.socket(fileno=control_fd)
        self.receiver = channel.Receiver(self.data)
        self.queue = deque()
        self.reading = threading.Lock()
        self.replies = deque()
        self.replies_since = 0.0
        self.sending = threading.Lock()
        self.control_sending = threading.Lock()
        self.progress = _map_progress(progress_fd)
        self.started = 0
        self.current = 0
        self.busy = False
        self.main_thread = threading.get_ident()
        self.pid = os.getpid()
        self.target = None
        self.methods = {}
        self.dumps = self.loads = None
        self.codecs = {}
        self.mapped = memory.Mapped()
        self.format = ""
        self.credit = (0, 0)
        self.credited = threading.Lock()
        self.credited.acquire()
        self.checkpoint = self.unsaved = 0
        self.loop = None
        self.home = isolation._Home()
        self.forks = forked.Forks
        self.forked = None
        self.public_only = False
        self.unwanted = set()
        self.shielded = False
        self.hurried = False

    # ------------------------------------------------------------------------------------------------ start

    def start(self):
        """Take the START frame; answer READY or ERROR. Returns whether there is anything to do."""
        frames = []
        while not frames:
            frames = [frame for frame in self.receiver.receive() if frame[0] == self.channel.START]
        data, _, references = self.channel.decode(frames[0])
        order = json.loads(self.channel.view_of(data))
        try:
            self._settle_in(order)
            self._load(order, references[0])
        except BaseException as error:
            kind = "exit" if isinstance(error, SystemExit) else "load"
            self._reply(self.channel.ERROR, 0, error_report(error, self.dumps, kind))
            self.flush()
            return False
        self._reply(self.channel.READY, 0, json.dumps({"pid": self.pid, "python": sys.version.split()[0]}).encode())
        self.flush()
        return True

    def _settle_in(self, order):
        os.environ.update(order["variables"])
        if order["cwd"]:
            os.chdir(order["cwd"])
        if order.get("contents"):
            _copy_on_write(order["contents"])
        self.isolation._limit(order["limits"])
        self.checkpoint = order["checkpoint"]
        sys.path[:0] = order["paths"]
        sys.path.append(order["support"])
        sys.argv = [order["name"]]
        for format, module in order["codecs"].items():
            self.codecs[format] = module
        self.format = order["format"]
        codec = self._codec(self.format)
        self.dumps, self.loads = codec.dumps, codec.loads
        self.stdout = sys.stdout = sys.__stdout__ = TaskOutput(self, "stdout", 1)
        self.stderr = sys.stderr = sys.__stderr__ = TaskOutput(self, "stderr", 2)

    def _codec(self, format):
        module = self.codecs.get(format)
        if module is None:
            raise ValueError("payload of format %r is not admitted here; admitted: %s" % (format, ", ".join(self.codecs)))
        if isinstance(module, str):
            import importlib

            module = self.codecs[format] = importlib.import_module(module)
        return module

    def _load(self, order, reference):
        format, data, buffers = reference
        codec = self._codec(format)
        load = getattr(codec, "loads_code", codec.loads)  # a door of its own, where a format has one
        self.public_only = order["inside"] is not None
        limited = order["inside"] is not None and load is not codec.loads
        allow = {"allow": self.isolation.inside(order["inside"])} if limited else {}
        target = load(self.channel.view_of(data), buffers=[self.channel.writable_view_of(part) for part in buffers], **allow)
        if order["instantiate"]:
            target = target()
        self.target = target
        self.methods = {b"": target}
        self._remember_home()
        if order["isolation"] == "process":
            self.forked = self.forks(self)

    def _remember_home(self):
        """What one task changes, the next does not see; see `isolation`."""
        signal.signal(_INTERRUPTION, self._interrupted)
        self.home.remember()

    # ------------------------------------------------------------------------------------------------ calls

    def serve(self):
        """Run calls until the host goes away."""
        queue, clock, append, call = self.queue, time.monotonic, self.queue.append, self.channel.CALL
        while True:
            try:
                while queue:
                    if self.replies and clock() - self.replies_since > _REPLY_DELAY:
                        self.flush()
                    try:
                        frame = queue.popleft()
                    except IndexError:  # handed back by the control thread in between
                        break
                    if self.forked is None:
                        self._run(frame)
                    else:
                        self.forked(frame)
                self.flush()
                self.progress[2] = self.started  # all is answered: see WorkerProcess.at_rest
                self.home.next_look = 0.0  # nothing else to do: nobody waits for it
                self.home.look()
                with self.reading:
                    for frame in self._receive():
                        if frame[0] == call:
                            append(frame)
            except Interrupted:  # came too late for its task
                continue
            except self.channel.ChannelClosed:
                return

    def leave(self):
        """Told to end: what the execution object has outside of this process, it takes along."""
        leave = getattr(type(self.target), "__flame_leave__", None)
        if leave is not None:
            leave(self.target)

    def _receive(self):
        """Wait for frames; awake at first, if the last ones came at once and nobody else is likely to want the core."""
        since = time.monotonic()
        frames = self.receiver.spin() if self.hurried else None
        if frames is None:
            frames = self.receiver.receive()
        self.hurried = bool(frames) and frames[-1][1] & self.channel.SPIN and time.monotonic() - since < self.channel.QUICK
        return frames

    def _run(self, frame):
        _, flags, extra, number, body, _ = frame
        self.started += 1
        self.progress[0] = self.started
        self.current = number
        self.busy = True
        try:
            try:
                if self.unwanted:
                    self._interrupted()
                if flags & self.channel.WITH_PARTS:
                    value = self._call_with_parts(frame)
                else:
                    method = self.methods.get(body[:extra])
                    if method is None:
                        method = self._method(body[:extra])
                    args, kwargs = self.loads(body[extra:])
                    value = method(*args, **kwargs)
                kind = type(value)
                if kind in _PLAIN:
                    data, buffers = self.dumps(value), ()
                else:
                    data, buffers = self._encode(value, number)
                if self.checkpoint:
                    self._save(number)
            finally:
                self.busy = False
        except BaseException as error:
            self._stay_alone()
            self._fail(number, error)
        else:
            self._stay_alone()
            if buffers or len(data) > self.channel.INLINE_LIMIT:
                self._send_large(number, data, buffers)
            else:
                self._reply(self.channel.RESULT, number, data)
        self._clean_up()

    def _save(self, number):
        """Send the object as it is after this call, ahead of the answer: whoever has that has the state, too."""
        self.unsaved += 1
        if self.unsaved >= self.checkpoint:
            data, buffers = self._dumped(self.target)
            self._undisturbed(self._send_parts, self.channel.STATE, number, data, buffers)
            self.unsaved = 0

    def _send_large(self, number, data, buffers):
        try:
            frame, segments = self.channel.encode(self.channel.RESULT, number, data, buffers)
        except Exception as error:  # no room for a segment, or more than a frame can hold
            self._fail(number, error)
        else:
            self._send_frame(frame, segments)

    def _stay_alone(self):
        """A child forked by the task that came back here must not answer for us."""
        if os.getpid() != self.pid:
            os._exit(0)

    def _clean_up(self):
        self.home.look()
        if sys.stdout is not self.stdout or sys.stderr is not self.stderr:
            sys.stdout, sys.stderr = self.stdout, self.stderr
        if self.stdout.partial or self.stderr.partial:
            self.stdout.flush()
            self.stderr.flush()
        self.current = 0

    def _method(self, name):
        if name not in self.methods:
            if self.public_only and name[:1] == b"_" and name not in _PUBLIC:
                raise AttributeError("%s is private, and policy says pickle = deny" % name.decode())
            self.methods[name] = getattr(self.target, name.decode())
        return self.methods[name]

    def _call_with_parts(self, frame):
        data, buffers, references = self.channel.decode(frame)
        if references:
            references = self.mapped.again(references)
        view = self.channel.view_of

        def resolve(index):
            format, content, parts = references[index]
            return self._codec(format).loads(view(content), buffers=[memoryview(view(part)) for part in parts])

        args, kwargs = self.loads(view(data), buffers=[memoryview(view(part)) for part in buffers], resolve=resolve)
        return self._method(frame[4][: frame[2]])(*args, **kwargs)

    def _encode(self, value, number):
        if hasattr(value, "__await__") and not isinstance(value, type):
            value = self._await(value)
        if hasattr(value, "__anext__"):
            value = self._iterate(value)
        if hasattr(value, "__next__") and hasattr(value, "send"):
            value = self._stream(value, number)
        return self._dumped(value)

    def _dumped(self, value):
        buffers = []
        try:
            data = self.dumps(value, buffers=buffers)
        except Interrupted:
            raise
        except BaseException as error:
            raise _Unpicklable(error) from error
        return data, buffers

    def _await(self, awaitable):
        async def run():
            return await awaitable

        loop = self._event_loop()
        try:
            return loop.run_until_complete(run())
        except Interrupted:
            self._cancel_coroutines(loop)
            raise

    @staticmethod
    def _cancel_coroutines(loop):
        """Give what was interrupted the chance to tidy up; otherwise it would go on within the next task."""
        import asyncio

        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))

    def _iterate(self, stream):
        """An asynchronous generator as an ordinary one."""
        while True:
            try:
                yield self._await(stream.__anext__())
            except StopAsyncIteration:
                return

    def _event_loop(self):
        if self.loop is None or self.loop.is_closed():
            import asyncio

            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop

    def _stream(self, generator, number):
        """Send items as they come, no more than a window ahead of the consumer; the result is the generator's return value."""
        self._reply(self.channel.OPEN_STREAM, number, b"")  # goes out with the first item, or with the result
        sent = 0
        while True:
            try:
                item = next(generator)
            except StopIteration as stop:
                return stop.value
            while sent >= self._taken(number) + _STREAM_WINDOW:
                self._undisturbed(self.flush)
                # Woken by the control thread. The time is no part of the protocol: it is for replies that a child thread has left.
                self.credited.acquire(timeout=0.2)
            data, buffers = self._dumped(item)
            self._undisturbed(self._send_parts, self.channel.ITEM, number, data, buffers)
            sent += 1

    def _taken(self, number):
        """How many of its items the consumer has taken, as far as is known here."""
        of, taken = self.credit
        return taken if of == number else 0

    def _fail(self, number, error):
        kind = "raised"
        path = ""
        if isinstance(error, _Unpicklable):
            error, kind = error.args[0], "unpicklable-result"
            path = getattr(error, "path", "")
        elif isinstance(error, SystemExit):
            kind = "exit"
        elif isinstance(error, Interrupted):
            kind = "cancelled"
        self._reply(self.channel.ERROR, number, error_report(error, None if kind == "cancelled" else self.dumps, kind, path, self.loads))
        del error

    # ------------------------------------------------------------------------------------------------ sending

    def _reply(self, kind, number, data):
        if not self.replies:
            self.replies_since = time.monotonic()
        self.replies.append(self.channel.HEADER.pack(kind, 0, 0, number, len(data)) + data)

    def _send_parts(self, kind, number, data, buffers):
        self._send_frame(*self.channel.encode(kind, number, data, buffers))

    def _send_frame(self, frame, segments):
        with self.sending:
            # What stands in line goes first, and nothing of the control thread's between descriptors and the frame that uses them.
            self._send_replies()
            self._write(frame, segments)

    def flush(self):
        if self.replies:
            with self.sending:
                self._send_replies()

    def _send_replies(self):
        """All that has been gathered in one write. Both threads add to the queue, so it is emptied piece by piece."""
        replies = self.replies
        try:
            data = replies.popleft()
            if replies:
                pending = [data]
                try:
                    while True:
                        pending.append(replies.popleft())
                except IndexError:
                    data = b"".join(pending)
        except IndexError:  # the other thread was quicker
            return
        self._write(data)

    def _write(self, data, segments=()):
        try:
            self.channel.send_descriptors(self.data, segments)
            self.data.sendall(data)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                self.progress[1] = 1  # not the host is gone, but a task has closed our descriptors
            raise self.channel.ChannelClosed("the host is gone") from None

    def _undisturbed(self, send, *args):
        """Send from within a task: an interruption waits, for it must not cut a frame in two."""
        self.shielded = True
        try:
            send(*args)
        finally:
            self.shielded = False
        self._interrupted()

    def send_log(self, stream, text):
        """Output of the user's code; dropped when the host is gone."""
        channel = self.channel
        frame = channel.HEADER.pack(channel.LOG, stream, 0, self.current, len(text)) + text

        def send():
            try:
                with self.control_sending:
                    self.control.sendall(frame)
            except OSError:
                pass

        if self.busy and threading.get_ident() == self.main_thread and not self.shielded:
            self._undisturbed(send)
        else:
            send()

    # ------------------------------------------------------------------------------------------------ control

    def listen(self):
        """Serve the control socket; the host's end closing means this process ends, whatever it is doing."""
        channel = self.channel
        receiver = channel.Receiver(self.control)
        try:
            while True:
                for frame in receiver.receive():
                    kind, number = frame[0], frame[3]
                    if kind == channel.STOP:
                        self.data.shutdown(socket.SHUT_RD)
                    elif kind == channel.RECALL:
                        self._hand_back()
                    elif kind == channel.CANCEL:
                        self._interrupt(number)
                    elif kind == channel.CREDIT:
                        self._give_credit(number, channel.taken_of(frame))
        except channel.ChannelClosed:
            pass
        except BaseException:
            # A worker that does not listen any more would never answer a recall. Its last words, and its end, are seen.
            sys.excepthook(*sys.exc_info())
        finally:
            os.kill(0, signal.SIGKILL)  # the process group: children too

    def _give_credit(self, number, taken):
        """What the host says holds whenever it comes: a number of all items, not of more. So none is lost, and none counts twice."""
        self.credit = (number, taken)
        try:
            self.credited.release()
        except RuntimeError:  # it is awake already
            pass

    def _hand_back(self):
        """Return the calls that have not begun, so that another worker can take them."""
        channel = self.channel
        if self.reading.acquire(False):
            try:
                received = self.receiver.receive(socket.MSG_DONTWAIT)
                self.queue.extend(frame for frame in received if frame[0] == channel.CALL)
            except (BlockingIOError, channel.ChannelClosed):
                pass
            finally:
                self.reading.release()
        numbers = []
        while True:
            try:
                numbers.append(self.queue.pop()[3])
            except IndexError:
                break
        self.unwanted.difference_update(numbers)  # that they were cancelled, the host knows
        self.replies.append(channel.returned(numbers))
        self.flush()

    def _interrupt(self, number):
        """Have the task's thread raise, also out of a system call it waits in. A call that has not begun raises when it does."""
        self.unwanted.add(number)
        signal.pthread_kill(self.main_thread, _INTERRUPTION)

    def _interrupted(self, *_):
        """Also the signal's handler: runs in the task's thread, perhaps too late for the task that was meant."""
        if self.busy and not self.shielded and self.current in self.unwanted:
            self.unwanted.discard(self.current)
            raise Interrupted


class _Unpicklable(Exception):
    """Carries the error of encoding a result."""


def _copy_on_write(contents):
    """Large files of the working directory are links to contents that others read, too; one that is opened for writing becomes a copy.

    It sees what Python itself opens. Everybody else finds a read-only file.
    """
    writing = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC
    contents += os.sep

    def copied(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if not ((isinstance(flags, int) and flags & writing) or (isinstance(mode, str) and set(mode) & set("wa+x"))):
                return
        elif event in ("os.truncate", "os.chmod", "os.utime", "sqlite3.connect"):
            path = arguments[0]
        else:
            return
        if isinstance(path, int):
            return
        try:
            path = os.fsdecode(path)
            if not os.path.islink(path) or not os.readlink(path).startswith(contents):
                return
            part = path + ".flame-copy"
            with open(path, "rb") as source, open(part, "wb") as target:
                while True:
                    block = source.read(1 << 20)
                    if not block:
                        break
                    target.write(block)
            os.replace(part, path)
        except (OSError, TypeError, ValueError):
            return  # what the task wanted to do will say what is wrong

    sys.addaudithook(copied)


_PUBLIC = frozenset({b"__call__", b"__sizeof__"})  # the latter is how a host asks whether a worker is ready
_PLAIN = frozenset({int, float, str, bool, type(None), bytes})
_INTERRUPTION = signal.SIGRTMAX - 2
"""Nobody else's, we hope; a task that takes it for itself can only be killed."""


def _map_progress(fd):
    import mmap

    return memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")


def main(channel, memory, isolation, forked, data_fd, control_fd, progress_fd):
    """Entry point; see `flame_host.worker.process` for the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's to act on
    worker = Worker(channel, memory, isolation, forked, data_fd, control_fd, progress_fd)
    threading.Thread(target=worker.listen, name="flame-control", daemon=True).start()
    try:
        if worker.start():
            worker.serve()
            worker.leave()
    except channel.ChannelClosed:
        pass
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        # Not sys.exit: threads and exit hooks that a task left behind must not keep the process.
        os._exit(0)
