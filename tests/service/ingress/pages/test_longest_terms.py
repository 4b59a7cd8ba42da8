"""Terms of just 10 000 characters on a contract's page: whole, in their lines, and inert."""

import html
import re

import pytest

from tests.service.ingress.pages.people import signed_in
from tests.service.ingress.pages.test_step import ROUTES, arranged, path_of
from tests.service.words.test_papers import LONGEST


@pytest.mark.parametrize("name", ["contract", "sign_contract"])
@pytest.mark.parametrize("language", LONGEST)
async def test_the_longest_terms_stand_whole_and_inert_on_their_page(
    ingress, house, owner, language, name
):
    terms = LONGEST[language]
    made, emails = await arranged(
        house, "standard", "pending", contract_terms=terms, language=language
    )
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, emails["buyer"])).get(path_of(made, name))
    [quoted] = re.findall(r"<blockquote[^>]*>(.*?)</blockquote>", page.text, re.DOTALL)
    assert "<b>" not in quoted
    assert "<i>" not in quoted
    shown = html.unescape(re.sub(r"<[^>]*>", "", quoted)).strip()
    assert [line.split() for line in shown.split("\n")] == [
        line.split() for line in terms.split("\n")
    ]
