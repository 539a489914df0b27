"""The settings of keys."""

import pytest

from mesh.config import ConfigError
from services.keys.config import Config

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
REDIS = {"REDIS_URL": "redis://:a-password@cache:6379/0"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("TOKEN_LIMIT_PER_MINUTE", "0"),
        ("SECRET_KEY_PREVIOUS", "short"),
        ("REDIS_URL", "http://cache"),
        ("KEYS_REPLICAS", "0"),
        ("KEYS_REPLICAS", "2"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        Config.load({**GOOD, variable: value})


def test_several_replicas_need_a_redis() -> None:
    assert Config.load({**GOOD, **REDIS, "KEYS_REPLICAS": "2"}).keys_replicas == 2
    with pytest.raises(ConfigError, match="more than 1 needs REDIS_URL: each replica would allow"):
        Config.load({**GOOD, "KEYS_REPLICAS": "2"})


def test_a_password_of_redis_is_not_shown() -> None:
    assert "a-password" not in repr(Config.load({**GOOD, **REDIS}))
