"""What becomes of one object on one route: `mark | remap | hold | block | pass`. Nothing falls through to "as it is".

The defaults stand in `gateway.protect.policy_table`. A route may pass or hold everything, give up a hazard in so many
words (`[routes.opt_in]`), and override the table by rules, which can only choose what is safe for the kind of object.
Passing is never a default: the route says it in so many words, and in an emergency (break-glass) until when.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway.config.models import Route
from gateway.config.passing import BREAK_GLASS_HOURS
from gateway.config.private_elements import PrivateElements
from gateway.dicom.copy.bulk import RideAlong
from gateway.dicom.copy.references import is_signed
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.groups import has_groups
from gateway.dicom.encoding.normal_form import duplicates
from gateway.errors import HoldError
from gateway.mark import ImageTraits, ModalityProfile, choose_profile
from gateway.protect.policy_table import (
    HAZARDS,
    INTENT_HAZARDS,
    MAY_HOLD_PIXELS,
    MODALITY_HAZARDS,
    REMAP_BY_RULE,
    SIGNED_IS_HELD,
    TABLE,
    Row,
)
from gateway.protect.rules import UNKNOWN, Arrival, first_that_fits

_UNLISTED = Row("block")


@dataclass(frozen=True)
class Decision:
    """What happens to one instance on one route.

    rule is the place of the rule that decided, counted from 0; None: the policy table, or the route as a whole.
    profile is set when action is "mark"; code and reason when it is "hold" or "block". Both end as held, shown to a
    person; what is blocked is blocked again when it is released, for as long as the policy stands. What may "pass" goes
    only to destinations that the site names trusted: whoever sends it sees to that.
    """

    action: Literal["mark", "remap", "hold", "block", "pass"]
    profile: ModalityProfile | None = None
    code: str = ""
    reason: str = ""
    rule: int | None = field(default=None, compare=False)

    def as_error(self) -> HoldError:
        """The hold or block as an error, to be shown and stored."""
        if not self.code:
            return HoldError("decision-changed", f"the policy now says {self.action}", "release it to start it again")
        return HoldError(self.code, self.reason)


def decide(
    header: InstanceHeader,
    route: Route,
    profiles: Mapping[str, ModalityProfile],
    now: float | None = None,
    arrival: Arrival = UNKNOWN,
) -> Decision:
    """Decide from the header alone; the pixels may still turn out to be unmarkable.

    Parameters
    ----------
    now
        Seconds since 1970, for a pass that ends; default: the present.
    arrival
        How it came, for rules that ask.

    Raises
    ------
    DicomError
        "undecodable-header": a report whose signatures cannot be looked for.
    """
    if route.action == "hold":
        return Decision("hold", code="route-holds", reason=f"route {route.name} holds everything for a person")
    if header.conflicts:  # whatever rule would fit: it may have been read from the wrong one of two values
        error = duplicates(header.conflicts)
        return Decision("hold", code=error.code, reason=str(error))
    index = first_that_fits(route, header, arrival)
    return replace(_decide(header, route, profiles, now, index), rule=index)


def _decide(
    header: InstanceHeader,
    route: Route,
    profiles: Mapping[str, ModalityProfile],
    now: float | None,
    index: int | None,
) -> Decision:
    """By the rule at this place, or by the table where there is none."""
    row = TABLE.get(header.sop_class_uid, _UNLISTED)
    rule = None if index is None else route.rules[index]
    if (rule.action if rule else route.action) == "pass":
        return decide_pass(route, now)
    if rule is not None and rule.action == "block":
        return Decision(
            "block", code="blocked-by-rule", reason=f"a rule of route {route.name} blocks this kind of object"
        )
    if rule is not None and rule.action == "hold":
        return Decision("hold", code="rule-holds", reason=f"a rule of route {route.name} holds this kind of object")
    action = row.action
    if rule is not None and rule.action != action:
        if rule.action != "remap" or header.sop_class_uid not in REMAP_BY_RULE:
            reason = f"a rule of route {route.name} asks for {rule.action}, which this SOP class does not allow"
            return Decision("hold", code="rule-does-not-fit", reason=reason)
        action = "remap"
    if action == "block":
        return Decision("block", code="blocked-by-policy", reason="this SOP class never leaves unless a rule says how")
    if action == "remap":
        return _decide_remap(header)
    return _decide_mark(header, row, route, profiles)


def decide_pass(route: Route, now: float | None = None) -> Decision:
    """Of what the route lets pass: whether it still does at `now` (seconds since 1970; default: the present)."""
    state = route.break_glass.state(time.time() if now is None else now) if route.break_glass else "open"
    if state == "ended":
        return Decision("hold", code="pass-expired", reason=f"the emergency pass of route {route.name} has ended")
    if state == "too-long":
        reason = f"the emergency pass of route {route.name} would last more than {BREAK_GLASS_HOURS} hours"
        return Decision("hold", code="pass-too-long", reason=reason)
    return Decision("pass")


def _decide_remap(header: InstanceHeader) -> Decision:
    if header.sop_class_uid.startswith(SIGNED_IS_HELD) and is_signed(header.dataset):
        return Decision("hold", code="signed", reason="it is digitally signed; mapping its references would break that")
    if header.has_pixel_data and header.sop_class_uid not in MAY_HOLD_PIXELS:  # they would leave without a mark
        reason = "it holds pixel data, which objects of this SOP class do not have"
        return Decision("hold", code="unexpected-pixels", reason=reason)
    return Decision("remap")


def _decide_mark(header: InstanceHeader, row: Row, route: Route, profiles: Mapping[str, ModalityProfile]) -> Decision:
    further = (MODALITY_HAZARDS.get(header.modality), INTENT_HAZARDS.get(header.presentation_intent))
    for name in (*row.hazards, *filter(None, further)):
        hazard = HAZARDS[name]
        if not (hazard.opt_in and getattr(route.opt_in, hazard.opt_in)):
            return Decision("hold", code=name, reason=hazard.reason)
    if not header.has_pixel_data:
        return Decision("hold", code="no-pixels", reason="an image object without pixel data")
    if row.enhanced and not has_groups(header.dataset):
        reason = "an enhanced image without per-frame functional groups: nothing says what its values mean"
        return Decision("hold", code="missing-functional-groups", reason=reason)
    profile = choose_profile(traits_of(header), profiles)
    if profile is None:
        return Decision("hold", code="no-profile", reason="no modality profile takes this kind of image")
    return Decision("mark", profile=profile)


LATER = {"word": "COPY", "without_air": None, "key_slices": True}
"""Keys of a mark that came later, and what they are where nobody chose."""


def policy_digest(decision: Decision, route: Route) -> str:
    """SHA-256 of everything decided that shapes the derived bytes; two decisions with one digest give one copy."""
    mark = route.mark.model_dump(mode="json")
    for name, default in LATER.items():  # left out: digests of records made before there was a choice stay
        if mark[name] == default:
            del mark[name]
    shaping = {
        "action": decision.action,
        "profile": decision.profile.name if decision.profile else None,
        "mark": mark if decision.action == "mark" else None,
        "source_reference": route.source_reference,
    }
    if route.restoration != "escrow":  # as above
        shaping["restoration"] = route.restoration
    if route.visible_text and decision.action == "mark":  # as above
        shaping["visible_text"] = True
    private = {name: getattr(route, name) for name in PrivateElements.model_fields}
    if private != PrivateElements().model_dump():  # as above
        shaping["private"] = private
    if has_new_study(decision, route):  # as above
        shaping["study_uid"] = route.study_uid
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def ride_along(route: Route) -> RideAlong:
    """What the route says of private elements, as the derivation takes it."""
    return RideAlong(
        private=route.private_bulk,
        value_bytes=route.private_value_bytes,
        block_bytes=route.private_block_bytes,
        keep=frozenset(route.private_keep),
    )


def has_new_study(decision: Decision, route: Route) -> bool:
    """Whether the copy gets a Study Instance UID of its own."""
    return route.study_uid == "new" and decision.action in ("mark", "remap")


def traits_of(header: InstanceHeader) -> ImageTraits:
    """The header as modality profiles see it."""
    return ImageTraits(
        modality=header.modality,
        sop_class_uid=header.sop_class_uid,
        photometric=header.photometric,
        samples=header.samples,
        bits_stored=header.bits_stored,
        signed=header.signed,
        body_part=header.body_part,
    )
