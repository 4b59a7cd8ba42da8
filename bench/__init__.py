"""The benchmarks: one file a claim, each beside its floor, both measured in the same run.

`make bench` runs all of them against real processes on the loopback and writes `results.md`.
What counts are the ratios: the figures themselves are the machine's.
"""
