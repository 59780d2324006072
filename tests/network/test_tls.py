"""Trust as sites keep it, names by their kind, bound peers, and destinations whose certificate is not good."""

from __future__ import annotations

import datetime
import ipaddress
import logging
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway.audit import events
from gateway.config.models import Destination, Ingress, Peer, Tls
from gateway.errors import ConfigError, PermanentError, TransientError
from gateway.network.binding import is_bound, kind_of_name
from gateway.network.egress import Egress
from gateway.network.scu import CERTIFICATE_FAILURES, ScuAssociation
from gateway.network.tls import PeerCertificate, certificate_facts, client_context, server_context
from tests.network.test_ingress import called, until
from tests.support.network import peers, raw
from tests.support.network.certificates import Authority
from tests.support.network.samples import CT, EXPLICIT, ct, outgoing


class Chain:
    """A root, an intermediate authority under it, and leaves under that; each as a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._root_key, self._middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = self._make("root", self._root_key, "root", self._root_key, authority=True)
        self.middle = self._make("middle", self._middle_key, "root", self._root_key, authority=True)

    def leaf(self, name: str, trust: Path, names: list[x509.GeneralName] | None = None) -> Tls:
        key = ec.generate_private_key(ec.SECP256R1())
        default: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        path = self._make(name, key, "middle", self._middle_key, names=names or default)
        key_path = self.folder / f"{name}.key"
        key_path.touch(mode=0o600)
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Tls(certificate=path, private_key=key_path, trust=trust)

    def _make(self, name, key, issuer, issuer_key, *, authority=False, names=()) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        path = self.folder / f"{name}.pem"
        path.write_bytes(builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path


@pytest.fixture
def chain(tmp_path) -> Chain:
    return Chain(tmp_path / "chain")


def der(path: Path, to: Path) -> Path:
    to.write_bytes(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER))
    return to


@pytest.mark.parametrize("trusted", ["root and middle", "middle alone", "leaf alone"])
@pytest.mark.parametrize("form", ["PEM .pem", "DER .cer", "DER .der", "PEM .cer"])
@pytest.mark.parametrize("folder", [True, False])
def test_what_lies_in_the_trust_is_trusted(start_ingress, authority, chain, tmp_path, trusted, form, folder):
    """On the side that listens and on the side that calls; the peers send their own certificate alone."""
    if trusted == "root and middle" and not folder:
        form = "PEM .pem"  # a DER file holds one certificate
    trust = tmp_path / "trust"
    trust.mkdir()
    theirs = chain.leaf("archive", authority.trust)
    wanted = {"root and middle": [chain.root, chain.middle], "middle alone": [chain.middle]}.get(
        trusted, [theirs.certificate]
    )
    suffix = form.split()[1]
    paths = [trust / f"{number}{suffix}" for number in range(len(wanted))]
    for path, to in zip(wanted, paths, strict=True):
        der(path, to) if form.startswith("DER") else to.write_bytes(path.read_bytes())
    if not folder:
        paths[0].write_bytes(b"".join(path.read_bytes() for path in paths))
    ours = authority.issue("gateway", trust=trust if folder else paths[0])
    ingress = start_ingress(tls=ours)
    ScuAssociation(called(ingress, tls=client_context(theirs)), [(CT, EXPLICIT)]).release()
    stranger = Chain(tmp_path / "strangers").leaf("archive", authority.trust)
    with pytest.raises(TransientError) as caught:
        ScuAssociation(called(ingress, tls=client_context(stranger)), [(CT, EXPLICIT)])
    assert caught.value.code == "certificate-refused"


def test_another_leaf_of_the_same_authority_is_not_trusted_where_one_leaf_is(start_ingress, authority, chain):
    first, second = (chain.leaf(name, authority.trust) for name in ("first", "second"))
    ingress = start_ingress(tls=authority.issue("gateway", trust=first.certificate))
    ScuAssociation(called(ingress, tls=client_context(first)), [(CT, EXPLICIT)]).release()
    with pytest.raises(TransientError):
        ScuAssociation(called(ingress, tls=client_context(second)), [(CT, EXPLICIT)])


def test_a_file_that_is_no_certificate_is_told_in_one_line_and_left_out(authority, tmp_path, caplog):
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "a.cer").write_bytes(b"\x00\x01 no certificate")
    (trust / "b.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (trust / "c.pem").write_bytes(authority.trust.read_bytes())
    (trust / "readme.txt").write_bytes(b"not looked at")
    with caplog.at_level(logging.WARNING):
        server_context(authority.issue("gateway", trust=trust))
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.network.tls"]
    assert len(told) == 2 and "a.cer" in told[0] and "b.pem" in told[1]
    (trust / "c.pem").unlink()
    with pytest.raises(ConfigError) as caught:
        server_context(authority.issue("gateway", trust=trust))
    assert caught.value.code == "tls-file-unusable" and str(trust) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\x30\x82\x01\x01 rubbish", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_trust_file_that_is_no_certificate_stops_the_start_with_one_line(authority, tmp_path, content):
    path = tmp_path / "ca.cer"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        client_context(authority.issue("gateway", trust=path))
    assert caught.value.code == "tls-file-unusable" and "ca.cer" in caught.value.message
    assert "\n" not in str(caught.value)


# --- names by their kind ----------------------------------------------------------------------------------------------


class Entry:
    def __init__(self, *san: str) -> None:
        self.san, self.key_sha256 = san, ()


@pytest.mark.parametrize(
    ("entry", "kind", "name"),
    [
        ("Archive.Example", "DNS", "archive.example"),
        ("10.0.0.1", "IP", "10.0.0.1"),
        ("FE80:0::1", "IP", "fe80::1"),
        ("urn:uuid:7", "URI", "urn:uuid:7"),
        ("dicom:reading1", "URI", "dicom:reading1"),
        ("https://archive.example/", "URI", "https://archive.example/"),
        ("URI:archive.example", "URI", "archive.example"),
        ("DNS:10.0.0.1", "DNS", "10.0.0.1"),
        ("IP:::1", "IP", "::1"),
    ],
)
def test_an_entry_is_of_one_kind(entry, kind, name):
    assert kind_of_name(entry) == (kind, name)
    for other in {"DNS", "URI", "IP"} - {kind}:
        assert not is_bound(Entry(entry), PeerCertificate("", ((other, name),), b""))
    assert is_bound(Entry(entry), PeerCertificate("", ((kind, name),), b""))


@pytest.mark.parametrize("entry", ["", "DNS:", "URI:", "IP:", "IP:nonsense"])
def test_an_entry_without_a_name_binds_nobody(entry):
    """A placeholder that was never filled must not let in who has a certificate with an empty name."""
    empty = (("DNS", ""), ("URI", ""), ("IP", ""))
    assert not is_bound(Entry(entry), PeerCertificate("", empty, b""))


def test_a_uri_named_like_a_dns_name_binds_nothing(start_ingress, authority, chain, audit):
    """A partner's authority lets anybody put a URI into a certificate: that is no host's name."""
    forged = chain.leaf("forged", authority.trust, [x509.UniformResourceIdentifier("archive.example")])
    good = chain.leaf("good", authority.trust, [x509.DNSName("archive.example")])
    assert certificate_facts(_der(forged)).typed_names == (("URI", "archive.example"),)
    bound = (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), san=("archive.example",)),)
    ingress = start_ingress(peers=bound, tls=authority.issue("gateway", trust=chain.middle))
    ScuAssociation(called(ingress, tls=client_context(good)), [(CT, EXPLICIT)]).release()
    with pytest.raises(PermanentError) as caught:
        ScuAssociation(called(ingress, tls=client_context(forged)), [(CT, EXPLICIT)])
    assert caught.value.code == "association-rejected"
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "certificate-not-bound-to-ae"


def _der(tls: Tls) -> bytes:
    return x509.load_pem_x509_certificate(tls.certificate.read_bytes()).public_bytes(Encoding.DER)


# --- peers of the ingress bound to certificates -----------------------------------------------------------------------


def test_a_bound_peer_is_known_by_its_key_and_nobody_else_is_it(start_ingress, authority, audit):
    archive, modality = authority.issue("archive"), authority.issue("modality")
    listed = (
        Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), key_sha256=(certificate_facts(_der(archive)).key_sha256,)),
        Peer(ae_title="MODALITY", addresses=("127.0.0.1",)),
    )
    ingress = start_ingress(peers=listed, tls=authority.issue("gateway"))
    ScuAssociation(called(ingress, tls=client_context(archive)), [(CT, EXPLICIT)]).release()
    for own in (archive, modality):
        unbound = called(ingress, tls=client_context(own), calling_ae="MODALITY")
        ScuAssociation(unbound, [(CT, EXPLICIT)]).release()
    with pytest.raises(PermanentError):
        ScuAssociation(called(ingress, tls=client_context(modality)), [(CT, EXPLICIT)])
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    (line,) = audit.lines(events.ASSOCIATION_REFUSED)
    assert (line["reason"], line["calling_ae"]) == ("certificate-not-bound-to-ae", "ARCHIVE")
    assert line["key_sha256"] == certificate_facts(_der(modality)).key_sha256


def test_one_title_may_be_bound_at_one_address_and_not_at_another(start_ingress, authority, audit):
    listed = (
        Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), san=("nobody.example",)),
        Peer(ae_title="ARCHIVE", addresses=("127.0.0.2",)),
    )
    ingress = start_ingress(peers=listed, tls=authority.issue("gateway"))
    with pytest.raises(PermanentError):
        ScuAssociation(called(ingress, tls=client_context(authority.issue("archive"))), [(CT, EXPLICIT)])
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "certificate-not-bound-to-ae"


@pytest.mark.parametrize("binding", [{"san": ("archive.example",)}, {"key_sha256": ("ab" * 32,)}])
def test_a_bound_peer_without_tls_is_an_error_of_the_configuration(binding):
    with pytest.raises(ValueError, match=r"no \[ingress.tls\] table"):
        Ingress(peers=(Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), **binding),))


@pytest.mark.peers
def test_dcmtk_as_a_bound_archive(start_ingress, authority):
    archive, other = authority.issue("archive"), authority.issue("other")
    listed = (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), san=("dicom:archive",)),)
    ingress = start_ingress(peers=listed, tls=authority.issue("gateway"))
    for own, code in ((archive, 0), (other, 1)):
        options = ("+tls", own.private_key, own.certificate, "+cf", own.trust, "-aet", "ARCHIVE", "-aec", "GATEWAY")
        assert (peers.run("echoscu", *options, "127.0.0.1", ingress.port).returncode != 0) == code


# --- destinations whose certificate is not good, or that do not like ours ---------------------------------------------


@pytest.mark.parametrize("fault", ["another authority", "expired", "another host", "refuses ours", "refuses ours, 1.2"])
def test_a_bad_certificate_never_gets_a_byte_and_may_be_mended(authority, tmp_path, audit, fault):
    """Retried as a destination that is away: a certificate that ran out overnight must not hold a day's images."""
    taken: list[object] = []
    served = raw.acceptor(raw.associate(0x02), lambda rq: taken.append(rq) or raw.data(1, 3, raw.store_rsp(rq)))
    strangers = Authority(tmp_path / "strangers")
    theirs = {
        "another authority": strangers.issue("outside", trust=authority.trust),
        "expired": authority.issue("outside", expired=True),
        "another host": Chain(tmp_path / "c").leaf("elsewhere", authority.trust, [x509.DNSName("elsewhere")]),
    }.get(fault) or authority.issue("outside", trust=strangers.trust)
    ours = authority.issue("gateway")
    if fault == "another host":
        ours = authority.issue("gateway", trust=tmp_path / "c" / "middle.pem")
    listening = server_context(theirs)
    if fault.endswith("1.2"):
        listening.maximum_version = listening.minimum_version
    uid, data = ct()
    with raw.scripted_scp(served, listening) as port:
        outside = Destination(
            name="outside", type="research", ae_title="OUTSIDE", host="127.0.0.1", port=port, tls=ours
        )
        egress = Egress([outside], audit)
        for _ in range(2):
            with pytest.raises(TransientError) as caught:
                egress.send("outside", outgoing(data, uid))
            assert caught.value.code == ("certificate-refused" if "ours" in fault else "certificate-not-trusted")
            assert caught.value.code in CERTIFICATE_FAILURES and caught.value.hint
            assert not caught.value.about_instance
        egress.close()
    assert taken == []
    (line,) = audit.lines(events.DELIVERY)
    assert (line["outcome"], line["reason"]) == ("failure", caught.value.code)


# --- revocation lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pem", "der", "folder"])
def test_who_is_on_the_authority_s_list_does_not_get_in(start_ingress, authority, audit, tmp_path, form):
    archive, taken = authority.issue("archive"), authority.issue("taken")
    listed = authority.revoke(taken)
    if form == "der":
        listed.write_bytes(x509.load_pem_x509_crl(listed.read_bytes()).public_bytes(Encoding.DER))
    if form == "folder":
        other = Authority(tmp_path / "other", "another CA").revoke()
        (tmp_path / "lists").mkdir()
        for number, one in enumerate((other, listed)):
            (tmp_path / "lists" / f"{number}.crl").write_bytes(one.read_bytes())
        listed = tmp_path / "lists"
    ingress = start_ingress(tls=authority.issue("gateway").model_copy(update={"crl": listed}))
    ScuAssociation(called(ingress, tls=client_context(archive)), [(CT, EXPLICIT)]).release()
    with pytest.raises(TransientError):
        ScuAssociation(called(ingress, tls=client_context(taken)), [(CT, EXPLICIT)])
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    assert audit.lines(events.NODE_REFUSED)[0]["reason"] == "tls-certificate-not-trusted"


@pytest.mark.parametrize("state", ["ended", "of another authority"])
def test_without_a_valid_list_of_its_authority_nobody_gets_in(start_ingress, authority, tmp_path, state):
    listed = authority.revoke(ended=True) if state == "ended" else Authority(tmp_path / "other", "another CA").revoke()
    ingress = start_ingress(tls=authority.issue("gateway").model_copy(update={"crl": listed}))
    with pytest.raises(TransientError):
        ScuAssociation(called(ingress, tls=client_context(authority.issue("archive"))), [(CT, EXPLICIT)])


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None])
def test_a_list_that_cannot_be_read_is_an_error_and_not_an_empty_one(authority, tmp_path, content):
    place = tmp_path / "lists"
    place.mkdir()
    if content is not None:
        (place / "one.crl").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        server_context(authority.issue("gateway").model_copy(update={"crl": place}))
    assert str(place) in caught.value.message
