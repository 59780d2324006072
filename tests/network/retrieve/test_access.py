"""Who gets in, decided without a network."""

from __future__ import annotations

import pytest

from gateway.config.models import Workstation
from gateway.network.binding import is_bound, kind_of_name
from gateway.network.callers import (
    ADDRESS_NOT_LISTED,
    CALLING_AE_UNKNOWN,
    CERTIFICATE_NOT_BOUND,
    PLAIN_NOT_ALLOWED,
    Caller,
)
from gateway.network.retrieve.access import decide, in_scope
from gateway.network.tls import PeerCertificate

KEY = "ab" * 32
OTHER_KEY = "cd" * 32


def caller(
    calling_ae: str = "READING1", address: str = "10.1.2.3", certificate: PeerCertificate | None = None
) -> Caller:
    return Caller("0123456789abcdef", calling_ae, "MIAD_RESTORE", address, 40000, certificate)


def certificate(key: str = KEY, *names: str) -> PeerCertificate:
    return PeerCertificate(key, tuple(kind_of_name(name) for name in names), b"")


BY_KEY = Workstation(ae_title="READING1", addresses=("10.1.2.0/24",), key_sha256=(KEY,))
BY_NAME = Workstation(ae_title="READING2", addresses=("10.1.2.4",), san=("Reading2.Hospital.example", "urn:uuid:7"))
PLAIN = Workstation(ae_title="OLD1", addresses=("10.9.9.9",), plain=True)
ALL = (BY_KEY, BY_NAME, PLAIN)


def test_the_right_certificate_from_a_listed_address_gets_in():
    assert decide(ALL, caller(certificate=certificate()), over_tls=True) is BY_KEY


@pytest.mark.parametrize("name", ["reading2.hospital.example", "urn:uuid:7"])
def test_a_subject_alternative_name_binds(name):
    who = caller("READING2", "10.1.2.4", certificate(OTHER_KEY, "something.else", name))
    assert decide(ALL, who, over_tls=True) is BY_NAME


@pytest.mark.parametrize(
    ("who", "over_tls", "reason"),
    [
        (caller("STRANGER", certificate=certificate()), True, CALLING_AE_UNKNOWN),
        (caller("reading1", certificate=certificate()), True, CALLING_AE_UNKNOWN),  # AE titles are case sensitive
        (caller(address="10.1.3.3", certificate=certificate()), True, ADDRESS_NOT_LISTED),
        (caller(certificate=certificate(OTHER_KEY)), True, CERTIFICATE_NOT_BOUND),
        (caller("READING2", "10.1.2.4", certificate(KEY, "evil.example")), True, CERTIFICATE_NOT_BOUND),
        (caller(certificate=None), True, CERTIFICATE_NOT_BOUND),
        (caller(certificate=None), False, PLAIN_NOT_ALLOWED),
        (caller("OLD1", "10.9.9.8"), False, ADDRESS_NOT_LISTED),
        (caller("OLD1", "10.9.9.9", certificate()), True, CERTIFICATE_NOT_BOUND),  # plain is no reason for TLS
    ],
)
def test_everyone_else_stays_out(who, over_tls, reason):
    assert decide(ALL, who, over_tls=over_tls) == reason


def test_a_plain_workstation_gets_in_on_the_plain_port():
    assert decide(ALL, caller("OLD1", "10.9.9.9"), over_tls=False) is PLAIN


def test_of_two_entries_of_one_title_the_fitting_one_counts():
    second = BY_KEY.model_copy(update={"addresses": ("192.168.0.1",), "key_sha256": (OTHER_KEY,)})
    who = caller(address="192.168.0.1", certificate=certificate(OTHER_KEY))
    assert decide((BY_KEY, second), who, over_tls=True) is second
    assert decide((BY_KEY, second), caller(certificate=certificate(OTHER_KEY)), over_tls=True) == CERTIFICATE_NOT_BOUND


def test_a_wildcard_in_a_certificate_binds_nothing():
    assert not is_bound(BY_NAME, certificate(OTHER_KEY, "*.hospital.example"))
    assert not is_bound(PLAIN, certificate())


def test_scope():
    assert in_scope(BY_KEY, "1.2.3")
    listed = BY_KEY.model_copy(update={"studies": ("1.2.3",)})
    assert in_scope(listed, "1.2.3")
    assert not in_scope(listed, "1.2.33")
