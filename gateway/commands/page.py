"""`miad-gateway page`: who may log in to the status page, and the dashboard for Grafana."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_table, show_text
from gateway.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from gateway.config import Config

app = typer.Typer(help="The status page: its users, and the dashboard for Grafana.", no_args_is_help=True)
user_app = typer.Typer(help="Who may log in to the page.", no_args_is_help=True)
app.add_typer(user_app, name="user")


class UserRole(StrEnum):
    """What a person may do at the page."""

    VIEWER = "viewer"
    OPERATOR = "operator"


UserName = Annotated[str, typer.Argument(help="Lower-case letters, digits, '.', '-', '_'.", metavar="NAME")]


@user_app.command()
def add(
    name: UserName,
    config: ConfigFile,
    role: Annotated[UserRole, typer.Option(help="An operator may act; a viewer looks.")] = UserRole.VIEWER,
    password_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Its first line; else the password is asked for.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give a user that is there a new password.")] = False,
) -> None:
    """Let a person log in to the page. Takes effect at once; nothing is restarted."""
    from gateway.config.accounts import Account, check_name, read_accounts, write_accounts
    from gateway.web.passwords import hash_password

    settings, file = _users(config)
    accounts = read_accounts(file)
    if check_name(name) in accounts and not overwrite:
        raise ConfigError("user-exists", f"there is a user {name} already", "give --overwrite for a new password")
    password_hash = hash_password(_password(password_file))
    _tell(settings, "add", name, role.value)
    write_accounts(file, {**accounts, name: Account(name, role.value, password_hash)})
    say(f"{name} may {'act' if role is UserRole.OPERATOR else 'look'}; {file} must stay readable to page and worker")


@user_app.command()
def ls(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show who may log in."""
    from gateway.config.accounts import read_accounts

    _, file = _users(config)
    accounts = read_accounts(file).values()
    if as_json:
        for one in accounts:
            show_json({"name": one.name, "role": one.role})
    else:
        show_table(["USER", "ROLE"], [[one.name, one.role] for one in accounts])


@user_app.command()
def remove(name: UserName, config: ConfigFile) -> None:
    """Take a person's login away: open sessions end at the next click, and requests that wait are refused."""
    from gateway.config.accounts import read_accounts, write_accounts

    settings, file = _users(config)
    accounts = read_accounts(file)
    if name not in accounts:
        raise NotFoundError("no-such-user", f"there is no user {name}", "see `miad-gateway page user ls`")
    _tell(settings, "remove", name, accounts[name].role)
    write_accounts(file, {other: one for other, one in accounts.items() if other != name})
    say(f"{name} is no user any more")


@app.command()
def dashboard() -> None:
    """Write the Grafana dashboard (JSON) to standard output; import it there and choose the Prometheus data source."""
    from gateway.web.dashboard import dashboard as made

    show_text(json.dumps(made(), indent=1))


def _users(config: Path) -> tuple[Config, Path]:
    from gateway.config import load_config

    settings = load_config(config)
    if settings.page is None:
        raise ConfigError("no-page", f"{config} has no [page] table", "add one: see deploy/gateway.toml")
    return settings, settings.page.users


def _password(file: Path | None) -> str:
    if file is not None:
        return file.read_text("utf-8").partition("\n")[0]
    try:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    except typer.Abort:
        say("no password was given; without a terminal: --password-file")
        raise typer.Exit(ExitCode.USAGE) from None


def _tell(settings: Config, operation: str, name: str, role: str) -> None:
    """Before it is done: untold, nobody gets in."""
    from gateway import service
    from gateway.audit import AuditLog, audited, events

    audit = AuditLog(service.places(settings).audit("operator"))
    audited(audit, events.PAGE_USER_CHANGED, "success", operation=operation, user=name, role=role)
