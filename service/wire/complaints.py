"""What a person reads when a field is wrong: pydantic's error types as plain sentences.

Law: the one place for these sentences. A validator's own `ValueError("must be …")` is shown as it
stands; its text continues the field's name: *title* "must be at most 200 characters".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

SENTENCES: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "has the wrong format",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "is_instance_of": "must be of another type",
    "finite_number": "must be a finite number",
    "decimal_max_places": "must have at most {decimal_places} decimals",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "list_type": "must be a list",
    "too_long": "must have at most {max_length} entries",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "datetime_type": "must be an ISO 8601 instant",
    "datetime_parsing": "must be an ISO 8601 instant",
    "datetime_from_date_parsing": "must be an ISO 8601 instant",
    "datetime_object_invalid": "must be an ISO 8601 instant",
    "timezone_aware": "must be an ISO 8601 instant with its offset",
    "date_type": "must be a date",
    "date_parsing": "must be a date",
    "date_from_datetime_parsing": "must be a date",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "url_parsing": "must be a URL",
    "url_scheme": "must be a URL that begins with {expected_schemes}",
    "url_type": "must be a URL",
    "none_required": "must be absent",
}


def complaint(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors (an entry of `ValidationError.errors()`) as a sentence's end."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in ("too_long", "too_short") and context["field_type"] == "Value":
        kind = f"string_{kind}"  # of a text that was trimmed first
    if kind == "string_too_short":
        return _at_least(context["min_length"], "characters", "must not be empty")
    if kind == "too_short":
        return _at_least(context["min_length"], "entries", "must not be empty")
    if kind in SENTENCES:
        return SENTENCES[kind].format_map(context)
    return str(error["msg"]).replace("Input should", "should").rstrip(".")


def complaints(failure: ValidationError) -> dict[str, str]:
    """Every bad field with its sentence, under the name that the caller used: `policy.type`."""
    errors = failure.errors(include_url=False, include_input=False)
    return {_path(error["loc"]): complaint(error) for error in reversed(errors)}


def _path(location: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in location) or "body"


def _at_least(count: int, what: str, at_one: str) -> str:
    return at_one if count == 1 else f"must be at least {count} {what}"
