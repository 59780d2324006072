"""A configuration as it was read and checked, ready to be taken into force; and what in it cannot change meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Config, ConfigProblem, Finding, InvalidConfigError, Source
from gateway.config.duties import Role, roles_to_start
from gateway.config.lines import KeyPath, format_path
from gateway.config.load import PARTS
from gateway.config.named import State, watched
from gateway.config.problems import shown
from gateway.errors import ConfigError, GatewayError

_DRAIN = "the old configuration stays in force: let all be delivered, then restart (operations.md, Durability)"
_RESTART = "the old configuration stays in force: restart the gateway to change this"


@dataclass(frozen=True)
class Reading:
    """What was read.

    state: of the files, as they were before anything in them was used.
    database_url: resolved, so that another reading can be compared with it; empty where this role may not read it.
    """

    source: Source
    config: Config
    state: State
    database_url: str

    @classmethod
    def of(cls, source: Source | Path) -> Reading:
        """Read the file, unless it was read already.

        Raises
        ------
        ConfigError
            It cannot be used.
        """
        own = own_files(source.file if isinstance(source, Source) else source)
        before = watched(None, own)
        read = source if isinstance(source, Source) else Source.read(source)
        config = read.parse()
        return cls(read, config, {**watched(config, own), **before}, _resolved(config))

    def look(self) -> State:
        """The same files as they are now."""
        return watched(self.config, own_files(self.source.file))

    def refuse(self, code: str, problems: Iterable[ConfigProblem]) -> None:
        """Raise when there are problems.

        Raises
        ------
        InvalidConfigError
            With this code.
        """
        if found := list(problems):
            raise InvalidConfigError(code, self.source.file, found)

    def problem(self, path: KeyPath, message: str, hint: str = "") -> ConfigProblem:
        """A problem at `path`, with its place in the texts."""
        file, line = self.source.places.place(path) or (self.source.file, None)
        return ConfigProblem(format_path(path), line, message, hint, shown(file, self.source.file))

    def problem_of(self, finding: Finding) -> ConfigProblem:
        """A finding, with its place in the texts."""
        return self.problem(finding.path, finding.message, finding.hint)

    def check_follows(self, old: Reading, role: Role = "all") -> None:
        """Refuse what cannot change without a restart.

        Raises
        ------
        InvalidConfigError
            Code ``needs-restart``.
        """
        new, problems = self.config, []
        if new.site.state != old.config.site.state:
            problems.append(self.problem(("site", "state"), "the state folder cannot change while roles run", _RESTART))
        if self.database_url and self.database_url != old.database_url:
            problems.append(self.problem(("database", "url"), "the database cannot change while roles run", _RESTART))
        if new.durability != old.config.durability:
            problems.append(self.problem(("durability",), "durability cannot change while roles run", _DRAIN))
        elif new.durability == "cluster" and new.store and old.config.store and new.store.url != old.config.store.url:
            problems.append(self.problem(("store", "url"), "what is received waits in the store of now", _DRAIN))
        if new.codecs != old.config.codecs:
            problems.append(self.problem(("codecs",), "the limits of codecs cannot change while roles run", _RESTART))
        for several in ("ingress", "worker"):
            counts = (getattr(config, several).processes for config in (new, old.config))
            if len({*counts}) > 1 and role in ("all", several):
                what = "the number of processes cannot change while they run"
                problems.append(self.problem((several, "processes"), what, _RESTART))
        before, now = set(roles_to_start(old.config)), set(roles_to_start(new))
        for one in sorted(before ^ now):
            if role in ("all", one):
                what = "there would be nothing for it to do" if one in before else "it does not run"
                table = "routes" if one == "ingress" else one
                problems.append(self.problem((table,), f"role {one}: {what}", _RESTART))
        self.refuse("needs-restart", problems)


def problems_of(error: GatewayError) -> list[ConfigProblem]:
    """What is wrong, one by one, of any error that keeps a configuration from being used."""
    if isinstance(error, InvalidConfigError):
        return list(error.problems)
    return [ConfigProblem("", None, error.message, error.hint)]


def _resolved(config: Config) -> str:
    try:
        return config.database_url
    except ConfigError:
        return ""


def own_files(file: Path) -> tuple[Path, Path]:
    """The configuration file, and its folder of parts."""
    return file, file.parent / PARTS
