"""The keys of a route about private elements, their sentence, and the rule in words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.config.models import Route
from gateway.config.private_elements import PRIVATE_STATEMENT
from gateway.dicom.copy.bulk import RideAlong, in_words
from gateway.protect.policy import Decision, policy_digest, ride_along


def route(**keys: object) -> Route:
    return Route(name="research", called_ae="RESEARCH", destinations=("outside",), **keys)


def test_the_default_is_the_safe_one():
    assert ride_along(route()) == RideAlong() == RideAlong("drop", 1024, 65536, frozenset())


def test_keeping_everything_wants_its_own_sentence():
    with pytest.raises(ValidationError, match=PRIVATE_STATEMENT):
        route(private_bulk="keep")
    with pytest.raises(ValidationError, match="it must read"):
        route(private_statement="yes")
    assert ride_along(route(private_bulk="keep", private_statement=PRIVATE_STATEMENT)).private == "keep"


@pytest.mark.parametrize("key", ["private_value_bytes", "private_block_bytes"])
def test_limits_cannot_be_raised_to_everything(key):
    with pytest.raises(ValidationError):
        route(**{key: 1 << 30})


def test_what_shapes_the_copy_is_in_the_policy_digest_and_the_default_changes_no_digest():
    mark = Decision("mark")
    plain = policy_digest(mark, route())
    assert plain == policy_digest(mark, route(private_bulk="drop", private_keep=()))
    others = [
        route(private_bulk="hold"),
        route(private_keep=("SIEMENS CSA HEADER",)),
        route(private_value_bytes=100),
        route(private_block_bytes=100),
    ]
    assert len({plain, *(policy_digest(mark, other) for other in others)}) == 5


def test_the_rule_in_words():
    assert "at most 1024 bytes and 65536" in in_words(RideAlong())
    assert "all of A, B; larger ones are left out" in in_words(RideAlong(keep=frozenset({"B", "A"})))
    assert "is held" in in_words(RideAlong("hold"))
    assert "any size" in in_words(RideAlong("keep"))
