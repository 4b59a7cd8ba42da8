"""The invariants: what must always hold, and what a breach does. Source: ledger.md 4.

How each one is asked stands in `store/checks.py`, when in `commands/checks.py`.
"""

NAMES = {
    "A": "Every currency's accounts sum to zero",
    "B": "Every stored balance is the sum of its transfers",
    "C": "Every escrow's parts are what its transfers say",
    "D": "A final escrow holds nothing and waits for nothing",
    "E": "A funded escrow has an open deadline or an owner; no timer is late",
    "F": "Every log is gapless and leads to the state",
    "G": "Every event is fanned out within 5 s",
    "H": "Every payment intent is settled or listed",
    "I": "The hash chain over the events verifies",
    "J": "Every clearing account comes to zero",
    "K": "Every step is one of the table's",
}
FREEZING = frozenset("ABCDFK")
"""A breach freezes the escrow that it names; those of the others only raise the alarm."""
OF_EVERYBODY = frozenset("AHIJ")
"""A breach names no escrow, user, developer or endpoint, so it concerns everybody."""
