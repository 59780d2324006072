"""The demo itself: start everything, send, wait, look from outside, restore, be refused, show."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import Engine

from gateway.config import Config, load_config
from gateway.demo.images import SERIES, DemoImage, bundled_images, open_pictures, series_images
from gateway.demo.measure import Measured, Measurer
from gateway.demo.outside import Copy, copies_at, has_new_uids
from gateway.demo.peers import GATEWAY, find_orthanc, start_archive, start_outside
from gateway.demo.processes import Programs, Stopped, listens, stopping_in_order
from gateway.demo.site import (
    ARCHIVE_AE,
    DESTINATION,
    GATEWAY_AE,
    OUTSIDE_AE,
    RESTORE_AE,
    STRANGER_AE,
    WORKSTATION_AE,
    Site,
    alone_in,
    prepare_site,
)
from gateway.demo.table import Line, Outcome, shown
from gateway.demo.waiting import wait_for_delivery
from gateway.demo.workstation import Received, Wanted, Workstation
from gateway.errors import GatewayError
from gateway.flow.selection import QueueEntry, list_instances
from gateway.flow.store import DELIVERED
from gateway.mark.evaluation.picture import save_picture
from gateway.service import database

GATEWAY_START_S = 180.0  # the first start after an installation compiles and loads torch
PICTURE_ROWS = 4  # of either kind
FIGURES = (  # of `Measured`, as they stand in `Line`
    *("changed", "psnr", "task", "learnt", "before", "after", "under_noise"),
    *("margin_before", "margin_after", "margin_noise"),
)
WIDE = 160  # columns, where the output is no terminal


class Demo:
    """One run.

    Parameters
    ----------
    site
        Its folder, made by `prepare_site`.
    programs
        Where the three programs are started; the caller ends them.
    images
        What the archive sends.
    messages
        Where progress is shown.
    """

    def __init__(self, site: Site, programs: Programs, images: Sequence[DemoImage], messages: Console) -> None:
        self._site = site
        self._images = images
        self._kinds = {(image.sop_class_uid, image.transfer_syntax_uid) for image in images}
        self._messages = messages
        self._programs = programs
        self._config: Config = load_config(site.config_file)
        self._archive = start_archive(programs, site)
        self._outside = start_outside(programs, site)
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", "all", "--config", str(site.config_file)]
        self._gateway = programs.start("the gateway", command, site.logs / "gateway.log")
        self._measurer = Measurer(next(route for route in self._config.routes if route.called_ae == GATEWAY_AE))
        self._measured: dict[str, Measured] = {}

    def run(self) -> Outcome:
        """Send everything on its way and follow it.

        Raises
        ------
        GatewayError
            A program did not start, ended, or stalled.
        """
        self._archive.wait_until_ready()
        self._outside.wait_until_ready()
        ports = self._site.ports
        self._gateway.wait_for("it listens", lambda: listens(ports.gateway) and listens(ports.restore), GATEWAY_START_S)
        engine = database(self._config)
        try:
            started_at = time.time()
            self._send()
            entries = self._wait_for_delivery(engine, started_at)
        finally:
            engine.dispose()
        witnesses = self._witnesses()
        copies = self._copies()
        return Outcome(tuple(self._followed(image, entries, witnesses, copies) for image in self._images))

    def save_picture(self, path: Path) -> None:
        """A picture of some of the kinds that the classifier learnt, of others, and of the middle slice of a series."""
        single = [name for name in self._measured if "/" not in name]
        learnt = [name for name in single if self._measured[name].learnt]
        names = learnt[:: max(1, len(learnt) // PICTURE_ROWS)][:PICTURE_ROWS]
        names += [name for name in single if not self._measured[name].learnt][:PICTURE_ROWS]
        for series in SERIES:
            slices = [name for name in self._measured if name.startswith(f"{Path(series).name}/")]
            names += slices[len(slices) // 2 :][:1]
        if names:
            save_picture([self._measured[name].pair(name) for name in names], path)

    def keep_serving(self) -> None:
        """Return only by an exception: Ctrl-C, or a program that ended."""
        while True:
            self._programs.check()
            time.sleep(0.5)

    def _send(self) -> None:
        """The administrator's part: give the archive its images, then choose the gateway as their destination."""
        self._messages.print(f"{ARCHIVE_AE} sends {len(self._images)} images to {GATEWAY_AE}")
        identifiers = [self._archive.upload(image.path) for image in self._images]
        self._archive.send(identifiers, GATEWAY)

    def _wait_for_delivery(self, engine: Engine, started_at: float) -> dict[str, QueueEntry]:
        """Follow the gateway's queue until nothing is under way; the entries of this run by original UID."""

        def look() -> list[QueueEntry]:
            self._programs.check()
            return [entry for entry in list_instances(engine, limit=10_000) if entry.received_at >= started_at]

        entries = wait_for_delivery(look, len(self._images), self._messages, self._site.logs / "gateway.log")
        return {entry.sop_instance_uid: entry for entry in entries}

    def _witnesses(self) -> dict[str, Received]:
        """What the archive really sends of each image, by SOP Instance UID: asked by another way than the gateway."""
        workstation = Workstation(WORKSTATION_AE, self._kinds)
        wanted = [Wanted(image.study_uid, image.series_uid, image.sop_instance_uid) for image in self._images]
        answers = workstation.get(ARCHIVE_AE, self._site.ports.archive, wanted)
        return {received.sop_instance_uid: received for received in answers if received}

    def _copies(self) -> dict[str, list[tuple[Copy, Received | None]]]:
        """What lies outside, each with what the authorized workstation gets for its UIDs, by original UID.

        Which original it is says the copy itself. Where it does not (an original whose UID is not valid is not named),
        the original that came back says it.
        """
        copies = copies_at(self._outside)
        workstation = Workstation(WORKSTATION_AE, self._kinds, self._site.tls("workstation"))
        wanted = [Wanted(copy.study_uid, copy.series_uid, copy.sop_instance_uid) for copy in copies]
        answers = workstation.get(RESTORE_AE, self._site.ports.restore, wanted)
        found: dict[str, list[tuple[Copy, Received | None]]] = {}
        for copy, restored in zip(copies, answers, strict=True):
            source = copy.source_uid or (restored.sop_instance_uid if restored else "")
            found.setdefault(source, []).append((copy, restored))
        return found

    def _followed(
        self,
        image: DemoImage,
        entries: dict[str, QueueEntry],
        witnesses: dict[str, Received],
        copies: dict[str, list[tuple[Copy, Received | None]]],
    ) -> Line:
        """Everything about one image."""
        entry = entries.get(image.sop_instance_uid)
        witness = witnesses.get(image.sop_instance_uid)
        found = copies.get(image.sop_instance_uid, [])
        line: dict[str, Any] = {
            "name": image.name,
            "sop_instance_uid": image.sop_instance_uid,
            "archive_sha256": witness.sha256 if witness else "",
            "state": entry.state if entry else "not received",
            "reason": entry.reason_code if entry else None,
            "delivered": entry is not None and entry.state == DELIVERED and len(found) == 1 and found[0][0].is_derived,
        }
        if not witness or not found:
            return Line(**line)
        copy, restored = found[0]
        line |= {"derived_sop_uid": copy.sop_instance_uid, "new_uids": has_new_uids(copy, image)}
        line |= self._figures(image, witness, copy)
        if restored:
            line |= {"restored_sha256": restored.sha256, "restored_sop_uid": restored.sop_instance_uid}
        return Line(**line, stranger_refused=self._strangers_are_refused())

    def _figures(self, image: DemoImage, witness: Received, copy: Copy) -> dict[str, Any]:
        try:
            measured = self._measurer.measure(witness.data, witness.transfer_syntax_uid, copy.file)
        except GatewayError as error:
            return {"reason": error.code}
        self._measured[image.name] = measured
        return {name: getattr(measured, name) for name in FIGURES}

    def _strangers_are_refused(self) -> bool:
        """Under its own name, and under the authorized name with its own certificate: both of the same authority."""
        certificate = self._site.tls("stranger")
        return all(
            Workstation(title, (), certificate).is_refused(RESTORE_AE, self._site.ports.restore)
            for title in (STRANGER_AE, WORKSTATION_AE)
        )


def run(once: bool = False, json_path: Path | None = None, folder: Path = Path("demo")) -> int:
    """Run the demo in `folder` and show what each side gets.

    Parameters
    ----------
    once
        End after the table; else keep everything running until Ctrl-C.
    json_path
        Where to write the table as JSON.

    Returns
    -------
    int
        0 when every line holds, else 1; 130 when it was stopped before the table.

    Raises
    ------
    GatewayError
        Something could not be started, or ended by itself.
    """
    messages = Console(stderr=True, highlight=False)
    find_orthanc()
    series = series_images()
    if not series and os.environ.get("MIAD_DATA"):
        messages.print("MIAD_DATA names no folder with the two series: only the pictures of the package are sent")
    images = [*open_pictures(), *bundled_images(), *series]
    code = 130
    try:
        with stopping_in_order(), alone_in(folder), Programs() as programs:
            began = time.monotonic()
            site = prepare_site(folder)
            demo = Demo(site, programs, images, messages)
            outcome = demo.run()
            picture = site.folder / "marked.png"
            demo.save_picture(picture)
            code = _show(outcome, site, picture, time.monotonic() - began)
            if json_path:
                table = {**outcome.as_dict(), "picture": str(picture), "seconds": time.monotonic() - began}
                json_path.write_text(json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            if not once:
                messages.print("Everything keeps running: Ctrl-C ends it.")
                demo.keep_serving()
            messages.print("stopping")
    except (KeyboardInterrupt, Stopped):
        messages.print("stopped")
    return code


def _show(outcome: Outcome, site: Site, picture: Path, seconds: float) -> int:
    """Print the table, what one sees in it, and where things are; returns the exit code."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen = Console(highlight=False, width=WIDE)
    screen.print(shown(outcome.lines, screen))
    ports, failures = site.ports, outcome.failures()
    if outcome.asked:
        asked, changed, noise = len(outcome.asked), outcome.answers_changed, outcome.answers_changed_by_noise
        screen.print(
            f"Of the {asked} images of kinds that the classifier learnt it answers {changed} otherwise after the mark, "
            f"{noise} under noise of equal energy;\n"
            f"its margin falls by {outcome.mean_fall:.2f}, under noise by {outcome.mean_fall_noise:.2f}. "
            "It learnt from none of these images, and the mark was not made on it.\n"
            "In brackets: kinds that it never learnt, so that its answer means nothing.",
            soft_wrap=True,
        )
    screen.print(
        f"{'What should be seen' if failures else 'What you see'}: "
        f"{ARCHIVE_AE} sent its images to {GATEWAY_AE}; {OUTSIDE_AE} got marked copies under new UIDs.\n"
        f"{WORKSTATION_AE} (its certificate is listed) asked for those UIDs and got the archive's bytes; a stranger,\n"
        f"under its own name and under that of {WORKSTATION_AE}, was rejected. All of it took {seconds:.0f} s.\n"
        f"  {ARCHIVE_AE:13} port {ports.archive}, http://127.0.0.1:{ports.archive_http}\n"
        f"  {OUTSIDE_AE:13} port {ports.outside}, http://127.0.0.1:{ports.outside_http}\n"
        f"  {GATEWAY_AE:13} port {ports.gateway} (send to it), destination {DESTINATION}\n"
        f"  {RESTORE_AE:13} port {ports.restore} (TLS; query and retrieve from it)\n"
        f"Picture: {picture}\nConfiguration: {site.config_file}",
        soft_wrap=True,
    )
    for failure in failures:
        screen.print(f"FAILED {failure}", style="red", soft_wrap=True)
    return 1 if failures else 0
