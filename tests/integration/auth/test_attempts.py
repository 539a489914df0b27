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


async def test_a_wrong_current_password_counts_like_a_login(auth: Auth) -> None:
    user = await api.register(auth)
    tokens = await api.login(auth, user.email)
    await fail(auth, user.email, 9)

    def change() -> Awaitable[pb.ChangePasswordResponse]:
        request = pb.ChangePasswordRequest(current_password="wrong", new_password="password1234")
        return auth.ChangePassword(request, timeout=10, metadata=api.bearer(tokens))

    assert [await api.outcome(change()), await api.outcome(change())] == [
        "WRONG_PASSWORD",
        "TOO_MANY_ATTEMPTS",
    ]


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
