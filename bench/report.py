"""What a run has found, in words: ratios first, and the machine that they hold for."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from service.cli.postgres import find_binary
from service.cli.redis_server import find_server, read_version

LIBRARIES = ("aiohttp", "asyncpg", "uvloop", "pydantic", "orjson", "arq")


@dataclass(frozen=True)
class Finding:
    """One line: what was measured, beside what it is measured against, and whether that holds."""

    claim: str
    ours: str
    floor: str
    figure: str
    needed: str
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "**no**", None: ""}[self.holds]


def at_least(claim: str, ours: str, floor: str, ratio: float, least: float) -> Finding:
    """A rate as a share of its floor's."""
    return Finding(claim, ours, floor, f"{ratio:.2f} x", f">= {least} x", ratio >= least)


def at_most(claim: str, ours: str, floor: str, ratio: float, most: float) -> Finding:
    """A time as a multiple of another."""
    return Finding(claim, ours, floor, f"{ratio:.2f} x", f"< {most} x", ratio < most)


def below(claim: str, ours: str, value: float, most: float, unit: str) -> Finding:
    """A size or a time with a bound."""
    return Finding(claim, ours, "", f"{value:.0f} {unit}", f"< {most:.0f} {unit}", value < most)


def told(claim: str, ours: str, floor: str = "", figure: str = "") -> Finding:
    """A figure that is reported and not bounded."""
    return Finding(claim, ours, floor, figure, "")


def written(findings: Sequence[Finding], seconds: float) -> str:
    """The page of one run."""
    rows = [
        f"| {f.claim} | {f.ours} | {f.floor} | {f.figure} | {f.needed} | {f.verdict} |"
        for f in findings
    ]
    lines = [
        "# Benchmarks",
        "",
        f"One run of `make bench` on {datetime.now(UTC):%Y-%m-%d}, {seconds:.0f} s; each floor was"
        " measured in the same run.",
        "Ratios are what to compare: the figures are the machine's, and its neighbours'.",
        "",
        "| Claim | Ours | Floor | Figure | Needed | Holds |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## Machine",
        "",
        *(f"- {fact}" for fact in facts()),
        "",
    ]
    return "\n".join(lines)


def facts() -> list[str]:
    """Cores, memory and versions; nothing that names the machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    postgres = subprocess.run(
        [find_binary("postgres"), "--version"], capture_output=True, text=True, check=True
    )
    major, minor = read_version(find_server())
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return [
        f"{os.cpu_count()} cores, {processor()}, {pages / 2**30:.0f} GiB of memory,"
        f" {platform.system()} on {platform.machine()}",
        f"Python {platform.python_version()}, {libraries}",
        f"{postgres.stdout.strip()}; Redis protocol server {major}.{minor}",
    ]


def processor() -> str:
    """The processor's model, where the system says it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
