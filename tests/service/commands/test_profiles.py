"""A person's settings: stored whole, in the audit trail, and only with a time zone that exists."""

import pytest

from service.commands.profiles import STEP, change
from service.rules.errors import Invalid
from service.store.profiles import Profile, read_profile
from service.words.zones import ZONES
from tests.makers import act, make_buyer


async def test_settings_are_stored_and_noted_in_the_audit_trail(house, owner):
    buyer = await make_buyer(house)
    wanted = Profile("Bäe", "Ÿ", "ar", "Pacific/Auckland")
    told = await act(house, buyer.actor, change(buyer.user_id, wanted))
    assert told == {"language": "ar", "timezone": "Pacific/Auckland"}
    assert await read_profile(house.pool, buyer.user_id) == wanted
    noted = await owner.fetch(
        "SELECT seq, step, actor_id FROM event WHERE subject_id = $1 ORDER BY seq", buyer.user_id
    )
    assert [row["seq"] for row in noted] == list(range(1, len(noted) + 1))
    assert (noted[-1]["step"], noted[-1]["actor_id"]) == (STEP, buyer.user_id)


async def test_the_houses_own_zone_is_chosen_by_none(house):
    buyer = await make_buyer(house)
    for zone in ("Europe/Paris", None):
        await act(house, buyer.actor, change(buyer.user_id, Profile("Bo", "Y", "en", zone)))
        assert await read_profile(house.pool, buyer.user_id) == Profile("Bo", "Y", "en", zone)


@pytest.mark.parametrize("zone", ["Mars/Phobos", "", "africa/tunis", "../../etc/passwd", "Etc/GMT"])
async def test_a_zone_that_is_not_on_the_list_changes_nothing(house, zone):
    buyer = await make_buyer(house)
    before = await read_profile(house.pool, buyer.user_id)
    with pytest.raises(Invalid) as refused:
        await act(house, buyer.actor, change(buyer.user_id, Profile("X", "Y", "fr", zone)))
    assert set(refused.value.details) == {"timezone"}
    assert await read_profile(house.pool, buyer.user_id) == before


def test_the_list_has_the_places_that_people_live_in():
    assert {"UTC", "Africa/Tunis", "Europe/Paris", "America/Argentina/Salta"} <= set(ZONES)
    assert len(ZONES) == len(set(ZONES)) > 400
