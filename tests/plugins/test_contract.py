"""What third parties build on: it changes only on purpose."""

from __future__ import annotations

import ast
from pathlib import Path

import gateway.mark
import plugins

CONTRACT = {
    "BLANK",
    "UNMARKED",
    "Curve",
    "GeneratorPack",
    "ImageTraits",
    "MarkRequest",
    "MarkSettings",
    "MarkedImage",
    "Marker",
    "ModalityProfile",
    "NetOutput",
    "Network",
    "Quality",
    "RelativeWindow",
    "Surrogate",
    "SurrogatePack",
    "Window",
    "choose_profile",
    "load_packs",
    "load_profiles",
}


def test_the_names_of_the_contract() -> None:
    assert set(gateway.mark.__all__) == CONTRACT
    assert all(hasattr(gateway.mark, name) for name in CONTRACT)


def test_plug_ins_import_nothing_else_of_the_gateway() -> None:
    modules = sorted(Path(plugins.__file__).parent.rglob("*.py"))
    assert len(modules) > 10
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            inside = [name for name in found if name.startswith("gateway")]
            assert set(inside) <= {"gateway.mark"}, module
