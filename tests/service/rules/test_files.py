"""A file is what its content says; what a person called it is made harmless."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.files import EXTENSIONS, NAME_CHARACTERS_MAX, PDF, PNG, Look, harmless_name
from tests import attachments
from tests.attachments import SAMPLES, grown


def looked_at(content, step):
    look = Look()
    for start in range(0, len(content), step):
        look.feed(content[start : start + step])
    return look


@pytest.mark.parametrize("step", [1, 7, 16, 65536])
@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_whole_file_is_known_however_it_comes(kind, step):
    look = looked_at(SAMPLES[kind], step)
    assert (look.whole(), look.is_foreign) == (kind, False)
    assert looked_at(grown(SAMPLES[kind], 3000), step).whole() == kind


@pytest.mark.parametrize("step", [1, 7, 65536])
@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_file_that_was_cut_short_is_none(kind, step):
    cut = SAMPLES[kind][:-8]
    assert looked_at(cut, step).whole() is None
    assert looked_at(SAMPLES[kind][:20], step).whole() is None


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a" + b"\0" * 40,
        b"MZ" + b"\0" * 40,
        b"PK\x03\x04" + b"\0" * 40,
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"junk before " + attachments.PDF,
        b"\n" + attachments.PNG,
        b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40,
        b"\xff\xd8\xff\xff" + b"\0" * 40 + b"\xff\xd9",
        b"%PDF-html" + b"\0" * 40 + b"%%EOF",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40 + b"\0\0\0\0IEND\xaeB`\x82",
    ],
)
def test_anything_else_is_foreign_from_its_first_bytes(content):
    assert looked_at(content[:16], 16).is_foreign
    assert looked_at(content, 5).whole() is None


@given(st.binary(max_size=200))
def test_whatever_comes_the_look_has_an_answer(content):
    assert looked_at(content, 9).whole() in {None, *SAMPLES}


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("receipt.png", "receipt.png"),
        ("../../etc/passwd", "passwd.png"),
        ("C:\\Users\\sana\\receipt.PNG", "receipt.png"),
        ("/", "file.png"),
        ("", "file.png"),
        ("..", "file.png"),
        (".htaccess", "htaccess.png"),
        ("invoice.pdf.exe", "invoice.pdf.png"),
        ("a\r\nSet-Cookie: b=1.png", "aSet-Cookie_ b=1.png"),
        ('a"; filename="b.html', "a__ filename=_b.png"),
        ("gnp\u202eexe.tpircs", "gnpexe.png"),
        ("a\0b.png", "ab.png"),
        ("  وصل   الشراء .png", "وصل الشراء.png"),
        ("<script>alert(1)</script>.png", "script_.png"),
    ],
)
def test_a_name_is_only_what_can_be_shown(given_name, shown):
    assert harmless_name(given_name, PNG) == shown


@given(st.text(max_size=400), st.sampled_from(sorted(SAMPLES)))
def test_every_name_becomes_one_that_is_bounded_visible_and_true(name, kind):
    shown = harmless_name(name, kind)
    assert 1 <= len(shown) <= NAME_CHARACTERS_MAX
    assert shown.endswith(EXTENSIONS[kind])
    assert not set(shown) & set('/\\<>:"|?*;%\0\r\n')
    assert not shown.startswith(".")
    shown.encode()
    assert harmless_name(shown, kind) == shown


def test_the_ending_is_the_contents():
    assert harmless_name("cv.html", PDF) == "cv.pdf"
