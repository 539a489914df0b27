"""A role and a schema for each service, in any PostgreSQL; no role sees another's schema."""

import contextlib
from collections.abc import Iterator, Sequence

import psycopg
from psycopg import conninfo, sql

from mesh.local.errors import LocalError
from mesh.local.postgres import role, role_password

_LOCK = 0x6B686573  # "khes"; two meshes that start at once take turns


def create_database(admin: str) -> None:
    """Makes the database that `admin` names, if the embedded server does not have it yet."""
    name = conninfo.conninfo_to_dict(admin)["dbname"]
    with _told(), psycopg.connect(admin, dbname="postgres", autocommit=True) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [name]
        ).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(name))))


def provision(admin: str, services: Sequence[str], secret: str) -> None:
    """Gives each service a role and the schema of its name, in the database of the URL `admin`.

    May be repeated; a changed secret changes the roles' passwords. `admin` must be allowed to
    create roles and schemas. Raises LocalError, with the server's reason, if it is not reached
    or refuses, or if a schema is someone else's.
    """
    check_url(admin)
    with _told(), psycopg.connect(admin, connect_timeout=5) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for service in services:
            _role(connection, service, secret)
            _schema(connection, service)


def check_url(admin: str) -> None:
    """Raises LocalError unless `admin` can be read: the driver would quote it, and so the password."""
    try:
        conninfo.conninfo_to_dict(admin)
        readable = admin.startswith(("postgresql://", "postgres://"))
    except psycopg.Error:
        readable = False
    if not readable:
        raise LocalError("DATABASE_URL is not of the form postgresql://user:password@host/name")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise LocalError(f"the database cannot be prepared: {str(error).strip()}") from error


def _role(connection: psycopg.Connection, service: str, secret: str) -> None:
    name = role(service)
    # Hashed here, so that no log of the server has the password.
    hashed = connection.pgconn.encrypt_password(
        role_password(service, secret).encode(), name.encode(), b"scram-sha-256"
    ).decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    statements = [] if known else ["CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"]
    statements += [
        "ALTER ROLE {role} PASSWORD {hashed}",
        "ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema}",
        "GRANT CONNECT ON DATABASE {database} TO {role}",
    ]
    for statement in statements:
        connection.execute(
            sql.SQL(statement).format(
                role=sql.Identifier(name),
                hashed=sql.Literal(hashed),
                database=sql.Identifier(connection.info.dbname),
                schema=sql.Identifier(service),
            )
        )


def _schema(connection: psycopg.Connection, service: str) -> None:
    owner = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", [service]
    ).fetchone()
    if owner is None:
        # Whoever is no superuser must be a member of a role to give it a schema.
        for statement in (
            "GRANT {role} TO CURRENT_USER",
            "CREATE SCHEMA {schema} AUTHORIZATION {role}",
            "REVOKE {role} FROM CURRENT_USER",
        ):
            connection.execute(
                sql.SQL(statement).format(
                    role=sql.Identifier(role(service)), schema=sql.Identifier(service)
                )
            )
    elif owner[0] != role(service):
        raise LocalError(
            f"the database has a schema {service} already, which belongs to {owner[0]}"
        )
