"""`khesht migrate`: roles, schemas and tables of all services, in one database."""

from collections.abc import Iterator

from cli import topology
from cli.settings import LocalSettings
from mesh import migrations
from mesh.local import home, postgres, provision, state
from mesh.local.errors import LocalError


def migrate(settings: LocalSettings) -> Iterator[str]:
    """Migrates, and says what was done for each service. May be repeated.

    Raises LocalError when there is no database, or it refuses.
    """
    place = home.open_home(settings.home)
    secret = home.master_secret(place, settings.secret_key)
    admin = settings.database_url or _embedded(place, secret)
    provision.provision(admin, topology.SERVICES, secret)
    for service in topology.SERVICES:
        url = postgres.service_dsn(admin, service, secret)
        done = migrations.upgrade(service, topology.migrations(service), url)
        yield f"{service}: {', '.join(done) or 'up to date'}"


def _embedded(place: home.Home, secret: str) -> str:
    mesh = state.status(place)
    for process in mesh.processes if mesh else ():
        if process.name == "postgres":
            return postgres.admin_dsn(int(process.address.rsplit(":", 1)[1]), secret)
    raise LocalError("set DATABASE_URL; the embedded database is migrated by `khesht up`")
