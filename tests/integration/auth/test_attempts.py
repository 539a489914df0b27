"""Failed logins are held back, the same for every name."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import grpc
import psycopg
import pytest

from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from services.auth.store.devices import MOST_DEVICES
from tests import harness
from tests.integration.auth import api

Auth = pb_grpc.AuthServiceStub


async def fail(auth: Auth, name: str, times: int, address: str = "") -> Counter[str]:
    """What `times` attempts at once with wrong passwords come to."""
    attempts = [api.outcome(api.login(auth, name, "wrong", address)) for _ in range(times)]
    return Counter(await asyncio.gather(*attempts))


@pytest.mark.parametrize("exists", [True, False])
async def test_no_more_than_ten_of_many_at_once_are_let_pass(auth: Auth, *, exists: bool) -> None:
    name = (await api.register(auth)).email if exists else api.new_email()

    outcomes = await fail(auth, name, 30)

    assert outcomes == {"WRONG_PASSWORD": 10, "TOO_MANY_ATTEMPTS": 20}


async def test_the_right_password_waits_as_well_and_is_told_how_long(auth: Auth) -> None:
    user = await api.register(auth)
    await fail(auth, user.email, 10)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.login(auth, user.email)

    trailers = dict(refused.value.trailing_metadata() or ())
    wait = int(trailers["retry-after"])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == f"too many failed logins; wait {wait} seconds"
    assert 800 < wait <= 900


async def test_an_account_is_counted_as_one_by_all_its_names(auth: Auth) -> None:
    email = api.new_email()
    user = await api.register(auth, username=email[:20], email=email)

    await fail(auth, user.email.upper(), 5)
    await fail(auth, user.username, 5)

    assert await api.outcome(api.login(auth, email)) == "TOO_MANY_ATTEMPTS"


async def test_success_starts_the_account_anew(auth: Auth) -> None:
    user = await api.register(auth)
    await fail(auth, user.email, 9)

    await api.login(auth, user.email)

    assert await fail(auth, user.email, 9) == {"WRONG_PASSWORD": 9}


async def test_the_window_ends_and_its_row_is_swept(auth: Auth, admin_dsn: str) -> None:
    name = api.new_email()
    await fail(auth, name, 11)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute("UPDATE auth.attempts SET ends_at = now()")

        assert await fail(auth, name, 1) == {"WRONG_PASSWORD": 1}
        for _ in range(5):
            await fail(auth, name, 1)

        query = "SELECT count(*) FROM auth.attempts WHERE ends_at <= now()"
        left = connection.execute(query).fetchone()
    assert left == (0,)


def change(
    auth: Auth, tokens: pb.LoginResponse, current: str, new: str = "password1234"
) -> Awaitable[pb.ChangePasswordResponse]:
    request = pb.ChangePasswordRequest(current_password=current, new_password=new)
    return auth.ChangePassword(request, timeout=10, metadata=api.bearer(tokens))


async def test_wrong_current_passwords_hold_back_their_session_alone(auth: Auth) -> None:
    user = await api.register(auth)
    one, other = [await api.login(auth, user.email) for _ in range(2)]

    tries = [api.outcome(change(auth, one, "wrong")) for _ in range(12)]
    outcomes = Counter(await asyncio.gather(*tries))

    assert outcomes == {"WRONG_PASSWORD": 10, "TOO_MANY_ATTEMPTS": 2}
    assert await api.outcome(change(auth, one, api.PASSWORD)) == "TOO_MANY_ATTEMPTS"
    assert await api.outcome(change(auth, other, api.PASSWORD)) == "OK"


async def test_ten_failures_hold_back_their_address_and_no_other(auth: Auth) -> None:
    user = await api.register(auth)

    outcomes = await fail(auth, user.email, 12, "198.51.100.7")

    assert outcomes == {"WRONG_PASSWORD": 10, "TOO_MANY_ATTEMPTS": 2}
    held = await api.outcome(api.login(auth, user.email, address="198.51.100.7"))
    mapped = await api.outcome(api.login(auth, user.email, address="::ffff:198.51.100.7"))
    free = await api.outcome(api.login(auth, user.email, address="198.51.100.8"))
    assert (held, mapped, free) == ("TOO_MANY_ATTEMPTS", "TOO_MANY_ATTEMPTS", "OK")


async def test_an_address_of_ipv6_is_its_64_bits_of_network(auth: Auth) -> None:
    name = api.new_email()
    for host in range(10):
        await fail(auth, name, 1, f"2001:db8:7::{host + 1}")

    assert await fail(auth, name, 1, "2001:db8:7::ffff") == {"TOO_MANY_ATTEMPTS": 1}
    assert await fail(auth, name, 1, "2001:db8:7:1::1") == {"WRONG_PASSWORD": 1}


async def spread(auth: Auth, name: str, times: int, network: str) -> Counter[str]:
    """What attempts from `times` addresses come to, one each."""
    tries = [fail(auth, name, 1, f"{network}:{n:x}::1") for n in range(times)]
    return sum(await asyncio.gather(*tries), Counter())


@pytest.mark.parametrize("exists", [True, False])
async def test_many_strangers_are_held_back_together_the_same_for_every_name(
    admin_dsn: str, certificates_folder: Path, *, exists: bool
) -> None:
    settings = {"LOGIN_FAILURES_OF_STRANGERS": "20"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", settings=settings
    ) as mesh:
        auth = await api.connect(mesh)
        name = (await api.register(auth)).email if exists else api.new_email()

        outcomes = await spread(auth, name, 30, "2001:db8:2")

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.login(auth, name, address="2001:db8:3::1")
    assert outcomes == {"WRONG_PASSWORD": 20, "TOO_MANY_ATTEMPTS": 10}
    wait = int(dict(refused.value.trailing_metadata() or ())["retry-after"])
    assert 3_500 < wait <= 3_600


async def test_strangers_lock_out_neither_known_addresses_nor_open_sessions(
    admin_dsn: str, certificates_folder: Path
) -> None:
    settings = {"LOGIN_FAILURES_OF_STRANGERS": "20"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", settings=settings
    ) as mesh:
        auth = await api.connect(mesh)
        user = await api.register(auth)
        home = "2001:db8:a::1"
        tokens = await api.login(auth, user.email, address=home)
        await spread(auth, user.email, 30, "2001:db8:4")

        new_place = await api.outcome(api.login(auth, user.email, address="2001:db8:b::1"))
        at_home = await api.outcome(api.login(auth, user.email, address=home))
        others_home = await api.outcome(
            api.login(auth, (await api.register(auth)).email, address=home)
        )
        tokens = await api.refresh(auth, tokens.refresh_token)
        await api.me(auth, tokens)
        changed = await api.outcome(change(auth, tokens, api.PASSWORD))
        guessed = await fail(auth, user.email, 12, home)

    assert new_place == "TOO_MANY_ATTEMPTS"
    assert (at_home, others_home, changed) == ("OK", "OK", "OK")
    assert guessed == {"WRONG_PASSWORD": 10, "TOO_MANY_ATTEMPTS": 2}


async def test_an_account_knows_its_latest_addresses_and_none_in_the_clear(
    auth: Auth, admin_dsn: str
) -> None:
    user = await api.register(auth)
    for n in range(MOST_DEVICES + 3):
        await api.login(auth, user.email, address=f"203.0.113.{n}")
        await api.login(auth, user.email, address="203.0.113.0")

    with psycopg.connect(admin_dsn) as connection:
        query = "SELECT device FROM auth.devices WHERE user_id = %s"
        kept = [bytes(row[0]) for row in connection.execute(query, [user.id])]
    assert len(kept) == MOST_DEVICES
    assert {len(device) for device in kept} == {32}
    assert not [device for device in kept if b"203.0.113" in device]


async def test_registrations_from_an_address_are_limited(
    admin_dsn: str, certificates_folder: Path
) -> None:
    settings = {"REGISTRATIONS_PER_ADDRESS": "3"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", settings=settings
    ) as mesh:
        auth = await api.connect(mesh)

        def register(address: str) -> Awaitable[pb.RegisterResponse]:
            request = pb.RegisterRequest(email=api.new_email(), password=api.PASSWORD)
            return auth.Register(request, timeout=10, metadata=api.by(address))

        tries = [api.outcome(register(f"2001:db8:c::{n + 1}")) for n in range(5)]
        outcomes = Counter(await asyncio.gather(*tries))
        code, reason, text = await api.refusal(register("2001:db8:c::9"))
        elsewhere = await api.outcome(register("2001:db8:d::1"))
    assert outcomes == {"OK": 3, "TOO_MANY_REGISTRATIONS": 2}
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_REGISTRATIONS")
    assert text.startswith("too many registrations from this address; wait 3")
    assert elsewhere == "OK"


async def test_counters_hold_over_replicas_and_restarts(
    auth: Auth, admin_dsn: str, certificates_folder: Path
) -> None:
    name = api.new_email()
    await fail(auth, name, 10)

    async with harness.running_mesh(admin_dsn, certificates_folder, "auth") as another:
        outcome = await fail(await api.connect(another), name, 1)

    assert outcome == {"TOO_MANY_ATTEMPTS": 1}


async def test_an_address_is_held_back_whatever_names_it_tries(
    admin_dsn: str, certificates_folder: Path
) -> None:
    settings = {"LOGIN_FAILURES_PER_ADDRESS": "6", "LOGIN_FAILURES_PER_ACCOUNT": "3"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", settings=settings
    ) as mesh:
        auth = await api.connect(mesh)
        user = await api.register(auth)
        for _ in range(3):
            await api.login(auth, user.email, address="2001:db8::1")

        one = await fail(auth, api.new_email(), 4, "2001:db8::2")
        others = [await fail(auth, api.new_email(), 1, f"2001:db8::{n}") for n in range(3, 7)]
        elsewhere = await api.outcome(api.login(auth, user.email, address="2001:db8:1::1"))

    assert one == {"WRONG_PASSWORD": 3, "TOO_MANY_ATTEMPTS": 1}
    assert [*sum(others, Counter()).elements()] == ["WRONG_PASSWORD"] * 3 + ["TOO_MANY_ATTEMPTS"]
    assert elsewhere == "OK"


async def test_time_does_not_tell_which_accounts_exist_nor_is_it_spent_on_the_refused(
    auth: Auth,
) -> None:
    user = await api.register(auth)

    async def seconds(name: str, expected: str) -> float:
        began = time.perf_counter()
        assert await api.outcome(api.login(auth, name, "wrong")) == expected
        return time.perf_counter() - began

    known, unknown = [], []
    for _ in range(10):
        known.append(await seconds(user.email, "WRONG_PASSWORD"))
        unknown.append(await seconds(api.new_email(), "WRONG_PASSWORD"))
    refused = [await seconds(user.email, "TOO_MANY_ATTEMPTS") for _ in range(10)]

    ratio = statistics.median(unknown) / statistics.median(known)
    assert 0.6 < ratio < 1.6
    assert statistics.median(refused) < statistics.median(known) / 2
