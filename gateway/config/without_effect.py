"""What is written in a configuration and never has an effect, because something else in it is in the way."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.duties import Role
from gateway.config.finding import Finding
from gateway.config.lines import KeyPath
from gateway.config.models import Config
from gateway.config.rules import Rule


def findings_without_effect(config: Config, role: Role) -> Iterator[Finding]:
    """Rules that are never reached, pauses that are never taken, copies that outlive their originals: warnings."""
    if role not in ("all", "worker"):
        return
    for index, route in enumerate(config.routes):
        for position, rule in enumerate(route.rules):
            first = next((place for place in range(position) if _takes_all_of(route.rules[place], rule)), None)
            if first is not None:
                message = f"is never reached: rule {first + 1} of route {route.name} takes all that it is for"
                hint = "the first rule that fits decides: put the narrower one before it, or remove this one"
                yield Finding("warning", ("routes", index, "rules", position), message, hint)
    for index, destination in enumerate(config.destinations):
        here: KeyPath = ("destinations", index)
        yield from _pauses((*here, "retry_longest_s"), destination.retry_first_s, destination.retry_longest_s)
        for position, retry in enumerate(destination.retries):
            if retry.first_s is not None and retry.longest_s is not None:
                yield from _pauses((*here, "retries", position, "longest_s"), retry.first_s, retry.longest_s)
    kept = config.retention
    if 0 < kept.vault_days < kept.derived_days:
        message = f"originals end after {kept.vault_days:g} days, marked copies after {kept.derived_days:g}"
        hint = "a copy that is sent again then has no original any more: give derived_days no more than vault_days"
        yield Finding("warning", ("retention", "derived_days"), message, hint)


def _takes_all_of(earlier: Rule, later: Rule) -> bool:
    """Whether whatever fits `later` fits `earlier`: all that the earlier one asks for is asked by the later one, too.

    Only what is alike word for word is seen; patterns are not compared.
    """
    for name in set(Rule.model_fields) - {"action", "time_zone"}:
        wanted, given = getattr(earlier, name), getattr(later, name)
        if name == "tags":  # all of them
            fits = set(wanted) <= set(given)
        elif isinstance(wanted, tuple):  # one of them
            fits = not wanted or (bool(given) and set(given) <= set(wanted))
        else:
            fits = wanted in ("", given)
        if not fits:
            return False
    return not earlier.when or earlier.time_zone == later.time_zone


def _pauses(path: KeyPath, first_s: float, longest_s: float) -> Iterator[Finding]:
    if longest_s < first_s:
        message = f"the longest pause, {longest_s:g} s, is under the first, {first_s:g} s: no pause is longer than it"
        yield Finding("warning", path, message, "give the longest pause at least the length of the first")
