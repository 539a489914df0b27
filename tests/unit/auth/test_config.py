"""The settings of auth."""

import pytest

from mesh.config import ConfigError
from services.auth.config import Config

GOOD = {
    "LISTEN": "127.0.0.1:0",
    "TLS_CERT_FILE": "cert",
    "TLS_KEY_FILE": "key",
    "TLS_CA_FILE": "ca",
    "AUTH_ADDRESS": "127.0.0.1:1",
    "KEYS_ADDRESS": "127.0.0.1:1",
    "DATABASE_URL": "postgresql://",
    "SECRET_KEY": "n" * 32,
}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCESS_TOKEN_SECONDS", "299"),
        ("ACCESS_TOKEN_SECONDS", "3601"),
        ("REFRESH_TOKEN_DAYS", "0"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "0"),
        ("LOGIN_FAILURES_PER_ADDRESS", "many"),
        ("LOGIN_FAILURES_OF_STRANGERS", "101"),
        ("REGISTRATIONS_PER_ADDRESS", "0"),
        ("SECRET_KEY_PREVIOUS", "short"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: ") as refused:
        Config.load({**GOOD, variable: value})

    assert "short" not in str(refused.value)


def test_secrets_come_with_the_one_to_work_with_first() -> None:
    both = Config.load({**GOOD, "SECRET_KEY_PREVIOUS": "o" * 32})

    assert (Config.load(GOOD).secrets, both.secrets) == (("n" * 32,), ("n" * 32, "o" * 32))
