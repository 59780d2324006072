"""The surrogate packs of a command: the packaged ones, or a site's own, and which networks of them were used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.output import say

if TYPE_CHECKING:
    from gateway.mark.surrogates.packs import Surrogate, SurrogatePack

OwnPacks = Annotated[
    list[Path] | None,
    typer.Option(
        "--surrogates",
        metavar="PACK.toml",
        exists=True,
        dir_okay=False,
        help="A site's own surrogate pack, as `surrogates train` makes one, instead of the packaged networks; may be "
        "repeated.",
    ),
]


def read_own_packs(descriptions: Sequence[Path]) -> tuple[SurrogatePack, ...]:
    """The packs of these descriptions, each named after its folder; weights are not read yet.

    Raises
    ------
    ConfigError
        ``pack-missing``, ``bad-pack``.
    """
    from gateway.mark.surrogates.foreign import read_pack

    packs: list[SurrogatePack] = []
    for number, path in enumerate(dict.fromkeys(one.resolve() for one in descriptions), start=1):
        name = re.sub(r"[^a-z0-9_-]+", "-", path.parent.name.lower()).strip("-_")[:24] or "pack"
        taken = {pack.name for pack in packs}
        if name in taken:
            name = next(new for more in count(number) if (new := f"{name}-{more}") not in taken)
        packs.append(read_pack(path, name))
    return tuple(packs)


def tell_networks(members: Iterable[Surrogate], own: Sequence[SurrogatePack]) -> list[str]:
    """Say which networks a mark was made against, and whose they are; gives their names."""
    names = [member.name for member in members]
    whose = "the site's own pack" if own else "the packaged networks"
    if names:
        say(f"made against {whose}: {', '.join(names)}")
    elif own:
        say("no network was asked with these settings: --surrogates had no effect")
    return names
