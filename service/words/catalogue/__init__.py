"""The sentences of one language, read from its file beside this one; the same keys in each."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.words.languages import LANGUAGES, Language

FOLDER = Path(__file__).parent


class Catalogue:
    """Dotted keys to sentences; a missing key is a bug and raises KeyError."""

    def __init__(self, language: Language, sentences: Mapping[str, str]) -> None:
        self.language = language
        self.sentences = sentences

    def text(self, key: str) -> str:
        """The sentence of this key, with its `{places}` still empty."""
        return self.sentences[key]


def read_catalogues() -> Mapping[str, Catalogue]:
    """Every language's catalogue by its code."""
    return {code: Catalogue(speech, _read(code)) for code, speech in LANGUAGES.items()}


def _read(code: str) -> Mapping[str, str]:
    tables = tomllib.loads((FOLDER / f"{code}.toml").read_text(encoding="utf-8"))
    return dict(_flat("", tables))


def _flat(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", str(value)
