"""`khesht migrate`: roles, schemas and tables of all services, in one database."""

from collections.abc import Iterator

from cli import database, topology
from cli.settings import LocalSettings
from mesh import migrations
from mesh.local import home, postgres, provision


def migrate(settings: LocalSettings) -> Iterator[str]:
    """Migrates, and says what was done for each service. May be repeated.

    Raises LocalError when there is no database, or it refuses.
    """
    secret = home.master_secret(home.open_home(settings.home), settings.secret_key)
    admin = database.administrator(settings)
    provision.provision(admin, topology.SERVICES, secret)
    for service in topology.SERVICES:
        url = postgres.service_dsn(admin, service, secret)
        done = migrations.upgrade(service, topology.migrations(service), url)
        yield f"{service}: {', '.join(done) or 'up to date'}"
