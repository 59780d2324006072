"""One instance in, one sealed original and one marked instance out (architecture, life of an instance, steps 2 to 5).

This room knows what an instance is; it does not know where it came from, where it goes, or which step is next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from sqlalchemy import Engine

from gateway import __version__
from gateway.config.models import Config, Route
from gateway.dicom.copy.carried_body import pack, pack_referring
from gateway.dicom.copy.derive import DerivationFacts
from gateway.dicom.copy.uids import derived_uid, in_new_study
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.dicom.pixels.children.pool import Limits, configure
from gateway.errors import GatewayError, HoldError
from gateway.keys import SealingKeys, mark_seed
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile, load_packs, load_profiles
from gateway.mark.device import resolve_device
from gateway.mark.surrogates.foreign import read_packs
from gateway.protect.batching import Member, mark_together, member_of
from gateway.protect.key_slices import KeyTextures, Start, is_key, slice_number, uses
from gateway.protect.large import LARGE_BYTES, LargeMarked, is_large, mark_large
from gateway.protect.marking import (
    FigureTally,
    Marked,
    MarkJob,
    describe,
    described,
    marked_frames,
    open_original,
    read_original,
)
from gateway.protect.memory import BASE, allowed, check, kept, working
from gateway.protect.policy import Decision, decide, has_new_study, policy_digest, ride_along
from gateway.protect.remapping import Remapped
from gateway.protect.rules import UNKNOWN, Arrival
from gateway.protect.signed_report import SignedFacts, SignedReport, check_report
from gateway.vault import (
    CopyNames,
    FigureStore,
    MarkFigures,
    PayloadStore,
    RecordFacts,
    RecordStore,
    VaultRecord,
    open_payloads,
    seal_carried,
    seal_payload,
)

_PAGE = 500  # locators in one query

_Results = dict[int, Marked | LargeMarked | Remapped | Exception]  # by index of the job
_Batches = dict[tuple[str, MarkSettings], list[Member]]


class Protector:
    """Seals and marks for one site.

    Parameters
    ----------
    config
        The site's configuration.
    keys
        Public restore key, signing key, UID and mark key; nothing that opens an original.
    engine
        The database with the vault's records.
    vault_folder
        Where sealed payloads lie, or are on their way to the object store that the configuration names.
    """

    def __init__(self, config: Config, keys: SealingKeys, engine: Engine, vault_folder: Path) -> None:
        configure(Limits.of(config.codecs))
        self._config = config
        self._memory = allowed(config.worker.memory_mib) // config.worker.processes
        self._keys = keys
        self._engine = engine
        self._profiles = load_profiles()
        self._payloads = open_payloads(config, vault_folder) if config.store else PayloadStore(vault_folder)
        self._figures = FigureStore(engine)
        self._scratch = vault_folder
        self._records = RecordStore(
            engine,
            keys.signer,
            keys.verifier,
            vault_id=config.site.name,
            restore_public=keys.restore_public,
            derive_uid=partial(derived_uid, keys.uid_key),
        )
        self._markers: dict[MarkSettings, Marker] = {}
        self._textures = KeyTextures()
        installed = load_packs()
        own = read_packs({surrogates.name: surrogates.pack for surrogates in config.surrogates}, installed)
        self._packs = [*installed.values(), *own]

    @cached_property
    def _marks_by_shape(self) -> bool:
        return resolve_device(self._config.worker.device).type != "cpu"

    # -- classify and seal ---------------------------------------------------------------------------------------------

    def read_header(self, source: Callable[[], BinaryIO], transfer_syntax_uid: str) -> InstanceHeader:
        """The header of received bytes; DicomError when they are not what DICOM says."""
        with source() as file:
            return read_header(file, transfer_syntax_uid)

    def decide(self, header: InstanceHeader, route: Route, arrival: Arrival = UNKNOWN) -> Decision:
        """What happens to this instance on this route (`gateway.protect.policy`)."""
        return decide(header, route, self._profiles, arrival=arrival)

    def seal(
        self,
        source: Callable[[], BinaryIO],
        header: InstanceHeader,
        *,
        transfer_syntax_uid: str,
        sha256: str,
        size: int,
        received_at: float,
        route: Route,
        decision: Decision,
    ) -> VaultRecord:
        """Make the signed record of an original and put its sealed payload; repeating it gives the same record.

        On a route whose copies carry their originals no payload is put: until the copy is delivered the original lies
        in the spool alone. What is held instead of marked is sealed on every route.

        Raises
        ------
        CapacityError, VaultError, IntegrityError
            As `RecordStore.create` and `PayloadStore.put`.
        """
        collides = self._records.is_of_another_study(header.sop_instance_uid, header.study_uid)
        record = self._records.create(
            RecordFacts(
                original_sop_uid=header.sop_instance_uid,
                original_series_uid=header.series_uid,
                study_uid=header.study_uid,
                sop_class_uid=header.sop_class_uid,
                transfer_syntax_uid=transfer_syntax_uid,
                original_sha256=sha256,
                original_size=size,
                policy=policy_digest(decision, route),
                attributes=header.attributes,
                received_at=received_at,
                is_carried=route.restoration == "carried" and decision.action in ("mark", "remap") and not collides,
                has_new_study=has_new_study(decision, route),
            )
        )
        self._put_payload(record, source)
        return record

    def batch_key(self, header: InstanceHeader, decision: Decision, route: Route) -> str:
        """What instances have in common that the marker takes together, at most 64 characters: modality profile, a
        digest of the settings, and whether it is a key slice (`gateway.protect.key_slices`); on a GPU, which computes
        images of one shape together, rows by columns by samples as well: a processor gives each image a core.
        """
        if decision.profile is None:
            return "remap"
        name, settings = decision.profile.name, self._settings(route)
        digest = hashlib.sha256(f"{name}\n{settings.model_dump_json()}".encode()).hexdigest()
        number = slice_number(header) if uses(settings) else None
        key = ":key" if number is not None and is_key(number) else ""  # before those that begin from them
        shape = f":{header.rows}x{header.columns}x{header.samples}" if self._marks_by_shape else ""
        return f"{name[:24]}{shape}:{digest[:16]}{key}"

    def refusal(self, record: VaultRecord, decision: Decision) -> GatewayError | None:
        """Why no copy of a sealed original is made, None where one is: held or blocked, or its UID is another's.

        ``uid-collision``: the SOP Instance UID is that of another study's instance. The original is found in its own
        study all the same.
        """
        if decision.action in ("hold", "block"):
            return decision.as_error()
        if not self._records.is_of_another_study(record.original_sop_uid, record.study_uid):
            return None
        return HoldError(
            "uid-collision",
            "its SOP Instance UID is that of an instance of another study (PS3.5, 9: a UID names one thing); the "
            "original is sealed and can be retrieved, a marked copy would pass for one of the other study",
            "have the archive give one of the two another SOP Instance UID, and send that",
        )

    def record(self, locator: str) -> VaultRecord:
        """The record at `locator`; NotFoundError or IntegrityError."""
        return self._records.by_locator(locator)

    def fix_derived(self, record: VaultRecord, sha256: str, marked: Marked | LargeMarked | Remapped) -> bool:
        """Fix the digest of the derived bytes before the first delivery; False when another digest is fixed.

        From then on slices of the series may begin from what was marked, where it began from itself.
        """
        begun_from = marked.begun_from if isinstance(marked, Marked) else ""
        is_fixed = self._records.fix_derived(record.locator, sha256, begun_from)
        if is_fixed and isinstance(marked, Marked) and marked.place is not None and marked.texture is not None:
            self._textures.keep(marked.place, Start(marked.texture, record.derived_sop_uid))
        return is_fixed

    def note_figures(self, record: VaultRecord, figures: MarkFigures) -> None:
        """Keep what a report tells of a copy: before its bytes are fixed, so that no copy leaves without figures."""
        self._figures.note(record.locator, figures)

    def new_generation(self, record: VaultRecord, source: Callable[[], BinaryIO]) -> VaultRecord:
        """A further record of the same original, sealed under a UID of its own."""
        newer = self._records.new_generation(record)
        self._put_payload(newer, source)
        return newer

    def check_report(self, signed: SignedReport | None) -> SignedFacts:
        """What a listed signer says of a report of this site; HoldError ``not-ours``."""
        return check_report(signed, self._keys.verifier, self._config.site.name)

    def expire(self, before: float, keep: Collection[str], most: int, told: Callable[[str], None]) -> int:
        """End the retention of originals sealed before that time, but of none in `keep`; returns how many.

        Parameters
        ----------
        most
            End no more than so many, the oldest first.
        told
            Called with each locator before its retention ends; what it raises keeps that original and those after it.
        """
        locators = self._records.expire(before, keep, most, told)
        for locator in locators:
            self._payloads.delete(locator)
        return len(locators)

    def sweep_ended(self) -> int:
        """Delete payloads that a kill left behind after their retention had ended; returns how many."""
        found = 0
        names = self._payloads.locators()
        while page := list(islice(names, _PAGE)):
            for locator in self._records.ended(page):
                found += self._payloads.delete(locator)
        return found

    def originals(self) -> int:
        """How many originals retention has not ended."""
        return self._records.count_live()

    def sweep(self, before: float) -> int:
        """Delete payloads that killed processes left half written before that time; returns how many."""
        return self._payloads.sweep(before)

    def _put_payload(self, record: VaultRecord, source: Callable[[], BinaryIO]) -> None:
        if record.is_carried:
            return

        def write(out: BinaryIO) -> None:
            with source() as file:
                seal_payload(out, file, record, self._keys.restore_public)

        self._payloads.put(record.locator, write)

    # -- mark ----------------------------------------------------------------------------------------------------------

    def mark(self, jobs: Sequence[MarkJob]) -> list[Marked | LargeMarked | Remapped | Exception]:
        """Mark a batch; one result for each job, in order, an error where it could not be marked.

        What only refers to images is not marked: its result maps the references.

        Frames of the same kind under the same settings go to the mark together, whatever instance they are of.
        """
        results: _Results = {}
        batches: _Batches = {}
        waiting = BASE
        for index, job in enumerate(jobs):
            try:
                parts = _parts_of(job)
                header = parts.header if parts else self.read_header(job.open, job.transfer_syntax_uid)
                decision = self.decide(header, job.route, job.arrival)
                profile = decision.profile
                if decision.action != "remap" and profile is None:
                    raise decision.as_error()
                in_pieces = _in_pieces(job, header, decision)
                if decision.action != "remap":
                    check(header, self._memory, in_pieces=in_pieces)
                if waiting + working(header) + kept(header, in_pieces=in_pieces) > self._memory:
                    self._mark_batches(jobs, batches, results)
                    waiting = BASE
                if profile is not None and in_pieces:
                    results[index] = self._mark_large(job, profile)
                    continue
                data = parts.data if parts else read_original(job)
                if profile is None:  # its references are mapped
                    body = pack_referring(data, job.transfer_syntax_uid) if _carries(job) else None
                    facts_of = partial(self._facts, job.route, body)
                    results[index] = Remapped(data, job.transfer_syntax_uid, facts_of, parts)
                    continue
                opened = open_original(data, job.transfer_syntax_uid, parts)
                settings = self._settings(job.route)
                key, textures = self._series_key(job), self._textures
                member = member_of(index, job, opened, profile, settings, key, textures)
            except Exception as error:
                results[index] = error
                continue
            batches.setdefault((profile.name, settings), []).append(member)
            waiting += kept(header, in_pieces=False)
        self._mark_batches(jobs, batches, results)
        return [results[index] for index in range(len(jobs))]

    def _mark_batches(self, jobs: Sequence[MarkJob], batches: _Batches, results: _Results) -> None:
        """Mark what was gathered, put it into `results` and forget it. An error of one object is that one's alone."""
        for (profile_name, settings), members in batches.items():
            try:
                frames = mark_together(self._marker(settings), members, self._profiles[profile_name])
            except Exception as error:
                if len(members) == 1:
                    results[members[0].index] = error
                for member in members if len(members) > 1 else ():
                    self._mark_batches(jobs, {(profile_name, settings): [member]}, results)
                continue
            for member in members:
                own, frames = frames[: len(member.requests)], frames[len(member.requests) :]
                try:
                    results[member.index] = self._marked(jobs[member.index], member, own, profile_name)
                except Exception as error:
                    results[member.index] = error
        batches.clear()

    def warnings(self) -> list[str]:
        """Licence warnings of the surrogate packs that the routes use; to be logged at start."""
        found: dict[str, None] = {}
        for route in self._config.routes:
            if route.action == "mark":
                marker = self._marker(self._settings(route))
                for profile in self._profiles.values():
                    found.update(dict.fromkeys(marker.licence_warnings(profile)))
        return list(found)

    def _mark_large(self, job: MarkJob, profile: ModalityProfile) -> LargeMarked:
        marker, facts_of = self._marker(self._settings(job.route)), partial(self._facts, job.route, None)
        return mark_large(job, profile, self._series_key(job), marker, facts_of, self._scratch)

    def _series_key(self, job: MarkJob) -> bytes:
        return mark_seed(self._keys.mark_key, job.record.original_series_uid)

    def _marked(
        self, job: MarkJob, member: Member, results: Sequence[MarkedImage | GatewayError], profile: str
    ) -> Marked:
        opened = member.opened
        frames = marked_frames(opened, results)
        first = results[0]
        kept = first.texture if isinstance(first, MarkedImage) and not first.has_begun else None
        tally = FigureTally()
        tally.add(result for result in results if not isinstance(result, GatewayError))
        body = None
        if _carries(job):
            body = pack(opened.data, job.transfer_syntax_uid, opened.pixels, frames, opened.parts)
        return Marked(
            original=opened.data,
            transfer_syntax_uid=job.transfer_syntax_uid,
            pixels=opened.pixels,
            frames=frames,
            facts_of=described(partial(self._facts, job.route, body), tally),
            figures=tally.figures(job.route, profile),
            parts=opened.parts,
            begun_from=member.begun_from(first),
            place=member.place,
            texture=kept if member.place is not None else None,
        )

    def _facts(self, route: Route, body: bytes | None, record: VaultRecord) -> DerivationFacts:
        """Everything in the derived header that is not the original's.

        The same record gives the same facts, but for `body`, what the copy carries: it is sealed afresh each time; and
        references name the copies that are the newest now (`CopyNames`).
        """
        site = self._config.site
        derive, has_new_study = partial(derived_uid, self._keys.uid_key), bool(record.derived_study_uid)
        name = in_new_study if has_new_study else str
        copies = CopyNames(self._engine, record.study_uid, has_new_study=has_new_study)
        sealed_key = payload = None
        if body is not None:
            sealed_key, payload = seal_carried(body, record, self._keys.restore_public, self._keys.signer)
        return DerivationFacts(
            derived_sop_uid=record.derived_sop_uid,
            derived_series_uid=record.derived_series_uid,
            created_at=datetime.fromtimestamp(record.created_at, UTC),
            manufacturer=site.manufacturer,
            institution=site.institution,
            device_serial=site.name,
            software_version=__version__,
            description=describe({route.mark.tier: 1}),
            source_reference=route.source_reference,
            token=record.token,
            hint=site.contact,
            map_uid=lambda uid: copies.newest(uid) or derive("instance", name(uid), 1),  # not here yet: its first copy
            map_series=lambda uid: derive("series", name(uid)),
            derived_study_uid=record.derived_study_uid,
            map_study=partial(derive, "study") if has_new_study else None,
            sealed_key=sealed_key,
            payload=payload,
            visible_text=route.visible_text,
            ride_along=ride_along(route),
        )

    def region_of_interest(self, request: MarkRequest, profile: ModalityProfile, route: Route) -> np.ndarray | None:
        """Where a mark of this image on this route leaves the anatomy as it is, as `Marker.region_of_interest`."""
        return self._marker(self._settings(route)).region_of_interest(request, profile)

    def _settings(self, route: Route) -> MarkSettings:
        return MarkSettings(device=self._config.worker.device, **route.mark.model_dump(exclude_none=True))

    def _marker(self, settings: MarkSettings) -> Marker:
        if settings not in self._markers:
            self._markers[settings] = Marker(settings, self._packs)
        return self._markers[settings]


def _parts_of(job: MarkJob) -> Parts | None:
    """The original in memory, checked and cut into its parts: its header is walked this once.

    None for what may be worked in pieces, and for what takes more memory as soon as it is inflated.
    """
    if job.record.original_size > LARGE_BYTES or syntax_of(job.transfer_syntax_uid).deflated:
        return None
    return split(read_original(job), job.transfer_syntax_uid, without_pixels=True)


def _in_pieces(job: MarkJob, header: InstanceHeader, decision: Decision) -> bool:
    """Whether an image is too large to be worked as a whole, and can be read in pieces."""
    whole = _carries(job) or decision.action == "remap" or syntax_of(job.transfer_syntax_uid).deflated
    return not whole and is_large(job, header)


def _carries(job: MarkJob) -> bool:
    """Whether the copy carries its original, by its route or since the vault has none, whatever the route says now."""
    return job.record.is_carried or job.route.restoration != "escrow"
