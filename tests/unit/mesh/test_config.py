"""Settings are read whole, or refused by name."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from mesh.config import ConfigError, ServiceSettings

CANARY = "canary-in-a-value"
GOOD = {
    "LISTEN": "127.0.0.1:0",
    "TLS_CERT_FILE": "cert",
    "TLS_KEY_FILE": "key",
    "TLS_CA_FILE": "ca",
    "AUTH_ADDRESS": "127.0.0.1:1",
    "KEYS_ADDRESS": "keys:1,keys:2",
    "DATABASE_URL": "postgresql://user:password@host/name",
    "SECRET_KEY": "s" * 32,
}


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        ServiceSettings.load(environment)
    return str(refused.value)


def test_good_settings_are_read():
    config = ServiceSettings.load({**GOOD, "LAME_DUCK": "1.5", "APP_ENV": "production"})
    assert (config.listen, config.lame_duck, config.production) == ("127.0.0.1:0", 1.5, True)
    assert config.tls_ca_file == Path("ca")
    assert config.secret_key.get_secret_value() == "s" * 32
    assert not ServiceSettings.load(GOOD).production


@pytest.mark.parametrize("variable", GOOD)
@pytest.mark.parametrize("given", [None, ""], ids=["absent", "empty"])
def test_each_missing_setting_is_named(variable: str, given: str | None):
    environment = {name: value for name, value in GOOD.items() if name != variable}
    if given is not None:
        environment[variable] = given
    assert refusal(environment) == f"{variable}: Field required"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LISTEN", CANARY),
        ("LISTEN", f"{CANARY}:123456"),
        ("LISTEN", f"{CANARY}:1,other:2"),
        ("LISTEN", f"{CANARY}:65536"),
        ("AUTH_ADDRESS", CANARY),
        ("AUTH_ADDRESS", f"{CANARY}:65536"),
        ("KEYS_ADDRESS", f"keys:65535,{CANARY}:65536"),
        ("DATABASE_URL", CANARY),
        ("DATABASE_URL", f"mysql://user:{CANARY}@host/name"),
        ("DATABASE_URL", f"postgresql://user:{CANARY}@host:port/name"),
        ("DATABASE_URL", f"postgresql://user:{CANARY}@[::1/name"),
        ("KEYS_ADDRESS", f"{CANARY}:1,"),
        ("KEYS_ADDRESS", f"{CANARY}:1, other:2"),
        ("SECRET_KEY", CANARY),
        ("LAME_DUCK", CANARY),
        ("LAME_DUCK", "-1"),
        ("LAME_DUCK", "61"),
        ("LAME_DUCK", "nan"),
        ("APP_ENV", CANARY),
        ("LOG_LEVEL", CANARY),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(variable: str, value: str):
    told = refusal({**GOOD, variable: value})
    assert told.startswith(f"{variable}: ")
    assert "\n" not in told
    assert CANARY not in told


def test_all_that_is_wrong_is_told_at_once():
    told = refusal({**GOOD, "LISTEN": "x", "SECRET_KEY": "x", "LAME_DUCK": "x"})
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "LISTEN",
        "SECRET_KEY",
        "LAME_DUCK",
    ]


def test_a_setting_may_be_in_a_file(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("from a file, which is long enough\n")
    environment = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    config = ServiceSettings.load({**environment, "SECRET_KEY_FILE": str(file)})
    assert config.secret_key.get_secret_value() == "from a file, which is long enough"
    both = ServiceSettings.load({**GOOD, "SECRET_KEY_FILE": str(file)})
    assert both.secret_key.get_secret_value() == GOOD["SECRET_KEY"]


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path):
    environment = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    missing = str(tmp_path / "missing")
    told = refusal({**environment, "SECRET_KEY_FILE": missing})
    assert told == f"SECRET_KEY_FILE: can't read {missing}: No such file or directory"
    assert "SECRET_KEY_FILE" in refusal({**environment, "SECRET_KEY_FILE": str(tmp_path)})


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe" * 32)
    environment = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    assert "SECRET_KEY_FILE" in refusal({**environment, "SECRET_KEY_FILE": str(file)})


def test_secrets_are_not_shown_by_settings():
    shown = repr(ServiceSettings.load(GOOD)) + str(ServiceSettings.load(GOOD))
    assert "password" not in shown
    assert "ssss" not in shown


def test_settings_do_not_change():
    config = ServiceSettings.load(GOOD)
    with pytest.raises(ValidationError):
        config.listen = "elsewhere:1"  # type: ignore[misc]  # what is tried


def test_levels_are_those_of_logging():
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        assert ServiceSettings.load({**GOOD, "LOG_LEVEL": level}).log_level == level
        assert isinstance(getattr(logging, level), int)
