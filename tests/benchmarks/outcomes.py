"""What becomes of every kind of object: outcome by transfer syntax and photometric, and whether it comes back exactly.

    python -m tests.benchmarks.outcomes [--data ../shared/data] [--steps 0] [--only corpus|made] [--json FILE]

All files of the corpus and all made objects (`tests.iods`) go through the gateway's own steps under the default policy
table, on a route whose originals lie in the vault and ride in the copies too (`restoration = "both"`). The vault has to
give back every original that was taken, whatever became of it; the copy, with the private key alone, that of every
marked or remapped one. `--steps 0` is lettering without optimisation: outcomes and exactness do not depend on it.
Exit code 1 when one original does not come back.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import structlog
from pydicom.uid import UID

from gateway.config.models import Mark
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.errors import GatewayError
from gateway.keys.generate import make_keys
from gateway.keys.keyring import OpeningKeys
from gateway.restore import CarriedOriginal, CopyRestorer, Original, Restorer
from gateway.service import places
from tests.conftest import data_folder
from tests.iods.collection import collection
from tests.support.dicom.samples import corpus
from tests.support.flow import ROUTE, Flow, configuration, decoded

BATCH = 16


@dataclass(frozen=True)
class Sent:
    """One object that is sent: encoded data set bytes."""

    name: str
    data: bytes
    syntax: str


@dataclass
class Line:
    """What became of one object. share: of sealed key and payload in the original, where the copy carries it."""

    name: str
    syntax: str
    photometric: str = ""
    modality: str = ""
    outcome: str = ""
    escrow: bool = False
    carried: bool = False
    is_compressed: bool = False
    share: float | None = None

    @property
    def left(self) -> bool:
        """Whether a copy went out."""
        return self.outcome in ("mark", "remap")


def originals(data: Path, only: str) -> Iterator[Sent | Line]:
    """All objects in turn; a line instead where a file is not readable as DICOM at all."""
    if only != "made":
        for sample in corpus(data):
            try:
                content, syntax = sample.read()
            except GatewayError as error:
                yield Line(sample.row["file"], "", outcome=f"refused: {error.code}")
            else:
                yield Sent(sample.row["file"], content, syntax)
    if only != "corpus":
        for one in collection(data).values():
            yield Sent(f"made/{one.name}", one.data, one.transfer_syntax_uid)


def passed(flow: Flow, batch: list[Sent]) -> Iterator[Line]:
    """Send some objects through and get each back both ways."""
    waiting: dict[str, tuple[Sent, Line]] = {}
    for one in batch:
        line = Line(one.name, one.syntax)
        try:
            header = read_header(io.BytesIO(one.data), one.syntax)
            line.photometric, line.modality = header.photometric, header.modality
            syntax = syntax_of(one.syntax)
            line.is_compressed = syntax.encapsulated or syntax.deflated
            ds = decoded(one.data, one.syntax)
            waiting[flow.receive(ds, one.syntax, data=one.data)] = one, line
        except GatewayError as error:
            line.outcome = f"refused: {error.code}"
            yield line
    flow.sender.received.clear()
    flow.run()
    copies = {item.instance_id: (item, copy) for _, item, copy in flow.sender.received}
    keys = OpeningKeys.load(flow.config.keys)
    restorer = Restorer(flow.engine, places(flow.config).vault, keys, flow.config.site.name)
    for instance, (one, line) in waiting.items():
        row = flow.row(instance)
        line.outcome = row.action if row.state == "delivered" else f"{row.state}: {row.reason_code}"
        with restorer.by_locator(row.record) as original:  # by UID it would be the newest of files that share one
            line.escrow = _bytes_of(original) == one.data
        if instance in copies:
            item, copy = copies[instance]
            line.escrow = line.escrow and flow.restored(item.sop_instance_uid) == one.data
            with CopyRestorer(keys).by_copy(io.BytesIO(copy), item.transfer_syntax_uid) as original:
                line.carried = _bytes_of(original) == one.data
            block = read_block(decoded(copy, item.transfer_syntax_uid))
            line.share = (len(block.sealed_key) + len(block.payload)) / len(one.data)
        yield line


def _bytes_of(original: Original | CarriedOriginal) -> bytes:
    """What is restored, checked against its digest first."""
    original.verify()
    return b"".join(original.stream())


def table(lines: list[Line]) -> Iterator[str]:
    """Transfer syntax x photometric x outcome, as Markdown."""
    yield "| transfer syntax | photometric | outcome | objects | exact from the vault | exact from the copy |"
    yield "|---|---|---|---|---|---|"
    groups: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[UID(line.syntax).name if line.syntax else "", line.photometric, line.outcome].append(line)
    for key, group in sorted(groups.items()):
        escrow = "" if key[2].startswith("refused") else sum(line.escrow for line in group)
        carried = sum(line.carried for line in group) if group[0].left else ""
        yield f"| {' | '.join(key)} | {len(group)} | {escrow} | {carried} |"


def shares(lines: list[Line]) -> Iterator[str]:
    """How much of the original's size the copy carries, by modality, as Markdown."""
    yield "| modality | original | outcome | objects | share, median | share, most |"
    yield "|---|---|---|---|---|---|"
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in lines:
        if line.share is not None:
            way = "compressed" if line.is_compressed else "uncompressed"
            groups[line.modality, way, line.outcome].append(line.share)
    for key, found in sorted(groups.items()):
        yield f"| {' | '.join(key)} | {len(found)} | {median(found):.1%} | {max(found):.1%} |"


def main() -> int:
    """Print the tables and the counts; 1 when an original did not come back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--only", choices=("corpus", "made"), default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("no data: set MIAD_DATA")
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    start, lines = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_keys(folder / "keys")
        mark = Mark(steps=options.steps)
        route = ROUTE.model_copy(update={"restoration": "both", "mark": mark, "destinations": ("outside",)})
        flow = Flow(configuration(folder / "state", folder / "keys", route))
        objects = originals(options.data, options.only)
        while batch := list(islice(objects, BATCH)):
            lines += [one for one in batch if isinstance(one, Line)]
            lines += passed(flow, [one for one in batch if isinstance(one, Sent)])
            print(f"{len(lines)} objects, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", "utf-8")
    return _report(lines)


def _report(lines: list[Line]) -> int:
    print("\n".join([*table(lines), "", *shares(lines), ""]))
    taken = [line for line in lines if not line.outcome.startswith("refused")]
    left = [line for line in taken if line.left]
    print(f"objects {len(lines)}: {dict(Counter(line.outcome for line in lines))}")
    print(f"exact from the vault {sum(line.escrow for line in taken)} of {len(taken)}")
    print(f"exact from the copy {sum(line.carried for line in left)} of {len(left)}")
    lost = [line.name for line in taken if not line.escrow] + [line.name for line in left if not line.carried]
    print("\n".join(f"not exact: {name}" for name in lost), end="\n" if lost else "")
    return 1 if lost or not left else 0


if __name__ == "__main__":
    sys.exit(main())
