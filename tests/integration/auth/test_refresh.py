"""Refresh tokens: each is good once, and a stolen one ends the session."""

import asyncio

import psycopg
from structlog.testing import capture_logs

from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from tests.integration.auth import api

Auth = pb_grpc.AuthServiceStub


def pass_time(admin_dsn: str, user_id: str, seconds: float) -> None:
    """Sets what happened to a user's sessions back by `seconds`."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE auth.sessions SET last_used_at = last_used_at - make_interval(secs => %s)"
            " WHERE user_id = %s",
            [seconds, user_id],
        )


async def test_a_session_goes_on_by_one_token_after_another(auth: Auth) -> None:
    tokens = await api.new_session(auth)
    user = await api.me(auth, tokens)

    given = [tokens.refresh_token]
    for _ in range(3):
        tokens = await api.refresh(auth, tokens.refresh_token)
        given.append(tokens.refresh_token)

    assert await api.me(auth, tokens) == user
    assert len(set(given)) == 4


async def test_a_lost_answer_is_given_again(auth: Auth) -> None:
    tokens = await api.new_session(auth)

    lost = await api.refresh(auth, tokens.refresh_token)
    again = await api.refresh(auth, tokens.refresh_token)

    assert again.refresh_token == lost.refresh_token
    assert await api.outcome(api.refresh(auth, again.refresh_token)) == "OK"


async def test_many_at_once_get_the_same_next_token(auth: Auth) -> None:
    tokens = await api.new_session(auth)

    answers = await asyncio.gather(*[api.refresh(auth, tokens.refresh_token) for _ in range(8)])

    (token,) = {answer.refresh_token for answer in answers}
    assert await api.outcome(api.refresh(auth, token)) == "OK"


async def test_a_spent_token_ends_the_session_after_the_grace(auth: Auth, admin_dsn: str) -> None:
    user = await api.register(auth)
    tokens, bystander = await api.login(auth, user.email), await api.login(auth, user.email)
    newer = await api.refresh(auth, tokens.refresh_token)
    pass_time(admin_dsn, user.id, 11)

    with capture_logs() as logs:
        stolen = await api.refusal(api.refresh(auth, tokens.refresh_token))

    assert stolen[:2] == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert await api.outcome(api.refresh(auth, newer.refresh_token)) == "INVALID_REFRESH_TOKEN"
    assert await api.outcome(api.me(auth, newer)) == "INVALID_CREDENTIALS"
    assert await api.outcome(api.me(auth, bystander)) == "OK"
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert (warning["user_id"], len(warning["session_id"])) == (user.id, 36)
    said = str(logs)
    assert not [secret for secret in (tokens.refresh_token[3:], user.email) if secret in said]


async def test_a_token_spent_before_the_last_ends_the_session_at_once(auth: Auth) -> None:
    first = await api.new_session(auth)
    second = await api.refresh(auth, first.refresh_token)
    third = await api.refresh(auth, second.refresh_token)

    assert await api.outcome(api.refresh(auth, first.refresh_token)) == "INVALID_REFRESH_TOKEN"
    assert await api.outcome(api.me(auth, third)) == "INVALID_CREDENTIALS"


async def test_what_is_no_refresh_token_is_refused(auth: Auth) -> None:
    tokens = await api.new_session(auth)
    made_up = ("x", "rt_", "rt_\0", "rt_" + "A" * 70, tokens.refresh_token + "A", "\ud7ff", "'")

    outcomes = {await api.outcome(api.refresh(auth, token)) for token in made_up}

    assert outcomes == {"INVALID_REFRESH_TOKEN"}
    assert await api.outcome(api.refresh(auth, "x" * 201)) == "INVALID_FIELDS"
    assert await api.outcome(api.refresh(auth, "")) == "INVALID_FIELDS"


async def test_a_stolen_database_holds_no_token(auth: Auth, admin_dsn: str) -> None:
    user = await api.register(auth)
    tokens = await api.login(auth, user.email)

    with psycopg.connect(admin_dsn) as connection:
        rows = connection.execute(
            "SELECT s::text FROM auth.sessions s UNION ALL SELECT u::text FROM auth.users u"
            " UNION ALL SELECT a::text FROM auth.attempts a"
        ).fetchall()
    kept = "".join(row[0] for row in rows)

    assert user.id in kept
    assert api.PASSWORD not in kept
    assert not [
        part
        for part in (tokens.refresh_token[-43:], *tokens.access_token.split("."))
        if part in kept
    ]
