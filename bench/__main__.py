"""`python -m bench [claim …]`: every claim, or those named; writes `bench/results.md`."""

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import uvloop

from bench import checkout, create, deliver, expire, lanes, latency, listing, milestones, papers
from bench.ground import Ground, prepared
from bench.report import Finding, below, written

RESULTS = Path(__file__).with_name("results.md")
MEMORY_MIB = 150

CLAIMS: Mapping[str, Callable[[Ground], Awaitable[list[Finding]]]] = {
    "create": create.measure,
    "deliver": deliver.measure,
    "lanes": lanes.measure,
    "workers": lanes.measure_workers,
    "latency": latency.measure,
    "expire": expire.measure,
    "listing": listing.measure,
    "checkout": checkout.measure,
    "milestones": milestones.measure,
    "papers": papers.measure,
}
PROCESSES = {"serve": "ingress", "work": "worker"}


def main(names: list[str]) -> int:
    """Measure; 1 when a claim does not hold."""
    began = time.monotonic()
    findings: list[Finding] = []
    peaks_mib: dict[str, float] = {}
    for name in names or CLAIMS:
        print(f"measuring {name} ...", file=sys.stderr)
        with prepared() as ground:
            findings += uvloop.run(_measure(name, ground))
        for verb, peak in ground.peaks_mib.items():
            peaks_mib[verb] = max(peak, peaks_mib.get(verb, 0.0))
    findings += [
        below(f"memory of the {PROCESSES[verb]} in all of these", "peak", peak, MEMORY_MIB, "MiB")
        for verb, peak in peaks_mib.items()
    ]
    page = written(findings, time.monotonic() - began)
    print(page)
    if not names:
        RESULTS.write_text(page, encoding="utf-8")
    return 1 if any(finding.holds is False for finding in findings) else 0


async def _measure(name: str, ground: Ground) -> list[Finding]:
    return await CLAIMS[name](ground)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
