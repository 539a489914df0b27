"""What each service is told at start, and what it is not."""

from pathlib import Path

import pytest

from cli import topology
from mesh.local.certificates import Identity

NOWHERE = Identity(Path(), Path(), Path())
ADDRESSES = dict.fromkeys(topology.SERVICES, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("variable", "reader"),
    [
        ("OPENAI_API_KEY", "chat"),
        ("HF_TOKEN_FILE", "chat"),
        ("REDIS_URL", "keys"),
        ("REDIS_URL_FILE", "keys"),
    ],
)
def test_a_secret_of_one_service_is_told_to_no_other(variable: str, reader: str):
    told = {
        service: topology.environment(
            service, ADDRESSES, NOWHERE, "postgresql://x@h:1/d", "s" * 32, {variable: "a secret"}
        )
        for service in topology.SERVICES
    }

    assert [name for name, each in told.items() if "a secret" in each.values()] == [reader]
