"""`khesht prepare`: what each process of a mesh in containers may know, in a folder of its own."""

import shutil
from pathlib import Path

from cli import edge, topology
from cli.edge import Places
from cli.relief import ReliefFiles
from cli.settings import LocalSettings
from mesh.local import certificates, home
from mesh.local.certificates import Identity
from mesh.local.errors import LocalError
from mesh.local.files import write_private

PROCESSES = (*topology.SERVICES, topology.WORKER)
EDGE = "edge"
# As a container of Envoy has them: a file system of its own in memory, and output that is kept.
_ADMIN_SOCKET = Path("/tmp/envoy.sock")  # noqa: S108 - no other user is in there
_ACCESS_LOG = Path("/dev/stdout")


def prepare(settings: LocalSettings, folder: Path) -> None:
    """Writes the folders of all processes. May be repeated; certificates are kept while good.

    In `folder`/<process> are its certificate, and a file for each of its secrets, called as
    the setting; in `folder`/edge is all that Envoy reads; `folder`/authority is for nobody.
    Raises LocalError when a setting is missing.
    """
    if settings.secret_key is None:
        raise LocalError("SECRET_KEY is not set")
    if settings.database_url is None:
        raise LocalError("neither DATABASE_URL nor DB_HOST is set")
    secret = home.long_enough(settings.secret_key, "SECRET_KEY")
    addresses = _addresses(settings)
    authority = _room(folder, "authority")
    identities = certificates.issue(authority, (*PROCESSES, EDGE))
    for process in PROCESSES:
        own = _room(folder, process)
        _hand_out(identities[process], own)
        previous = settings.environment.get("SECRET_KEY_PREVIOUS")
        known = topology.secrets(process, settings.database_url, secret, previous)
        # A file for a secret that there is not, too: whoever reads it is told where it is.
        for variable, value in ({"SECRET_KEY_PREVIOUS": ""} | known).items():
            write_private(own / variable.lower(), value.encode())
    own = _room(folder, EDGE)
    identity = _hand_out(identities[EDGE], own)
    _copy_documents(own)
    # Nobody counts connections there: idle ones go after their usual time.
    relief = ReliefFiles(own / "pressure", own / "crowded.json")
    relief.clear()
    places = Places(own, _ADMIN_SOCKET, _ACCESS_LOG, relief)
    text = edge.rendered(places, settings, identity, addresses, settings.edge_connections)
    write_private(own / "envoy.yaml", text.encode())


def _addresses(settings: LocalSettings) -> dict[str, str]:
    """Where each service is, by the settings that services read themselves."""
    variables = {name: f"{name.upper()}_ADDRESS" for name in topology.SERVICES}
    for variable in variables.values():
        if variable not in settings.environment:
            raise LocalError(f"{variable} is not set")
    return {name: settings.environment[variable] for name, variable in variables.items()}


def _room(folder: Path, name: str) -> Path:
    room = folder.absolute() / name
    try:
        room.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{room} can't be made: {error.strerror}") from None
    return room


def _hand_out(identity: Identity, folder: Path) -> Identity:
    own = Identity(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    write_private(own.cert, identity.cert.read_bytes())
    write_private(own.key, identity.key.read_bytes())
    write_private(own.ca, identity.ca.read_bytes())
    return own


def _copy_documents(folder: Path) -> None:
    for document in edge.DOCUMENTS:
        source, copy = topology.ROOT / document, folder / document
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, dirs_exist_ok=True)
        else:
            shutil.copy(source, copy)
