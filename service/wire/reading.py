"""The one reader of JSON from outside.

UTF-8 only. A fraction becomes a `Decimal` and an integer stays an integer; nothing goes through a
float. Whatever could mean two things, or mean nothing to PostgreSQL, is refused: duplicate keys,
NaN, Infinity, lone surrogates, NUL, numbers without end, objects without bottom.

It is on the way of every write, so that the ordinary body pays for one pass of the C scanner;
the walk through the value is only made when the text could hold something to find.
"""

import json
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from typing import Any, NoReturn

from service.rules.errors import Malformed

DEPTH_MAX = 64
NUMBER_CHARACTERS_MAX = 40
NUMBER_EXPONENT_MAX = 30
NUMBER_MAX = Decimal(10) ** NUMBER_EXPONENT_MAX
ZERO = Decimal(0)
# An integer token this short (sign and 30 digits) is below 10^30 whatever its digits are.
SAFE_INTEGER_CHARACTERS = 30
BYTE_ORDER_MARK = "\ufeff"


class _Unfit(ValueError):
    """Well-formed JSON that we refuse; the text says why."""


def _integer(token: str) -> int:
    if len(token) > SAFE_INTEGER_CHARACTERS:
        _bounded(token)
    return int(token)


def _fraction(token: str) -> Decimal:
    return _bounded(token)


def _bounded(token: str) -> Decimal:
    if len(token) > NUMBER_CHARACTERS_MAX:
        raise _Unfit(f"a number must be at most {NUMBER_CHARACTERS_MAX} characters long")
    number = Decimal(token)
    if not number:
        return ZERO
    if -NUMBER_EXPONENT_MAX <= number.adjusted() < NUMBER_EXPONENT_MAX:
        return number
    if number.copy_abs() == NUMBER_MAX:
        return number
    limits = f"10^-{NUMBER_EXPONENT_MAX} and 10^{NUMBER_EXPONENT_MAX}"
    raise _Unfit(f"a number must be between {limits} in size")


def _constant(token: str) -> NoReturn:
    raise _Unfit(f"{token} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unfit(f"the key {json.dumps(twice[:100])} appears twice")
    return named


DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_fraction,
    parse_int=_integer,
    parse_constant=_constant,
)


def read_json(raw: bytes) -> Any:
    """The value that these bytes say.

    Raises:
        Malformed: not JSON, not UTF-8, or one of the things that this reader refuses.
    """
    try:
        text = raw.decode()
        value = DECODER.decode(text)
        if "\\u" in text:
            _refuse_unstorable(value)
        if text.count("[") + text.count("{") > DEPTH_MAX:
            _refuse_deep(value)
    except UnicodeDecodeError:
        raise Malformed(reason="The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Malformed(reason=_where(error)) from None
    except _Unfit as unfit:
        raise Malformed(reason=f"The body cannot be read: {unfit}.") from None
    except RecursionError:
        raise Malformed(reason=_too_deep()) from None
    except (DecimalException, ValueError, OverflowError):
        raise Malformed(reason="The body holds a number that cannot be read.") from None
    return value


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that these bytes say; `Malformed` for anything else."""
    value = read_json(raw)
    if type(value) is not dict:
        raise Malformed(reason="The body must be a JSON object.")
    return value


def _refuse_unstorable(value: Any) -> None:
    """A `\\u` escape may have made a NUL or half of a surrogate pair: PostgreSQL stores neither."""
    for text in _texts(value):
        if "\0" in text:
            raise _Unfit("a string holds the NUL character")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _Unfit("a string holds half of a surrogate pair") from None


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield from part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _refuse_deep(value: Any) -> None:
    level, depth = [value], 0
    while level:
        nested = [part for part in level if isinstance(part, dict | list)]
        depth += bool(nested)
        if depth > DEPTH_MAX:
            raise _Unfit(f"it is nested deeper than {DEPTH_MAX} levels")
        level = [p for part in nested for p in (part.values() if type(part) is dict else part)]


def _too_deep() -> str:
    return f"The body cannot be read: it is nested deeper than {DEPTH_MAX} levels."


def _where(error: json.JSONDecodeError) -> str:
    if error.doc.startswith(BYTE_ORDER_MARK):
        return "The body begins with a byte order mark; send plain UTF-8."
    return f"The body is not valid JSON: line {error.lineno}, column {error.colno}."
