"""What `khesht` reads from the environment and from files."""

from pathlib import Path

import pytest

from cli import edge
from cli.settings import LocalSettings
from mesh.local.errors import LocalError


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing set but what a test sets."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SECRET_KEY", "DATABASE_URL", "CORS_ORIGINS", "GATEWAY_PORT", "DB_HOST"):
        monkeypatch.delenv(variable, raising=False)


def test_a_secret_may_be_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    assert LocalSettings.read().secret_key == "from a file"


def test_a_file_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(LocalError, match=r"DATABASE_URL_FILE.*none"):
        LocalSettings.read()


@pytest.mark.parametrize(
    ("variable", "value", "origins"),
    [("HOME", "/", 1), ("CORS_ORIGINS", "", 0), ("CORS_ORIGINS", "https://a, https://b", 2)],
    ids=["any", "none", "two"],
)
def test_origins_are_any_unless_they_are_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, origins: int
):
    monkeypatch.setenv(variable, value)
    assert len(edge._origins(LocalSettings.read().cors_origins)) == origins


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / ".env").write_text("GATEWAY_PORT=1\nSECRET_KEY=written\n")
    monkeypatch.setenv("GATEWAY_PORT", "2")
    settings = LocalSettings.read()
    assert (settings.gateway_port, settings.secret_key) == (2, "written")


def test_a_database_in_parts_is_put_together(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"HOST": "db", "USER": "u", "PASSWORD": "p@:/w", "NAME": "n"}.items():
        monkeypatch.setenv(f"DB_{name}", value)
    assert LocalSettings.read().database_url == "postgresql://u:p%40%3A%2Fw@db:5432/n"


def test_each_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch):
    given = {"GATEWAY_PORT": "80o0", "WORKERS": "-1", "EDGE_ADDRESS": "x", "DB_HOST": "db"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LocalError) as refused:
        LocalSettings.read()
    assert str(refused.value).splitlines() == [
        "GATEWAY_PORT is '80o0'; a port is a number from 1 to 65535",
        "EDGE_ADDRESS is 'x'; it is an IPv4 address",
        "WORKERS is '-1'; it is a number from 0 to 64",
        "DB_USER is needed beside DB_HOST",
        "DB_PASSWORD is needed beside DB_HOST",
        "DB_NAME is needed beside DB_HOST",
    ]


def test_two_ports_that_are_one_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_PORT", "8443")
    with pytest.raises(LocalError, match="GATEWAY_PORT and GRPC_PORT are both 8443"):
        LocalSettings.read()
