from decimal import Decimal
from service.commands import escrows, developers, wallets, users
from service.commands.perform import House, perform
from service.rules.machine import Actor, ActorKind, SYSTEM
from service.rules.terms import Terms
import orjson, pytest
from service.wire.base import Wire
from service.store.ledger import read_trial_balance


class Nothing(Wire):
    pass


async def test_an_instant_escrow_lives(house: House) -> None:
    got = {}

    async def arrange(tx):
        got["d"] = await developers.enrol(tx, "dev@x.com", "X", user_email="seller@x.com")
        got["u"] = await users.register(tx, "buyer@x.com", "B", "Y")
        await wallets.top_up(tx, "buyer@x.com", 1_000_000, "TND")
        return Nothing()

    await perform(house, SYSTEM, arrange)
    d = got["d"]
    u = got["u"]
    actor = Actor(ActorKind.DEVELOPER, developer_id=d.developer_id, user_id=d.user_id)
    t = Terms(
        "T",
        Decimal(100),
        "TND",
        "buyer@x.com",
        None,
        "instant",
        None,
        None,
        False,
        0,
        None,
        "en",
        "manual",
    )
    a = await perform(house, actor, escrows.create(d.developer_id, t), status=201)
    e = orjson.loads(a.body)
    print(e)
    eid = e["escrow"]["id"]
    b = await perform(house, Actor(ActorKind.USER, user_id=u.person.id), escrows.pay(eid))
    c = await perform(house, actor, escrows.deliver(eid))
    print(c.body)
    print(await read_trial_balance(house.pool))
    print(
        await house.pool.fetch(
            "select subject_kind,seq,type,step,from_state,to_state from event order by position"
        )
    )
