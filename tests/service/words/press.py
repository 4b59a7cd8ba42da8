"""`python -m tests.service.words.press`: the costliest paper there may be, in a process of its own.

All of a worker is loaded, as where papers are really made. Says how long it took and how large the
process has grown, as JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import workers.main  # noqa: F401  # its size counts
from service.words.papers import Papers
from tests.service.words.test_papers import LONGEST, printed


def peak_mib() -> float:
    """The most memory that this process has held. Its own: getrusage has the parent's in it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    image = Path(sys.argv[1]).read_text(encoding="ascii")
    with tempfile.TemporaryDirectory() as folder:
        papers = Papers.read(Path(folder))
        began = time.perf_counter()
        pdf = printed(papers, "ar", LONGEST["ar"], seller=image, buyer=image)
        seconds = time.perf_counter() - began
    told = {"seconds": seconds, "peak_mib": peak_mib(), "bytes": len(pdf)}
    sys.stdout.write(json.dumps(told))
