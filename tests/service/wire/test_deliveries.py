"""What of an attempt is shown to whom, and the cursor of the feed."""

import base64

import pytest

from service.wire.deliveries import (
    HIDDEN,
    Viewer,
    read_cursor,
    seen_headers,
    seen_text,
    write_cursor,
)

CUSTOM = {"Authorization": "Bearer abc-def-123", "X-Tenant": "t1"}


@pytest.mark.parametrize("viewer", Viewer)
def test_the_values_of_custom_headers_are_nobodys_to_see_beside_attempts(viewer: Viewer) -> None:
    assert seen_headers(CUSTOM) == {"Authorization": HIDDEN, "X-Tenant": HIDDEN}
    echoed = b'{"you":"Bearer abc-def-123","token":"abc-def-123","tenant":"t1"}'
    shown = seen_text(echoed, viewer, CUSTOM)
    assert shown is None or "abc-def-123" not in shown


def test_the_developer_sees_bodies_and_answers_and_the_operator_neither() -> None:
    raw = "déjà vu \xff".encode("latin-1")
    for viewer in (Viewer.DEVELOPER, Viewer.PERSON):
        assert seen_text(raw, viewer, CUSTOM) == "d�j� vu �"
    assert seen_text(raw, Viewer.OPERATOR, CUSTOM) is None
    assert seen_text(None, Viewer.DEVELOPER, CUSTOM) is None


def test_ordinary_words_are_not_blotted_out_by_a_short_header() -> None:
    assert seen_text(b"not found at t1", Viewer.DEVELOPER, CUSTOM) == "not found at t1"


@pytest.mark.parametrize("place", [(0, 0), (1234, 56), ((1 << 63) - 1, (1 << 63) - 1)])
def test_a_cursor_is_read_as_it_was_written(place: tuple[int, int]) -> None:
    assert read_cursor(write_cursor(*place)) == place


@pytest.mark.parametrize(
    "told",
    ["1.2.3", "1", "-1.2", "1.-2", " 1.2", "01.2", "1_0.2", "x.y", f"{1 << 63}.0", "\u0661.\u0662"],
)
def test_what_was_not_written_here_is_no_cursor(told: str) -> None:
    text = base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")
    with pytest.raises(ValueError, match="nextCursor"):
        read_cursor(text)
