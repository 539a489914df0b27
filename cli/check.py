"""`khesht check-config`: every setting of every service, without starting one."""

import tempfile
from importlib import import_module
from pathlib import Path

from cli import edge, topology
from cli.settings import LocalSettings
from mesh.config import ConfigError
from mesh.local import certificates, envoy, home
from mesh.local.errors import LocalError


def check(settings: LocalSettings) -> None:
    """Returns when all settings are good. Raises LocalError that names each that is not."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        place = home.open_home(Path(scratch))
        secret = home.master_secret(place, settings.secret_key)
        identities = certificates.issue(place.certs, (*topology.SERVICES, "edge"))
        addresses = {name: "127.0.0.1:1" for name in topology.SERVICES}
        admin = settings.database_url or "postgresql://khesht@127.0.0.1:1/khesht"
        for name in topology.SERVICES:
            told = topology.environment(
                name, addresses, identities[name], admin, secret, settings.environment
            )
            try:
                config = import_module(f"services.{name}.config").Config.load(told)
                config.check()
            except ConfigError as error:
                wrong.append(f"{name}: {error}")
        envoy.validate(Path(edge.process(place, settings, identities["edge"], addresses).argv[2]))
    if wrong:
        raise LocalError("\n".join(wrong))
