"""How a child of `amana up` notices that its parent is gone, even by `kill -9`.

The parent holds one end of a pipe and says the number of the other in AMANA_PARENT_PIPE. The
kernel closes the parent's end with it; the child then ends as after SIGTERM.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping

PARENT_PIPE = "AMANA_PARENT_PIPE"
DRAINED_WITHIN_SECONDS = 27.0  # the drain takes at most 25


def end_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """Send this process SIGTERM when its parent is gone, and SIGKILL if it has not drained by then.

    Does nothing where no parent has announced a pipe.
    """
    if number := environ.get(PARENT_PIPE):
        threading.Thread(target=wait_for_end, args=(int(number),), daemon=True).start()


def wait_for_end(descriptor: int) -> None:
    """Wait until the other end of the pipe is closed; end this process then."""
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(DRAINED_WITHIN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
