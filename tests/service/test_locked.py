"""deploy/requirements.lock: all that a release needs, as the constraints pin it, with a hash for every file."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.units import REPOSITORY

LOCK = (REPOSITORY / "deploy" / "requirements.lock").read_text("utf-8")
ENTRIES = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\n((?:    --hash=sha256:[0-9a-f]{64}[^\n]*\n?)+)", LOCK, re.M)
CONSTRAINTS = dict(
    line.split("==") for line in (REPOSITORY / "deploy" / "constraints.txt").read_text().splitlines() if "==" in line
)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
AGAIN = "pyproject.toml or constraints.txt changed: make deploy/requirements.lock anew, by the command at its head"


def test_the_lock_names_all_that_is_needed_as_it_is_pinned() -> None:
    locked = {canonicalize_name(name): version for name, version, _ in ENTRIES}
    assert len(ENTRIES) == len(re.findall(r"^\w", LOCK, re.M)), "an entry without a hash"
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["postgresql"], *extras["s3"]]
    for requirement in map(Requirement, wanted):
        if requirement.name != "torch":  # the site chooses its build
            assert requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "")), AGAIN
    pinned = {canonicalize_name(name): version for name, version in CONSTRAINTS.items()}
    assert {name: version for name, version in locked.items() if pinned.get(name, version) != version} == {}, AGAIN


def test_version_and_changelog_agree() -> None:
    from gateway import __version__

    assert PROJECT["version"] == __version__
    first = re.search(r"^## (\S+)", (REPOSITORY / "deploy" / "docs" / "changelog.md").read_text("utf-8"), re.M)[1]
    assert first in (__version__, "Unreleased")
