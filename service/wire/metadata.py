"""What an integrator notes beside something of ours: a small object of strings, kept as it is."""

from typing import Annotated

from pydantic import AfterValidator, Field

ENTRIES_MAX = 20
KEY_CHARACTERS_MAX = 100
VALUE_CHARACTERS_MAX = 500


def _small(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > ENTRIES_MAX:
        raise ValueError(f"must have at most {ENTRIES_MAX} entries")
    if not all(1 <= len(key) <= KEY_CHARACTERS_MAX for key in metadata):
        raise ValueError(f"must have keys of 1 to {KEY_CHARACTERS_MAX} characters")
    return metadata


Metadata = Annotated[
    dict[str, Annotated[str, Field(max_length=VALUE_CHARACTERS_MAX)]], AfterValidator(_small)
]
"""At most 20 strings of at most 500 characters."""
