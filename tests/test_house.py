"""The walls of the house (architecture, rooms): imports point downward, rooms do not know what they must not know.

These tests read the source, so a wall holds for code that no other test runs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# A module may import from its own room and from rooms on lower floors.
FLOORS: dict[str, int] = {
    "gateway": -1,  # gateway/__init__.py: the version
    "gateway.errors": -1,  # the ground: everyone raises from it
    "gateway.config": 0,
    "gateway.log": 1,
    "gateway.tracing": 1,
    "gateway.bucket": 1,
    "gateway.database": 1,
    "gateway.audit": 1,
    "gateway.keys": 1,
    "gateway.identity": 1,
    "gateway.dicom": 1,
    "gateway.vault": 2,
    "gateway.mark": 2,
    "gateway.protect": 3,
    "gateway.restore": 3,
    "plugins": 3,
    "gateway.flow": 4,
    "gateway.network": 5,
    "gateway.web": 5,
    "gateway.preflight": 6,
    "gateway.service": 7,
    "gateway.explain": 8,
    "gateway.simulate": 8,
    "gateway.probing": 8,
    "gateway.files": 8,
    "gateway.training": 8,
    "gateway.demo": 9,
    "gateway.commands": 10,
    "gateway.cli": 11,
}

NETWORK_LIBRARIES = {"pynetdicom", "socket", "ssl", "socketserver"}
DICOM_LIBRARIES = {"pydicom", "highdicom", "gdcm", "pylibjpeg", "jpeg_ls", "imagecodecs"}
TENSOR_LIBRARIES = {"torch"}
DATABASE_LIBRARIES = {"sqlalchemy", "alembic"}
PIXEL_MODULES = {"gateway.dicom.pixels.stored_values", "gateway.dicom.copy.derive"}

# What a room must not know, below the floors: libraries, and modules of lower floors.
FORBIDDEN: dict[str, set[str]] = {
    "gateway.config": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES | {"cryptography"},
    "gateway.log": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES,
    "gateway.bucket": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES,
    "gateway.database": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES,
    "gateway.audit": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES,
    "gateway.keys": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES,
    "gateway.identity": NETWORK_LIBRARIES | DICOM_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES,
    "gateway.dicom": NETWORK_LIBRARIES | TENSOR_LIBRARIES | DATABASE_LIBRARIES | {"cryptography"},
    "gateway.vault": NETWORK_LIBRARIES | TENSOR_LIBRARIES | PIXEL_MODULES,
    "gateway.mark": NETWORK_LIBRARIES | DICOM_LIBRARIES | DATABASE_LIBRARIES
    | {"cryptography", "gateway.dicom", "gateway.keys", "gateway.database", "gateway.audit"},
    "gateway.protect": NETWORK_LIBRARIES | TENSOR_LIBRARIES,
    "gateway.restore": NETWORK_LIBRARIES | TENSOR_LIBRARIES | {"gateway.mark", "gateway.dicom.pixels.stored_values"},
    "gateway.flow": NETWORK_LIBRARIES | TENSOR_LIBRARIES | {"gateway.mark", "gateway.dicom.pixels"},
    "gateway.network": TENSOR_LIBRARIES
    | PIXEL_MODULES | {"numpy", "PIL", "gateway.mark", "gateway.keys"},
    "gateway.web": {"pynetdicom", "ssl", "socketserver", "cryptography", "gateway.keys", "gateway.vault"}
    | {"gateway.dicom", "gateway.mark", "gateway.protect", "gateway.restore"} | DICOM_LIBRARIES | TENSOR_LIBRARIES,
    "plugins": NETWORK_LIBRARIES | {"gateway.keys", "gateway.vault", "gateway.database", "gateway.dicom"},
}  # fmt: skip

# What a room reaches through others all the same, since it asks them for work and not for how it is done:
# room -> where it goes through -> what it reaches there, and why that is right. All other chains are faults.
REACHES: dict[str, dict[str, tuple[set[str], str]]] = {
    "gateway.protect": {"gateway.mark": (TENSOR_LIBRARIES, "arrays go in, marked arrays come out")},
    "gateway.flow": {
        "gateway.protect": (
            TENSOR_LIBRARIES | {"gateway.mark", "gateway.dicom.pixels", "gateway.dicom.pixels.stored_values"},
            "instances go in, marked and recoded instances come out",
        )
    },
    "gateway.restore": {
        "gateway.dicom.copy.carried_body": (
            {"gateway.dicom.pixels.stored_values"},
            "an original that its copy carries is rebuilt from the copy's pixels",
        )
    },
    "gateway.network": {
        "gateway.vault": ({"gateway.keys"}, "queries are answered from records whose signatures are checked there"),
        "gateway.dicom.encoding": ({"numpy"}, "where a slice lies is reckoned from its header"),
    },
}

# Promise 6: the words that open a sealed original, and the only modules that may say them.
OPENING_NAMES = {
    "OpeningKeys",
    "PayloadOpener",
    "X25519PrivateKey",
    "open_carried",
    "open_payload",
    "read_token",
    "restore_private_key",
    "unwrap_dek",
}
OPENING_MODULES = (
    "gateway.keys",
    "gateway.config",  # names the reference; resolves it for role restore
    "gateway.restore",
    "gateway.vault.carried",
    "gateway.vault.sealed",
    "gateway.vault.verify",
    "gateway.vault.backup",
    "gateway.service",
    "gateway.preflight",
)
REEXPORTS = {"gateway.vault"}  # gateway/vault/__init__.py names what opens for the restore room

MAX_LINES = 450


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its syntax tree, and the modules and names that it imports."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def room(self) -> str:
        return room_of(self.name)

    def imports(self) -> Iterator[tuple[str, int]]:
        """Dotted names that this imports, with their lines; of ``from a import b`` both ``a`` and ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = self.package.split(".")
                    base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
                yield base, node.lineno
                yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def room_of(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "plugins":
        return "plugins"
    return ".".join(parts[:2])


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for folder in ("gateway", "plugins"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            relative = path.relative_to(REPOSITORY).with_suffix("")
            parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
            found.append(Module(".".join(parts), path, ast.parse(path.read_text("utf-8"))))
    return tuple(found)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imported_rooms(module: Module) -> Iterator[tuple[str, int]]:
    """Rooms of this house that a module imports from; ``from gateway import flow`` is room ``gateway.flow``."""
    for name, line in module.imports():
        if name.split(".")[0] in ("gateway", "plugins") and room_of(name) in FLOORS:
            yield room_of(name), line


def test_every_room_has_a_floor() -> None:
    assert {module.room for module in modules()} - set(FLOORS) == set()


def test_imports_point_downward() -> None:
    upward = [
        f"{module.name} (floor {FLOORS[module.room]}), line {line}: {room} (floor {FLOORS[room]})"
        for module in modules()
        for room, line in imported_rooms(module)
        if room != module.room and FLOORS[room] >= FLOORS[module.room]
    ]
    assert upward == []


def test_a_room_does_not_know_what_it_must_not_know() -> None:
    known = [
        f"{module.name}, line {line}: {name}"
        for module in modules()
        for name, line in module.imports()
        if any(is_within(name, package) for package in FORBIDDEN.get(module.room, ()))
    ]
    assert known == []


def test_a_room_does_not_reach_it_through_others_either() -> None:
    """A chain of imports that ends at what its room must not know, shown from its beginning to its end."""
    chains = {
        f"{' > '.join(chain)} > {thing}"
        for room, things in FORBIDDEN.items()
        for thing in things
        if (chain := chain_to(room, thing)) is not None
    }
    assert chains == set(), "cut the chain, or move what is needed; where it is right, give the reason in REACHES"


def test_every_way_around_the_walls_is_used() -> None:
    """What is allowed and not needed any more goes out of the list."""
    unused = [
        f"{room} through {through}: {thing}"
        for room, ways in REACHES.items()
        for through, (things, reason) in ways.items()
        for thing in things
        if not reason or chain_to(room, thing, also=through) is None
    ]
    assert unused == []


def chain_to(room: str, thing: str, also: str = "") -> tuple[str, ...] | None:
    """The shortest chain of imports from a module of `room` to one that imports `thing`, as a module or name.

    Chains through what `REACHES` allows are not followed, but for those through `also`.
    """
    ways = REACHES.get(room, {})
    closed = [through for through, (things, _) in ways.items() if thing in things and through != also]
    waiting = [(module.name,) for module in modules() if module.room == room]
    seen = {chain[0] for chain in waiting}
    for chain in waiting:  # grows while it is gone through: the nearest come first
        if any(is_within(name, thing) for name in imported(chain[-1])):
            return chain
        for name in sorted(imported(chain[-1])):
            target = module_of(name)
            if target and target not in seen and not any(is_within(target, one) for one in closed):
                seen.add(target)
                waiting.append((*chain, target))
    return None


@cache
def imported(name: str) -> frozenset[str]:
    return frozenset(found for module in modules() if module.name == name for found, _ in module.imports())


@cache
def module_of(name: str) -> str:
    """The module of this house that an imported name belongs to; "" for what is not of it."""
    known = {module.name for module in modules()}
    while name and name not in known:
        name = name.rpartition(".")[0]
    return "" if name in ("gateway", "plugins") else name


def test_only_the_restore_side_can_open() -> None:
    said = [
        f"{module.name}, line {line}: {name}"
        for module in modules()
        if module.name not in REEXPORTS and not any(is_within(module.name, package) for package in OPENING_MODULES)
        for name, line in opening_words(module)
    ]
    assert said == []


def opening_words(module: Module) -> Iterator[tuple[str, int]]:
    for name, line in module.imports():
        if name.rpartition(".")[2] in OPENING_NAMES or name == "gateway.keys.hpke.open":
            yield name, line
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id in OPENING_NAMES:
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and (node.attr in OPENING_NAMES or is_hpke_open(node)):
            yield node.attr, node.lineno


def is_hpke_open(node: ast.Attribute) -> bool:
    return node.attr == "open" and isinstance(node.value, ast.Name) and node.value.id == "hpke"


def test_the_gateway_never_imports_a_plugin() -> None:
    """Plug-ins are found through entry points, so that a site's own are equal to ours."""
    named = [
        f"{module.name}, line {line}"
        for module in modules()
        if module.room != "plugins"
        for name, line in module.imports()
        if is_within(name, "plugins")
    ]
    assert named == []


# Foreign codestreams meet a codec in a child process only: what it loads, no one else may import.
CODEC_LIBRARIES = {"imagecodecs", "jpeg_ls", "openjpeg", "pylibjpeg", "libjpeg", "gdcm", "highdicom.frame"}
CODEC_LIBRARIES |= {"pydicom.pixels.decoders", "pydicom.pixels.encoders", "pydicom.pixels.get_decoder"}
CODEC_LIBRARIES |= {"pydicom.pixels.get_encoder", "pydicom.pixels.pixel_array", "pydicom.pixels.decompress"}
PIXELS = "gateway.dicom.pixels"
WITH_CODECS = {f"{PIXELS}.{name}" for name in ("decoders", "encoders", "decoding", "children.main", "children.views")}
CODEC_METHODS = {"pixel_array", "convert_pixel_data"}  # pydicom decodes where the attribute is looked at


def test_only_the_child_process_runs_codecs() -> None:
    found = []
    for module in modules():
        if module.name in WITH_CODECS:
            continue
        found += [
            f"{module.name}, line {line}: {name}"
            for name, line in module.imports()
            if name in WITH_CODECS or any(is_within(name, library) for library in CODEC_LIBRARIES)
        ]
        found += [
            f"{module.name}, line {node.lineno}: {node.attr}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and node.attr in CODEC_METHODS
        ]
    assert found == []


# What a running role loads counts as well, through whatever chain of imports.
NOT_LOADED = {
    "gateway.cli": {"torch", "numpy", "pydicom", "pynetdicom", "pydantic", "sqlalchemy", "cryptography"},
    "gateway.config": {"torch", "numpy", "pydicom", "pynetdicom", "sqlalchemy", "cryptography"},
    "gateway.network.ingress": {"torch"},
    "gateway.network.egress": {"torch"},
    "gateway.network.retrieve": {"torch"},
    "gateway.web.app": {"torch", "numpy", "pydicom", "pynetdicom", "cryptography"},
    "gateway.flow.receive": {"torch", "pynetdicom"},
    "gateway.restore": {"torch", "pynetdicom"},
    "gateway.service": {"torch", "fastapi", "jinja2", "numpy", "pydicom", "cryptography"},
    "gateway.service.run": {"torch", "fastapi", "jinja2"},
    "gateway.mark": {"pydicom", "pynetdicom", "cryptography"},
}


@pytest.mark.parametrize("module", NOT_LOADED)
def test_importing_a_module_does_not_load_what_it_has_no_use_for(module: str) -> None:
    code = f"import sys, {module}; sys.exit(' '.join(set({sorted(NOT_LOADED[module])}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == "", module


def test_modules_stay_readable() -> None:
    lengths = {module.name: len(module.path.read_text("utf-8").splitlines()) for module in modules()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_what_is_public_says_what_it_is() -> None:
    """Every module, and every public function and class in `gateway`, has a docstring."""
    silent = []
    for module in modules():
        if not module.tree.body or is_within(module.name, "gateway.database.migrations"):  # Alembic's names say enough
            continue
        if not ast.get_docstring(module.tree):
            silent.append(module.name)
        if module.room != "plugins":
            silent += [f"{module.name}, line {node.lineno}: {node.name}" for node in public(module) if is_silent(node)]
    assert silent == []


def test_docstrings_are_numpydoc() -> None:
    """One dialect: sections are underlined (ruff checks how); none is written as ``Args:``."""
    foreign = re.compile(r"^\s+(Args|Arguments|Attributes|Parameters|Raises|Returns|Yields):\s*$", re.MULTILINE)
    found = [
        module.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, Definition | ast.Module) and foreign.search(ast.get_docstring(node, clean=False) or "")
    ]
    assert found == []


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(module: Module) -> Iterator[Definition]:
    for node in module.tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def is_silent(node: Definition) -> bool:
    return not ast.get_docstring(node)


def test_nothing_prints_but_the_commands() -> None:
    printed = [
        f"{module.name}, line {node.lineno}"
        for module in modules()
        if module.room not in ("gateway.commands", "gateway.cli", "gateway.demo", "plugins")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printed == []


AT_THE_TOP = {
    *("gateway", "plugins", "tests", "deploy", "pyproject.toml", "README.md", "LICENSE"),
    *(".ci", ".github", ".gitignore", ".pre-commit-config.yaml"),
}


def test_nothing_else_lies_at_the_top() -> None:
    """Of what is kept: a checkout may hold what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert {name.split("/")[0] for name in listed.split("\0") if name} == AT_THE_TOP
