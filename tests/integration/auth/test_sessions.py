"""Logging in, looking at sessions, and ending them."""

import psycopg
import pytest
from google.api.httpbody_pb2 import HttpBody

from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from tests.integration.auth import api

Auth = pb_grpc.AuthServiceStub
FORM = "application/x-www-form-urlencoded"


async def sessions(
    auth: Auth, tokens: pb.LoginResponse, **page: int | str
) -> pb.ListSessionsResponse:
    request = pb.ListSessionsRequest(**page)  # type: ignore[arg-type]  # by name
    return await auth.ListSessions(request, timeout=5, metadata=api.bearer(tokens))


async def change_password(auth: Auth, tokens: pb.LoginResponse, current: str, new: str) -> None:
    request = pb.ChangePasswordRequest(current_password=current, new_password=new)
    await auth.ChangePassword(request, timeout=10, metadata=api.bearer(tokens))


async def revoke(auth: Auth, tokens: pb.LoginResponse, session_id: str) -> None:
    request = pb.RevokeSessionRequest(session_id=session_id)
    await auth.RevokeSession(request, timeout=5, metadata=api.bearer(tokens))


async def logout(auth: Auth, tokens: pb.LoginResponse) -> None:
    await auth.Logout(pb.LogoutRequest(), timeout=5, metadata=api.bearer(tokens))


async def test_one_logs_in_by_username_or_email_in_any_case(auth: Auth) -> None:
    email = api.new_email()
    user = await api.register(auth, username=f"Ann-{email[:8]}", email=email)

    for names in (
        {"username": user.username.lower()},
        {"username": user.username.upper()},
        {"email": email.upper()},
        {"username": email},
    ):
        request = pb.LoginRequest(password=api.PASSWORD, **names)
        tokens = await auth.Login(request, timeout=10)
        assert await api.me(auth, tokens) == user
        assert (tokens.token_type, tokens.expires_in) == ("bearer", 900)


@pytest.mark.parametrize(
    "name",
    ["nobody", "nobody@example.com", "a\0b", "a\0b@example.com", "' OR 1=1 --", "\ud7ff\U0010ffff"],
)
async def test_a_name_without_an_account_is_a_wrong_password(auth: Auth, name: str) -> None:
    user = await api.register(auth)

    unknown = await api.refusal(api.login(auth, name))
    wrong = await api.refusal(api.login(auth, user.email, "wrong\0password"))

    assert unknown == wrong
    assert wrong == ("UNAUTHENTICATED", "WRONG_PASSWORD", "wrong username, email or password")


@pytest.mark.parametrize(
    "fields",
    [{}, {"username": "a", "email": "b"}, {"username": "a" * 255}, {"email": "a", "password": ""}],
)
async def test_a_login_that_can_not_be_is_refused(auth: Auth, fields: dict[str, str]) -> None:
    request = pb.LoginRequest(**({"password": "x"} | fields))

    assert await api.outcome(auth.Login(request, timeout=5)) == "INVALID_FIELDS"


async def test_a_form_starts_and_refreshes_a_session(auth: Auth) -> None:
    user = await api.register(auth)

    async def post(text: str) -> pb.LoginResponse:
        form = HttpBody(content_type=FORM, data=text.encode())
        return await auth.IssueToken(pb.IssueTokenRequest(form=form), timeout=10)

    tokens = await post(f"username={user.email.upper()}&password={api.PASSWORD}")
    newer = await post(f"grant_type=refresh_token&refresh_token={tokens.refresh_token}")

    assert await api.me(auth, newer) == user
    assert await api.outcome(post(f"username={user.email}&password=wrong")) == "WRONG_PASSWORD"
    assert await api.outcome(post(f"username=a%00b&password=x%00{user.id}")) == "WRONG_PASSWORD"
    bad = await api.refusal(post(f"username={user.email}"))
    assert bad == ("INVALID_ARGUMENT", "INVALID_FORM", "password: required")


async def test_sessions_are_listed_newest_first_in_pages(auth: Auth) -> None:
    user = await api.register(auth)
    first, *_, last = [await api.login(auth, user.email) for _ in range(3)]

    one = await sessions(auth, last, page_size=2)
    two = await sessions(auth, last, page_size=2, page_token=one.next_page_token)

    listed = [*one.sessions, *two.sessions]
    whole = (await sessions(auth, last)).sessions
    assert listed == list(whole)
    assert [each.is_current for each in listed] == [True, False, False]
    assert two.next_page_token == ""
    times = [each.created_at.ToDatetime() for each in listed]
    assert times == sorted(times, reverse=True)
    assert [each.is_current for each in (await sessions(auth, first)).sessions] == [
        False,
        False,
        True,
    ]


async def test_a_session_says_what_the_client_called_itself(auth: Auth) -> None:
    user = await api.register(auth)
    tokens = await api.login(auth, user.email)

    (session,) = (await sessions(auth, tokens)).sessions

    assert session.user_agent.startswith("grpc-python-asyncio/")
    life = session.expires_at.ToDatetime() - session.created_at.ToDatetime()
    assert life.days == 30


async def test_a_place_in_another_list_is_refused(auth: Auth) -> None:
    user = await api.register(auth)
    tokens = [await api.login(auth, user.email) for _ in range(2)]
    place = (await sessions(auth, tokens[0], page_size=1)).next_page_token

    stranger = await api.new_session(auth)

    call = sessions(auth, stranger, page_token=place)
    assert await api.outcome(call) == "INVALID_PAGE_TOKEN"


async def test_a_logged_out_session_is_over_in_every_way(auth: Auth) -> None:
    tokens = await api.new_session(auth)

    await logout(auth, tokens)

    outcomes = [
        await api.outcome(call)
        for call in (
            api.me(auth, tokens),
            sessions(auth, tokens),
            revoke(auth, tokens, "00000000-0000-0000-0000-000000000001"),
            change_password(auth, tokens, api.PASSWORD, "password1234"),
            logout(auth, tokens),
            api.refresh(auth, tokens.refresh_token),
        )
    ]
    assert outcomes == ["INVALID_CREDENTIALS"] * 5 + ["INVALID_REFRESH_TOKEN"]


async def test_a_session_that_is_over_ends_no_other(auth: Auth) -> None:
    user = await api.register(auth)
    over, alive = await api.login(auth, user.email), await api.login(auth, user.email)
    (alive_id,) = [s.id for s in (await sessions(auth, alive)).sessions if s.is_current]
    await logout(auth, over)

    assert await api.outcome(revoke(auth, over, alive_id)) == "INVALID_CREDENTIALS"
    assert await api.outcome(api.me(auth, alive)) == "OK"


async def test_an_expired_session_is_over_and_is_swept(auth: Auth, admin_dsn: str) -> None:
    user = await api.register(auth)
    old, tokens = await api.login(auth, user.email), await api.login(auth, user.email)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE auth.sessions SET expires_at = now() WHERE id ="
            " (SELECT id FROM auth.sessions WHERE user_id = %s ORDER BY created_at LIMIT 1)",
            [user.id],
        )
        assert len((await sessions(auth, tokens)).sessions) == 1
        assert await api.outcome(api.me(auth, old)) == "INVALID_CREDENTIALS"
        assert await api.outcome(api.refresh(auth, old.refresh_token)) == "INVALID_REFRESH_TOKEN"

        await api.login(auth, user.email)

        query = "SELECT count(*) FROM auth.sessions WHERE user_id = %s"
        assert connection.execute(query, [user.id]).fetchone() == (2,)


async def test_one_session_ends_another_of_the_same_account(auth: Auth) -> None:
    user = await api.register(auth)
    lost, kept = await api.login(auth, user.email), await api.login(auth, user.email)
    (lost_id,) = [s.id for s in (await sessions(auth, kept)).sessions if not s.is_current]

    await revoke(auth, kept, lost_id)

    assert await api.outcome(api.me(auth, lost)) == "INVALID_CREDENTIALS"
    assert await api.outcome(api.refresh(auth, lost.refresh_token)) == "INVALID_REFRESH_TOKEN"
    assert await api.outcome(api.me(auth, kept)) == "OK"
    assert await api.outcome(revoke(auth, kept, lost_id)) == "SESSION_NOT_FOUND"


async def test_a_session_of_someone_else_is_not_there(auth: Auth) -> None:
    owner, stranger = await api.new_session(auth), await api.new_session(auth)
    (session,) = (await sessions(auth, owner)).sessions

    assert await api.outcome(revoke(auth, stranger, session.id)) == "SESSION_NOT_FOUND"
    assert await api.outcome(api.me(auth, owner)) == "OK"


async def test_a_changed_password_ends_all_other_sessions(auth: Auth) -> None:
    user = await api.register(auth)
    other, own = await api.login(auth, user.email), await api.login(auth, user.email)

    await change_password(auth, own, api.PASSWORD, "another password")

    assert [
        await api.outcome(api.me(auth, own)),
        await api.outcome(api.refresh(auth, own.refresh_token)),
        await api.outcome(api.me(auth, other)),
        await api.outcome(api.refresh(auth, other.refresh_token)),
        await api.outcome(api.login(auth, user.email)),
        await api.outcome(api.login(auth, user.email, "another password")),
    ] == ["OK", "OK", "INVALID_CREDENTIALS", "INVALID_REFRESH_TOKEN", "WRONG_PASSWORD", "OK"]


async def test_a_password_is_changed_by_who_knows_it(auth: Auth) -> None:
    user = await api.register(auth)
    tokens = await api.login(auth, user.email)

    wrong = change_password(auth, tokens, "wrong", "another password")

    assert await api.outcome(wrong) == "WRONG_PASSWORD"
    assert await api.outcome(api.login(auth, user.email)) == "OK"
