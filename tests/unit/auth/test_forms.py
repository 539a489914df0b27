"""The form of a token request."""

import pytest

from mesh import errors
from services.auth import forms
from services.auth.forms import PasswordGrant, RefreshGrant

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        (FORM, b"username=ann&password=a%26b+c%C3%A9", PasswordGrant("ann", "a&b cé")),
        (
            f"{FORM.upper()}; charset=utf-8",
            b"grant_type=&username=a&password=b",
            PasswordGrant("a", "b"),
        ),
        (
            FORM,
            b"grant_type=password&username=ann@example.com&password=x&scope=&client_id=docs",
            PasswordGrant("ann@example.com", "x"),
        ),
        (FORM, b"grant_type=refresh_token&refresh_token=rt_x", RefreshGrant("rt_x")),
    ],
)
def test_a_form_asks_for_a_grant(
    content_type: str, data: bytes, expected: PasswordGrant | RefreshGrant
) -> None:
    assert forms.read(content_type, data) == expected


@pytest.mark.parametrize(
    ("content_type", "data", "field"),
    [
        ("", b"username=ann&password=x", "form"),
        ("application/json", b'{"username": "ann", "password": "x"}', "form"),
        (FORM, b"", "username"),
        (FORM, b"password=x", "username"),
        (FORM, b"username=ann", "password"),
        (FORM, b"username=ann&password=", "password"),
        (FORM, b"grant_type=refresh_token&username=ann&password=x", "refresh_token"),
        (FORM, b"grant_type=client_credentials", "grant_type"),
        (FORM, b"username=ann&username=bob&password=x", "username"),
        (FORM, b"username=ann&password=x&scope=a&scope=b", "form"),
        (FORM, b"username=%ff&password=x", "form"),
        (FORM, b"username=\xff&password=x", "form"),
        (FORM, b"&".join(b"f%d=x" % number for number in range(21)), "form"),
        (FORM, b"username=" + b"a" * 255 + b"&password=x", "username"),
        (FORM, b"username=ann&password=" + b"a" * 257, "password"),
        (FORM, b"grant_type=refresh_token&refresh_token=" + b"a" * 201, "refresh_token"),
    ],
)
def test_a_bad_form_names_the_field(content_type: str, data: bytes, field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        forms.read(content_type, data)

    assert (refused.value.reason, [each.field for each in refused.value.violations]) == (
        "INVALID_FORM",
        [field],
    )


def test_a_grant_does_not_show_its_secret() -> None:
    shown = repr(forms.read(FORM, b"username=ann&password=hunter22"))

    assert shown == "PasswordGrant(username='ann')"
