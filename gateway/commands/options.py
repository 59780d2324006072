"""The options that several commands share, and how they become a `Config`."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.output import say
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config import Config

USUAL_PLACES = (Path("gateway.toml"), Path("/etc/miad-gateway/gateway.toml"))

_CONFIG_HELP = f"The configuration file; without it, the first that is there: {', '.join(map(str, USUAL_PLACES))}."
_LOCAL_HELP = f"{_CONFIG_HELP} Where there is none: keys and vault of this user, under the state folder."


def find_config() -> Path:
    """The configuration of this machine, where no option and no variable names one.

    Raises
    ------
    ConfigError
        ``config-missing``: it lies in none of the usual places.
    """
    if (place := find_local_config()) is not None:
        return place
    message = f"no configuration is named, and there is no {' and no '.join(map(str, USUAL_PLACES))}"
    raise ConfigError("config-missing", message, "give --config or MIAD_GATEWAY_CONFIG; `miad-gateway init` makes one")


def find_local_config() -> Path | None:
    """The configuration of this machine; None where there is none, and this user's own keys and vault serve.

    One that this user may not look at is one all the same: reading it tells so, and no other vault takes its place.
    """
    for place in USUAL_PLACES:
        try:
            if stat.S_ISREG(place.stat().st_mode):
                return place
        except PermissionError:
            return place
        except OSError:
            continue
    return None


ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="MIAD_GATEWAY_CONFIG",
        readable=False,  # not looked at here: reading it says whose it is
        help=_CONFIG_HELP,
        default_factory=find_config,
        show_default=False,
    ),
]
LocalConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="MIAD_GATEWAY_CONFIG",
        readable=False,  # not looked at here: reading it says whose it is
        help=_LOCAL_HELP,
        default_factory=find_local_config,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over output files that are there already.")]


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = (), *, overwrite: bool = False) -> None:
    """Look before the work begins whether its files can be written without taking another one's place.

    Parameters
    ----------
    outputs
        Option to the file that it names; None where it was not given.
    inputs
        Files that are read, none of which may be written.

    Raises
    ------
    ConfigError
        "same-file": two options, or an option and an input, name one file. "output-exists" without `overwrite`.
    """
    taken = {path.resolve(): "an input" for path in inputs}
    for option, path in outputs.items():
        if path is None:
            continue
        other = taken.setdefault(path.resolve(), option)
        if other != option:
            raise ConfigError("same-file", f"{option} and {other} name one file, {path}", f"choose another {option}")
        if path.exists() and not overwrite:
            raise ConfigError("output-exists", f"{path} is there already", f"choose another {option}, or --overwrite")


def read_config(path: Path | None) -> Config:
    """The configuration at `path`; for None the local default, whose keys are made on first use.

    Raises
    ------
    ConfigError
        The file, or the local state folder, cannot be used.
    """
    from gateway.config import load_config

    return load_config(path) if path is not None else _local_config()


def _local_config() -> Config:
    from gateway.config import default_config, default_state_folder

    state = default_state_folder()
    try:
        if not (state / "keys").exists():
            _make_local_keys(state)
    except OSError as error:
        message = f"cannot make the local state folder {state}: {error.strerror}"
        raise ConfigError("state-folder", message, "set XDG_STATE_HOME, or give --config") from None
    return default_config(state)


def _make_local_keys(state: Path) -> None:
    from gateway.commands.keys import tell_of_keys
    from gateway.keys.generate import make_keys

    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        make_keys(state / "keys")
    except OSError:
        if not (state / "keys").exists():  # else another command was the first at the same moment: its keys serve
            raise
    else:
        tell_of_keys(state / "keys", state / "audit" / "operator.jsonl")
        say(f"made new keys in {state / 'keys'}: without them no original can be restored, so back them up")


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def read_span(text: str) -> float:
    """A span of time as people write it, in seconds: ``90s``, ``30m``, ``2h``, ``3d``.

    Raises
    ------
    ConfigError
        ``bad-span``.
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and unit in _UNITS_S):
        raise ConfigError("bad-span", f"{text!r} is no span of time", "as 30m, 2h or 3d")
    return float(number) * _UNITS_S[unit]
