"""The database of an installation, as its administrator reaches it."""

from cli.settings import LocalSettings
from mesh.local import home, postgres, state
from mesh.local.errors import LocalError


def administrator(settings: LocalSettings) -> str:
    """The administrator's URL of DATABASE_URL, or of the embedded database that runs.

    Raises LocalError when there is neither.
    """
    if settings.database_url:
        return settings.database_url
    place = home.find_home(settings.home)
    mesh = state.status(place)
    for process in mesh.processes if mesh else ():
        if process.name == "postgres":
            secret = home.master_secret(place, settings.secret_key)
            return postgres.admin_dsn(int(process.address.rsplit(":", 1)[1]), secret)
    without = (
        f"the mesh in {place.root} runs no database" if mesh else f"no mesh runs in {place.root}"
    )
    raise LocalError(f"{without}, and DATABASE_URL is not set")
