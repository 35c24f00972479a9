"""What keeps one task from another: what every task finds as it was, and the kernel's limits of the process.

Runs in the application's interpreter: standard library only, Python 3.8 syntax.
"""

import os
import signal

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_DIRTYING = frozenset({"os.chdir", "os.fchdir", "os.putenv", "os.unsetenv"})


class _Home:
    """What every task finds as it was when the execution object had been loaded."""

    def __init__(self):
        self.cwd = os.getcwd()
        self.environment = dict(os.environ)
        self.handlers = {}
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            handler = signal.getsignal(number)
            if handler is not None:  # None: not set by Python
                self.handlers[number] = handler
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.timers = [timer for timer in _TIMERS if signal.getitimer(timer)[0] == 0]

    def restore(self):
        for timer in self.timers:
            if signal.getitimer(timer)[0]:
                signal.setitimer(timer, 0)
        for number, handler in self.handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        try:
            here = os.getcwd()
        except OSError:  # the task has removed it
            here = ""
        if here != self.cwd:
            os.chdir(self.cwd)
        if dict(os.environ) != self.environment:
            os.environ.clear()
            os.environ.update(self.environment)


def _limit(limits):
    if not limits:
        return
    import resource

    for name, value in limits.items():
        which = getattr(resource, "RLIMIT_" + name.upper())
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # Over the soft limit of CPU time comes SIGXCPU, which says what happened; over the hard one a SIGKILL.
        resource.setrlimit(which, (value, value + 1 if name == "cpu" and value != hard else value))
