"""E-mails and their domains, as they are stored and compared."""

import pytest

from service.rules.identity import is_blocked
from service.wire.text import an_email, ascii_domain


@pytest.mark.parametrize(
    ("domain", "form"),
    [
        ("junk.example", "junk.example"),
        ("JUNK.Example.", "junk.example"),
        ("\uff4aunk.example", "junk.example"),
        ("ju\xadnk.example", "junk.example"),
        ("junk\u3002example\u3002", "junk.example"),
        ("b\xfccher.example", "xn--bcher-kva.example"),
        ("BU\u0308CHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("stra\xdfe.example", "xn--strae-oqa.example"),
        ("strasse.example", "strasse.example"),
    ],
)
def test_a_domain_has_one_form_that_of_idna_2008(domain, form):
    assert ascii_domain(domain) == form


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", "a.b..", "-a.b", "xn--zz.b", "\xfc" * 64, "a b"]
)
def test_what_is_no_domain_has_no_form(domain):
    with pytest.raises(ValueError):  # noqa: PT011  # idna has a class for each fault
        ascii_domain(domain)


@pytest.mark.parametrize(
    ("email", "blocked"),
    [
        ("a@junk.example", True),
        ("A@JUNK.EXAMPLE", True),
        ("a@my.junk.example", True),
        ("a@\uff4aunk.example", True),
        ("a@my\uff0ejunk.example", True),
        ("a@junk\u3002example", True),
        ("a@stra\xdfe.example", True),
        ("a@xn--strae-oqa.example", True),
        ("a@my.stra\xdfe.example", True),
        ("a@strasse.example", False),
        ("a@notjunk.example", False),
        ("a@junk.example.org", False),
        ("junk.example@example.org", False),
    ],
)
def test_an_e_mail_that_is_taken_is_blocked_however_its_domain_is_written(email, blocked):
    listed = {ascii_domain("Junk.example."), ascii_domain("STRA\xdfE.example")}
    domain = ascii_domain(an_email(email).rpartition("@")[2])
    assert is_blocked(domain, listed) is blocked


@pytest.mark.parametrize("email", ["a@ju\xadnk.example", "a@junk.example.", "a@junk.example.."])
def test_an_e_mail_that_hides_its_domain_is_not_taken(email):
    with pytest.raises(ValueError, match="must be a valid e-mail address"):
        an_email(email)
