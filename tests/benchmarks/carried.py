"""How much a marked copy grows when it carries its original: share of sealed key and payload, by modality.

    python -m tests.benchmarks.carried [--data ../shared/data] [--each 3] [--steps N] [--json FILE]

Files of the real corpus that the policy marks, at most `--each` of one modality, size and way of encoding (uncompressed
or compressed), get the real default mark (`--steps 0`: lettering without optimisation), one after the other. Every
original is rebuilt from its copy and compared before its line is printed. The share is of the original data set.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from gateway.config.models import Route
from gateway.dicom.copy.carried_body import RESIDUAL, pack
from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import GatewayError
from gateway.keys import Signer
from gateway.mark import Marker, MarkSettings, ModalityProfile, load_profiles
from gateway.protect.marking import Opened, marked_frames, requests_of
from gateway.protect.policy import decide
from gateway.restore import CopyRestorer
from gateway.vault import seal_carried
from tests.conftest import data_folder
from tests.support.copies import Gateway
from tests.support.dicom.samples import Sample, corpus, facts

ROUTE = Route(name="carried", called_ae="CARRIED", destinations=("outside",))
KEY = bytes(range(32))
UID = "2.25.1001"

Kind = tuple[str, str, str]  # modality, size, way of encoding


@dataclass(frozen=True)
class Line:
    """One file. Bytes; seconds; share of sealed key and payload in the original."""

    file: str
    modality: str
    size: str
    encoding: str
    method: str
    original: int
    payload: int
    share: float
    changed: float
    pack_s: float


def chosen(samples: list[Sample], each: int) -> Iterator[tuple[Sample, Kind, Opened, ModalityProfile]]:
    """At most `each` files of a kind, spread over those that the policy marks."""
    profiles = load_profiles()
    kinds: dict[Kind, list[tuple[Sample, ModalityProfile]]] = defaultdict(list)
    for sample in samples:
        data, syntax = sample.read()
        try:
            header = read_header(io.BytesIO(data), syntax)
            profile = decide(header, ROUTE, profiles).profile
        except GatewayError:
            continue
        if profile is not None:
            way = "compressed" if syntax_of(syntax).encapsulated or syntax_of(syntax).deflated else "uncompressed"
            kinds[header.modality, f"{header.columns}x{header.rows}", way].append((sample, profile))
    for kind, found in sorted(kinds.items()):
        taken = 0
        for sample, profile in found[:: max(1, len(found) // each)]:
            data, syntax = sample.read()
            try:
                opened = Opened(data, read_header(io.BytesIO(data), syntax), decode_pixels(data, syntax))
            except GatewayError:
                continue
            if taken < each and len(opened.pixels.frames) <= 4:
                taken += 1
                yield sample, kind, opened, profile


def measure(
    sample: Sample, kind: Kind, opened: Opened, profile: ModalityProfile, marker: Marker, gateway: Gateway
) -> Line:
    """Mark, pack, seal, derive, rebuild; GatewayError where there is no room for a mark."""
    data, syntax = sample.read()
    frames = marked_frames(opened, marker.mark(requests_of(opened, profile, KEY), profile))
    start = time.perf_counter()
    body = pack(data, syntax, opened.pixels, frames)
    took = time.perf_counter() - start
    record = gateway.record(data, syntax, UID)
    sealed_key, payload = seal_carried(body, record, gateway.restore.public_key(), Signer(gateway.signing))
    copy = derive(
        data, syntax, frames, facts(derived_sop_uid=UID, sealed_key=sealed_key, payload=payload), opened.pixels
    )
    with CopyRestorer(gateway.opening).by_copy(io.BytesIO(copy), EXPLICIT_LITTLE) as original:
        original.verify()
        if b"".join(original.stream()) != data:
            raise SystemExit(f"{sample.row['file']}: the original did not come back")
    carried = len(sealed_key) + len(payload)
    return Line(
        sample.row["file"],
        *kind,
        method="residual" if body[1] == RESIDUAL else "whole",
        original=len(data),
        payload=carried,
        share=carried / len(data),
        changed=float((frames != opened.pixels.frames).mean()),
        pack_s=took,
    )


def summary(lines: list[Line]) -> Iterator[str]:
    """A Markdown table: one row a kind."""
    yield "| modality | columns x rows | encoding | files | method | share, median | share, most | pixels changed |"
    yield "|---|---|---|---|---|---|---|---|"
    groups: dict[Kind, list[Line]] = defaultdict(list)
    for line in lines:
        groups[line.modality, line.size, line.encoding].append(line)
    for kind, group in sorted(groups.items()):
        shares = [line.share for line in group]
        methods = ", ".join(sorted({line.method for line in group}))
        changed = median(line.changed for line in group)
        yield (
            f"| {' | '.join(kind)} | {len(group)} | {methods} | {median(shares):.1%} | {max(shares):.1%} "
            f"| {changed:.0%} |"
        )


def main() -> int:
    """Print a line a file, then the table. Returns 1 when there was nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--modality", help="only this one, as CT")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("no data: set MIAD_DATA")
    settings = MarkSettings(device="cpu") if options.steps is None else MarkSettings(device="cpu", steps=options.steps)
    marker, gateway, lines = Marker(settings), Gateway(), []
    samples = [one for one in corpus(options.data) if options.modality in (None, one.row["modality"])]
    for sample, kind, opened, profile in chosen(samples, options.each):
        try:
            line = measure(sample, kind, opened, profile, marker, gateway)
        except GatewayError as error:
            print(f"{sample.row['file']}: {error.code}", flush=True)
            continue
        lines.append(line)
        print(
            f"{line.file}: {line.modality} {line.size} {line.encoding}, {line.method}, {line.payload} of "
            f"{line.original} bytes, {line.share:.1%}, packed in {line.pack_s:.2f} s",
            flush=True,
        )
    print("\n".join(summary(lines)))
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", "utf-8")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
