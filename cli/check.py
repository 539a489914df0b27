"""`khesht check-config`: every setting of every service, without starting one."""

import os
import tempfile
from importlib import import_module
from pathlib import Path

from cli import edge, topology
from cli.settings import LocalSettings
from mesh.config import ConfigError
from mesh.local import certificates, envoy, home
from mesh.local.errors import LocalError


def check() -> list[str]:
    """What to look at, when all settings are good. Raises LocalError that names each that is not."""
    warnings: list[str] = []
    settings, wrong = LocalSettings.attempt(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        place = home.open_home(Path(scratch))
        secret = home.master_secret(place, None)
        try:
            secret = home.master_secret(place, settings.secret_key)
        except LocalError as error:
            wrong.append(str(error))
        identities = certificates.issue(place.certs, (*topology.SERVICES, "edge"))
        addresses = {name: "127.0.0.1:1" for name in topology.SERVICES}
        admin = settings.database_url or "postgresql://khesht@127.0.0.1:1/khesht"
        for name in topology.SERVICES:
            told = topology.environment(
                name, addresses, identities[name], admin, secret, settings.environment
            )
            try:
                config = import_module(f"services.{name}.config").Config.load(told)
                warnings += config.check()
            except ConfigError as error:
                wrong.extend(str(error).splitlines())
        try:
            relief = edge.relief(place, settings, print)
            process = edge.process(place, settings, identities["edge"], addresses, relief)
            envoy.validate(Path(process.argv[2]))
        except LocalError as error:
            wrong.append(str(error))
    if wrong:
        # What several services read is named once.
        raise LocalError("\n".join(dict.fromkeys(wrong)))
    return list(dict.fromkeys(warnings))
