"""DIMSE command sets as bytes (PS3.7 6.3 and annex E): Implicit VR Little Endian, group 0000, in order of tags.

Only what a storage and verification service needs. pynetdicom goes through a pydicom `Dataset` for this, which costs
more than writing an image of half a megabyte to disk.
"""

from __future__ import annotations

import struct

from gateway.errors import DicomError

# Elements of group 0000 (PS3.7 E.1)
GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
MOVE_DESTINATION = 0x0600
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
EVENT_TYPE_ID = 0x1002
ACTION_TYPE_ID = 0x1008
REMAINING, COMPLETED, FAILED, WARNING = 0x1020, 0x1021, 0x1022, 0x1023  # numbers of sub-operations
MOVE_ORIGINATOR_AE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

# Values of Command Field
C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RSP = 0x8010
C_MOVE_RQ = 0x0021
C_MOVE_RSP = 0x8021
C_ECHO_RQ = 0x0030
C_ECHO_RSP = 0x8030
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ = 0x0100
N_EVENT_REPORT_RSP = 0x8100
N_ACTION_RQ = 0x0130
N_ACTION_RSP = 0x8130
IS_RESPONSE = 0x8000  # set in the Command Field of every response (PS3.7 E.1-1)

NO_DATA_SET = 0x0101  # Data Set Type; anything else says that a data set follows
WITH_DATA_SET = 0x0001

_NUMBERS = {
    COMMAND_FIELD,
    MESSAGE_ID,
    MESSAGE_ID_RESPONDED_TO,
    PRIORITY,
    DATA_SET_TYPE,
    STATUS,
    MOVE_ORIGINATOR_MESSAGE_ID,
    EVENT_TYPE_ID,
    ACTION_TYPE_ID,
    REMAINING,
    COMPLETED,
    FAILED,
    WARNING,
}
_UIDS = {AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID, REQUESTED_SOP_CLASS_UID, REQUESTED_SOP_INSTANCE_UID}
_TEXTS = {ERROR_COMMENT, MOVE_ORIGINATOR_AE}

_TITLES = {MOVE_DESTINATION, MOVE_ORIGINATOR_AE}

LONGEST_COMMAND = 65_536  # bytes that are read of a command set; a C-STORE-RQ has about 200

_HEAD, _NUMBER, _GROUP_LENGTH = struct.Struct("<HHL"), struct.Struct("<HHLH"), struct.Struct("<HHLL")

Command = dict[int, int | str]


def encode_command(command: Command) -> bytes:
    """Encode a command set; the group length is computed.

    Parameters
    ----------
    command
        Element numbers of group 0000 with their values: int for US, str for UI, AE and LO.
    """
    body = b"".join([_element_of(number, command[number]) for number in sorted(command)])
    return _GROUP_LENGTH.pack(0, GROUP_LENGTH, 4, len(body)) + body


def decode_command(data: bytes) -> Command:
    """Decode a command set; elements that are not listed here are left out.

    Raises
    ------
    DicomError
        Code ``bad-command``: not a command set.
    """
    command: Command = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise DicomError("bad-command", "truncated element in a DIMSE command set")
        group, number, length = _HEAD.unpack_from(data, at)
        value = data[at + 8 : at + 8 + length]
        if group != 0 or len(value) != length:
            raise DicomError("bad-command", "malformed element in a DIMSE command set")
        if number in _NUMBERS:
            if length != 2:
                raise DicomError("bad-command", "number of a wrong length in a DIMSE command set")
            command[number] = struct.unpack("<H", value)[0]
        elif number in _UIDS or number in _TEXTS:
            command[number] = value.decode("ascii", "replace").rstrip("\0 ").lstrip(" ")
        at += 8 + length
    if COMMAND_FIELD not in command:
        raise DicomError("bad-command", "a DIMSE command set without a command field")
    return command


def number_in(command: Command, number: int) -> int | None:
    """The value of an element of VR US, or None where the command set has none."""
    value = command.get(number)
    return value if isinstance(value, int) else None


def text_in(command: Command, number: int) -> str:
    """The value of an element of VR UI, AE or LO, or nothing where the command set has none."""
    value = command.get(number)
    return value if isinstance(value, str) else ""


def with_plain_titles(data: bytes) -> bytes:
    """The same encoded command set, with AE titles that a strict decoder takes: of 16 characters, padded with spaces.

    NUL at the end, as many toolkits pad, becomes a space (PS3.5 6.2 pads VR AE with spaces); a byte that may not stand
    in an AE title becomes ``?``, and so does a blank one, so that such a title is unknown instead of the end of the
    association. What is no command set is returned as it is: its decoder tells.
    """
    parts: list[bytes] = []
    at = 0
    while at + 8 <= len(data):
        group, number, length = struct.unpack_from("<HHL", data, at)
        end = at + 8 + length
        if group != 0 or end > len(data):
            return data
        value = data[at + 8 : end]
        if number in _TITLES:
            title = value.strip(b"\0 ")[:16] or b"?"
            plain = bytes(byte if 0x20 <= byte < 0x7F and byte != 0x5C else 0x3F for byte in title)
            value = plain.ljust(length, b" ") if length <= 16 else plain + b" " * (len(plain) % 2)
        parts.append(_element(number, value))
        at = end
    return b"".join(parts) if at == len(data) else data


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _element_of(number: int, value: int | str) -> bytes:
    if isinstance(value, int):
        return _NUMBER.pack(0, number, 2, value)
    text = value.encode("ascii")
    if len(text) % 2:
        text += b"\0" if number in _UIDS else b" "
    return _HEAD.pack(0, number, len(text)) + text
