"""Whom the terminal's Ctrl-C reaches.

It goes to the whole foreground group: under `make run` also to make, which would then fail though
everything was stopped as asked.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

TERMINAL = 0  # standard input


@contextlib.contextmanager
def alone_in_front() -> Iterator[None]:
    """Be the only one whom the terminal interrupts, for as long as the block.

    Does nothing where there is no terminal, and where a shell has made us the leader of a group of
    our own already. Ctrl-Z is ignored meanwhile: make would go on waiting, with nobody in front.
    """
    group = os.getpgrp()
    if not os.isatty(TERMINAL) or os.tcgetpgrp(TERMINAL) != group or group == os.getpid():
        yield
        return
    for number in (signal.SIGTTOU, signal.SIGTSTP):  # the first else stops who changes the front
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(TERMINAL, os.getpid())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the terminal or the group may be gone by now
            os.tcsetpgrp(TERMINAL, group)
            os.setpgid(0, group)
