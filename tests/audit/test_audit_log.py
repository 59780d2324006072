"""The audit trail: lines that last, several writers, and nothing of a patient."""

import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from gateway.audit import EVENTS, OUTCOMES, AuditLog, Line, events


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_the_event_its_codes_and_the_fields(tmp_path):
    path = tmp_path / "new" / "audit.jsonl"
    AuditLog(path).write(
        events.ASSOCIATION_REFUSED,
        "refused",
        calling_ae="STRANGER",
        peer_address="10.0.0.9",
        reason="calling-ae-unknown",
    )
    (line,) = lines(path)
    assert line["event"] == "association-refused"
    assert (line["event_id"], line["event_type"]) == ("110113", "110126")
    assert (line["outcome"], line["outcome_code"]) == ("refused", 8)
    assert line["calling_ae"] == "STRANGER" and line["reason"] == "calling-ae-unknown"
    assert line["time"].endswith("+00:00")


def test_the_file_is_for_its_owner_only_and_only_grows(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).write(events.SERVICE_START, "success", role="ingress")
    AuditLog(path).write(events.SERVICE_STOP, "success", role="ingress")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["event"] for line in lines(path)] == ["service-start", "service-stop"]


@pytest.mark.parametrize("field", ["patient_name", "message", "comment", "sop_instance_uid_"])
def test_fields_outside_the_list_are_refused(tmp_path, field):
    path = tmp_path / "audit.jsonl"
    with pytest.raises(ValueError, match=field):
        AuditLog(path).write(events.QUERY, "success", **{field: "DOE^JANE"})
    assert not path.exists()


def test_unknown_events_and_outcomes_are_refused(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(ValueError):
        log.write("something", "success")
    with pytest.raises(ValueError):
        log.write(events.QUERY, "maybe")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sop_instance_uid", "DOE^JANE"),
        ("study_uid", ["1.2.3", "19700101 DOE"]),
        ("calling_ae", "A TITLE MUCH TOO LONG: DOE^JANE"),
        ("reason", "the name was DOE^JANE"),
        ("query_keys", ["PatientName", "DOE^JANE"]),
        ("count", "DOE^JANE"),
        ("status", "DOE^JANE"),
        ("statuses", {0: "DOE^JANE"}),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_not_written(tmp_path, field, value):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).write(events.INSTANCE_REFUSED, "failure", **{field: value})
    assert "DOE" not in path.read_text()
    assert "(malformed)" in json.dumps(lines(path)[0][field])


def test_statuses_are_written_as_hexadecimal(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).write(events.ASSOCIATION_CLOSED, "success", status=0xA700, statuses={0: 3, 0xB007: 1}, warning=None)
    (line,) = lines(path)
    assert line["status"] == "0xA700" and line["statuses"] == {"0x0000": 3, "0xB007": 1} and "warning" not in line


def test_a_rotated_file_is_left_alone(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write(events.SERVICE_START, "success")
    os.rename(path, tmp_path / "audit.1")
    log.write(events.SERVICE_STOP, "success")
    assert [line["event"] for line in lines(path)] == ["service-stop"]
    assert [line["event"] for line in lines(tmp_path / "audit.1")] == ["service-start"]


def test_a_note_is_there_at_once_and_flushed_with_the_next_line(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    audit = AuditLog(tmp_path / "audit.jsonl")
    audit.write(events.RESTORE_INTENDED, "success")
    assert len(flushed) == 1
    for _ in range(3):
        audit.note(events.ORIGINAL_RESTORED, "success")
    assert len(flushed) == 1
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 4
    audit.write(events.RETRIEVE, "success")
    assert len(flushed) == 2
    audit.note(events.ORIGINAL_RESTORED, "success")
    audit._flushed_at -= 2  # two seconds later
    audit.note(events.ORIGINAL_RESTORED, "success")
    assert len(flushed) == 3
    audit.note(events.ORIGINAL_RESTORED, "success")
    audit.flush()
    audit.flush()  # nothing is left
    assert len(flushed) == 4


class FailingDisk:
    """Takes what is written, and no flush while `fails`; `flushed` is what the file held at the last good one."""

    def __init__(self, monkeypatch) -> None:
        self.fails, self.flushed = False, b""
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            self.flushed = file.read()


@pytest.mark.parametrize("by", ["flush", "write", "close"])
def test_what_was_noted_before_a_flush_that_failed_is_written_again_before_the_next(tmp_path, monkeypatch, by):
    """The kernel has dropped what it could not write: a second flush alone may succeed and lie."""
    audit, disk = AuditLog(tmp_path / "audit.jsonl"), FailingDisk(monkeypatch)
    audit.write(events.RESTORE_INTENDED, "success")
    audit.note(events.ORIGINAL_RESTORED, "success", instance_id="ab")
    disk.fails = True
    with pytest.raises(OSError):
        audit.flush()
    dropped = (tmp_path / "audit.jsonl").stat().st_size
    disk.fails = False
    {"flush": audit.flush, "write": lambda: audit.write(events.RETRIEVE, "success"), "close": audit.close}[by]()
    again = [json.loads(line) for line in disk.flushed[dropped:].splitlines()]
    assert [line.get("instance_id") for line in again] == ["ab", *([None] if by == "write" else [])]
    audit.note(events.ORIGINAL_RESTORED, "success")
    audit.flush()
    assert len(disk.flushed[dropped:].splitlines()) == len(again) + 1  # once is enough


def test_what_a_rotated_file_did_not_take_is_written_to_the_new_one_when_the_process_ends(tmp_path, monkeypatch):
    file = tmp_path / "audit.jsonl"
    audit, disk = AuditLog(file), FailingDisk(monkeypatch)
    audit.write(events.RESTORE_INTENDED, "success")
    audit.note(events.ORIGINAL_RESTORED, "success", instance_id="ab")
    file.rename(tmp_path / "audit.1")
    disk.fails = True
    with pytest.raises(OSError):
        audit.write(events.RETRIEVE, "success")
    disk.fails = False
    audit.close()
    assert [json.loads(line)["instance_id"] for line in disk.flushed.splitlines()] == ["ab"]


def test_a_disk_that_takes_no_flush_for_long_is_not_filled_with_the_same_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.audit.log._MOST_AGAIN", 1000)
    audit, disk = AuditLog(tmp_path / "audit.jsonl"), FailingDisk(monkeypatch)
    disk.fails = True
    for _ in range(50):
        with pytest.raises(OSError):
            audit.write_all([Line(events.RETRIEVE, "success", {})])
        with pytest.raises(OSError):
            audit.note(events.ORIGINAL_RESTORED, "success")
    assert len(lines(tmp_path / "audit.jsonl")) < 50 * 20


@pytest.mark.parametrize("rotated", [True, False])
def test_what_was_noted_is_flushed_before_its_file_is_closed(tmp_path, monkeypatch, rotated):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    file = tmp_path / "audit.jsonl"
    audit = AuditLog(file)
    audit.write(events.RESTORE_INTENDED, "success")
    audit.note(events.ORIGINAL_RESTORED, "success")
    inode = file.stat().st_ino
    if rotated:
        file.rename(tmp_path / "audit.1")
        audit.write(events.RETRIEVE, "success")
        assert flushed == [inode, inode, file.stat().st_ino]
    else:
        audit.close()
        audit.close()
        assert flushed == [inode, inode]


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "audit.jsonl"
    code = (
        "import sys; from pathlib import Path; from gateway.audit import AuditLog, events\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "for i in range(50): log.write(events.DELIVERY, 'success', count=i, destination='d' * 90)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    assert len(lines(path)) == 150


def test_every_event_has_a_code_of_its_own_kind():
    assert set(EVENTS) == {v for k, v in vars(events).items() if k.isupper() and isinstance(v, str)}
    assert all(code.event_id.startswith("1101") for code in EVENTS.values())
    assert set(OUTCOMES.values()) <= {0, 4, 8, 12}
