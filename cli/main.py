"""The `khesht` command line."""

import asyncio
import contextlib
import json
import os
import platform
import sys
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.settings import LocalSettings
from mesh.local import state
from mesh.local.errors import LocalError
from mesh.local.home import find_home

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
prices = typer.Typer(help="Prices in the models file.", no_args_is_help=True)
app.add_typer(prices, name="prices")

_WRONG = 2


def main() -> None:
    """Runs the command line; what a user can mend ends with one line and status 2."""
    try:
        app()
    except LocalError as wrong:
        _fail(str(wrong))


def _print_version(wanted: bool) -> None:
    if wanted:
        _say(f"khesht {version('khesht-mesh')} on Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def khesht(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """An AI chat backend: a mesh of gRPC services behind a real Envoy."""


@app.command()
def up() -> None:
    """Start the whole mesh on this machine, in the foreground, until Ctrl-C."""
    from cli.up import up as run

    _note_typos()
    asyncio.run(run(LocalSettings.read(), _say))


@app.command()
def down() -> None:
    """Stop the mesh that runs in KHESHT_HOME."""
    home = find_home(LocalSettings.read().home)
    stopped = state.down(home, timeout=60.0)
    _say("stopped" if stopped else f"no mesh runs in {home.root}")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show each process: name, pid, address, and whether it is healthy. Fails if one is not."""
    home = find_home(LocalSettings.read().home)
    mesh = state.status(home)
    processes = mesh.processes if mesh else ()
    if as_json:
        rows = [
            {"name": p.name, "pid": p.pid, "address": p.address, "healthy": p.healthy}
            for p in processes
        ]
        _say(json.dumps(rows, indent=2))
    elif mesh is None:
        _say(f"no mesh runs in {home.root}")
    if mesh is not None and not as_json:
        _note_what_is_odd()
    for p in processes if not as_json else ():
        health = "healthy" if p.healthy else "not healthy"
        _say(f"{p.name:10} {p.pid or '-':>8}  {p.address:22} {health}")
    if mesh is None or not all(p.healthy for p in processes):
        sys.exit(1)


@app.command("check-config")
def check_config() -> None:
    """Check all settings without starting anything."""
    from cli.check import check

    _note_typos()
    for warning in check():
        _say(f"note: {warning}")
    _say("the settings are good")


@app.command()
def migrate() -> None:
    """Bring every service's schema in DATABASE_URL up to date."""
    from cli.migrate import migrate as run

    for line in run(LocalSettings.read()):
        _say(line)


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="Where a folder for each process is made.")],
) -> None:
    """Write what each process in containers may know: certificates, secrets, Envoy's file."""
    from cli.prepare import prepare as run

    run(LocalSettings.read(), folder)
    _say(f"prepared {folder}")


@app.command()
def audit() -> None:
    """Check that the ledger adds up, and print what does not. Fails if anything does not."""
    from cli.audit import audit as run
    from cli.database import administrator

    wrong = 0
    _note_what_is_odd()
    for check, broken in run(administrator(LocalSettings.read())):
        wrong += len(broken)
        _say(f"{'WRONG' if broken else 'true '}  {check.promise}")
        for line in broken:
            _say(f"       {line}")
    if wrong:
        sys.exit(1)


@app.command()
def adjust(
    generation_id: Annotated[str, typer.Argument(help="UUID of the generation.")],
    usd: Annotated[str, typer.Option(help="US dollars to add; negative gives back.")],
    note: Annotated[str, typer.Option(help="Why.")],
    seq: Annotated[int, typer.Option(help="Number of this adjustment of the generation.")] = 1,
) -> None:
    """Correct what a generation cost; its record stays, and the balances follow."""
    from cli.adjust import adjust as run

    try:
        added = Decimal(usd)
    except InvalidOperation:
        _fail(f"{usd!r} is no sum of dollars")
    if not added.is_finite() or abs(added) > 1_000_000:
        _fail("an adjustment is at most a million dollars")
    asyncio.run(run(LocalSettings.read(), generation_id, seq, added, note))
    _say("adjusted")


@prices.command("import")
def import_prices(
    file: Annotated[Path, typer.Argument(help="TOML as the models file, or LiteLLM's JSON.")],
    models: Annotated[
        Path | None, typer.Option(help="The models file; the one in use, when not said.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
) -> None:
    """Take the prices of models from a list, and show what changes.

    Processes that run go on with the prices that they started with.
    """
    from cli import prices as run

    for line in run.import_prices(LocalSettings.read(), file, models, dry_run=dry_run):
        _say(line)


@app.command()
def chat(
    model: Annotated[str, typer.Option(help="Id or alias of the model.")] = "",
    address: Annotated[str, typer.Option(help="host:port of native gRPC.")] = "",
    username: Annotated[str, typer.Option(help="Username or email.")] = "",
    tls: Annotated[bool, typer.Option(help="Speak TLS.")] = False,
) -> None:
    """Log in and talk to a model over gRPC. Reads KHESHT_PASSWORD where it is set.

    Fails if a reply did.
    """
    from cli.chat import check_model, talk

    if not address:
        settings = LocalSettings.read()
        if model:
            check_model(model, settings.environment)
        address = f"{settings.edge_host}:{settings.grpc_port}"
    password = os.environ.get("KHESHT_PASSWORD", "")
    try:
        whole = asyncio.run(talk(address, username, password, model, tls=tls))
    except KeyboardInterrupt:
        _say("")
    else:
        sys.exit(0 if whole else 1)


def _note_what_is_odd() -> None:
    """Says what is right in the books and still worth a look, if they can be read."""
    from cli.audit import NOTICES, audit
    from cli.database import administrator

    with contextlib.suppress(LocalError):
        for notice, rows in audit(administrator(LocalSettings.read()), NOTICES):
            for line in (f"note   {notice.promise}", *(f"       {row}" for row in rows)):
                if rows:
                    _say(line)


def _note_typos() -> None:
    from cli.typos import notes

    for note in notes():
        _say(note)


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    sys.exit(_WRONG)


if __name__ == "__main__":
    main()
