"""An operator's requests to the running processes of a site."""

from __future__ import annotations

from typing import Any

from gateway.config import Config, Source
from gateway.errors import ConfigError, UnreachableError
from gateway.service.control import running
from gateway.service.link import Link
from gateway.service.supervisor import ANSWER_S


def processes(config: Config) -> list[tuple[str, Link]]:
    """Every running process of this site that takes requests (`gateway.service.control.running`).

    Raises
    ------
    UnreachableError
        ``not-running``: there is none.
    ConfigError
        ``not-allowed``: this user may not speak to one of them.
    """
    try:
        found = running(config)
    except PermissionError as error:
        message = f"this user may not speak to the running gateway: {error.strerror}"
        raise ConfigError("not-allowed", message, "run the command as the user of the role, or as root") from None
    if not found:
        message = f"no role of the site in {config.site.state} is running"
        raise UnreachableError("not-running", message, "start it: miad-gateway serve")
    return found


def reload(config: Config) -> list[dict[str, Any]]:
    """Let every process prepare, and swap when all could; the answers of all, or of those that could not.

    Raises
    ------
    UnreachableError, ConfigError
        As `processes`.
    """
    links = processes(config)
    try:
        prepared = _ask(links, {"do": "prepare", "by": "command"})
        refused = [answer for answer in prepared if not answer["ok"]]
        if not refused and len({answer["digest"] for answer in prepared}) > 1:
            problem = {"path": "", "line": None, "message": "the file changed while it was read", "suggestion": ""}
            refused = [{"ok": False, "role": "all", "code": "config-changed", "problems": [problem]}]
        if not refused:
            return _ask(links, {"do": "commit"})
        for _, link in links:
            link.send({"do": "drop"})
        return refused
    finally:
        for _, link in links:
            link.close()


def compare(config: Config, source: Source) -> dict[str, list[dict[str, Any]]]:
    """In what a configuration differs from that in force, for each process that runs by itself.

    The process itself compares: secrets of what it runs on do not leave it.

    Raises
    ------
    UnreachableError, ConfigError
        As `processes`; and when one does not answer.
    """
    links = processes(config)
    try:
        answers = _ask(links, {"do": "compare", "texts": source.as_texts()})
    finally:
        for _, link in links:
            link.close()
    for answer in answers:
        if not answer["ok"]:
            raise UnreachableError("not-running", f"role {answer['role']} did not answer", "see its log")
    return {f"the running {answer['role']}": answer["differences"] for answer in answers}


def _ask(links: list[tuple[str, Link]], message: dict[str, Any]) -> list[dict[str, Any]]:
    for _, link in links:
        link.send(message)
    return [link.receive(2 * ANSWER_S) or _silent(role) for role, link in links]


def _silent(role: str) -> dict[str, Any]:
    problem = {"path": "", "line": None, "message": f"role {role} did not answer", "suggestion": "see its log"}
    return {"ok": False, "role": role, "code": "role-not-ready", "problems": [problem]}
