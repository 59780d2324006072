"""Codecs run in child processes: what these can reach, and what they cost when they go wrong."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jpeg_ls
import numpy as np
import openjpeg
import pytest

from gateway.dicom.copy.carried_body import pack, pack_referring, rebuild
from gateway.dicom.encoding.syntaxes import (
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    syntax_of,
)
from gateway.dicom.pixels import decoders, decoding
from gateway.dicom.pixels.children import launch as launching
from gateway.dicom.pixels.children import pool, wire
from gateway.dicom.pixels.children.pool import Limits, Pool
from gateway.dicom.pixels.compress import recode
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import CapacityError, DicomError
from tests.support.dicom.compressed import facts_of_image, gray
from tests.support.dicom.samples import encode, image, slightly_changed

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
DEEP = gray(256, 256)
FACTS = facts_of_image(image(DEEP[None], BitsStored=12))
LS, HT, J2K = syntax_of(JPEG_LS_LOSSLESS), syntax_of(HTJ2K_LOSSLESS), syntax_of(JPEG_2000_LOSSLESS)


@pytest.fixture
def children():
    made: list[Pool] = []

    def make(**limits: float) -> Pool:
        made.append(Pool(Limits(**limits)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def code_of(action, *arguments: object) -> str:
    with pytest.raises(DicomError) as caught:
        action(*arguments)
    assert caught.value.message and caught.value.hint
    return caught.value.code


# -- what a child can reach ------------------------------------------------------------------------------------------


def inside(tmp_path, without: str = "") -> dict:
    """What an attacker in a child gets at; the files are readable for everyone, so that modes are not the reason."""
    secret = tmp_path / "restore.key"
    secret.write_bytes(b"private")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and str(path) != "/":
            path.chmod(path.stat().st_mode | 0o755)
    secret.chmod(0o644)
    name, in_memory = f"miad-{os.getpid()}-{time.monotonic_ns()}", ctypes.create_string_buffer(b"private", 16)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        given = [without, str(1 << 30), str(secret), str(tmp_path), name]
        given += [str(ctypes.addressof(in_memory)), str(os.getpid())]
        process = pool.launch("from tests.support.dicom.inside import main; main()", given)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(told)


@linux
@pytest.mark.parametrize("without", ["", "landlock", "leave_root", "landlock,leave_root"])
def test_nothing_is_within_reach_of_a_child(tmp_path, without, monkeypatch):
    """Whichever of the other layers is missing: seccomp alone refuses all of it."""
    monkeypatch.setenv("MIAD_RESTORE_KEY", "private")
    told = inside(tmp_path, without)
    assert told["confined"]["no-new-privileges"] and told["confined"]["seccomp"]
    assert "done" not in told["done"].values(), told["done"]
    assert told["environment"] == sorted(
        ["LC_ALL", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    )
    assert told["descriptors"] <= 4  # its three pipes, and the folder that was listed


@linux
def test_files_and_the_parent_are_out_of_reach_without_seccomp(tmp_path):
    """Where the kernel cannot filter calls, Landlock and a user of its own keep the rest away."""
    told = inside(tmp_path, "seccomp")
    if not told["confined"]["landlock"]:
        pytest.skip("this kernel has no Landlock")
    done = {name for name, how in told["done"].items() if how == "done"}
    assert done <= {"make a socket", "fork", "start a process", "connect", "signal the parent"}
    assert told["core"] == 0


@linux
def test_a_machine_that_cannot_confine_says_so(monkeypatch):
    told = launching.unprotected()
    assert all("Landlock" in sentence for sentence in told) and len(told) <= 1  # older kernels have none
    code = "import json, sys; print(json.dumps({'no-new-privileges': True, 'landlock': False}))"
    launch = launching.launch
    monkeypatch.setattr(launching, "launch", lambda _, arguments: launch(code, arguments))
    (first, second) = launching.unprotected()
    assert "Landlock" in first and "seccomp" in second


# -- what a child costs when it goes wrong ---------------------------------------------------------------------------


def test_frames_go_there_and_come_back(children):
    ours = children()
    for syntax in (LS, HT, J2K):
        assert np.array_equal(ours.decode(ours.encode(DEEP, FACTS, syntax), FACTS, syntax), DEEP)


def test_a_refusal_in_the_child_is_the_same_error_here(children):
    with pytest.raises(DicomError) as caught:
        children().decode(b"\xff\xd8nothing", FACTS, LS)
    assert (caught.value.code, caught.value.message) == (
        "undecodable-pixels",
        "a compressed frame has no readable head",
    )


def test_a_frame_that_takes_too_long_is_given_up_and_the_next_one_is_not(children):
    large = gray(2048, 2048)
    facts = facts_of_image(image(large[None], BitsStored=12))
    ours = children(seconds=0.2, processes=1)
    frame = children().encode(large, facts, HT)
    slow = children().encode(gray(2048, 2048, seed=2), facts, J2K)
    begun = time.monotonic()
    assert code_of(ours.decode, slow, facts, J2K) == "codec-timeout"
    assert time.monotonic() - begun < 50
    patient = children(seconds=30, processes=1)
    assert np.array_equal(patient.decode(frame, facts, HT), large)
    assert np.array_equal(ours.decode(ours.encode(DEEP, FACTS, LS), FACTS, LS), DEEP)


def test_a_child_that_dies_costs_its_frame_and_no_more(children, monkeypatch):
    frame = children().encode(DEEP, FACTS, LS)
    honest = wire.send

    def send_and_kill(descriptor: int, message: dict) -> None:
        os.kill(ours_child().pid, signal.SIGSTOP)  # so that it cannot answer before it dies
        honest(descriptor, message)
        os.kill(ours_child().pid, signal.SIGKILL)

    def ours_child() -> subprocess.Popen:
        return started[-1]

    started: list[subprocess.Popen] = []
    launch = pool.launch
    monkeypatch.setattr(pool, "launch", lambda *given: started.append(launch(*given)) or started[-1])
    dying = children(processes=1)
    dying.decode(frame, FACTS, LS)
    monkeypatch.setattr(pool.wire, "send", send_and_kill)
    assert code_of(dying.decode, frame, FACTS, LS) == "codec-killed"
    monkeypatch.setattr(pool.wire, "send", honest)
    assert np.array_equal(dying.decode(frame, FACTS, LS), DEEP)
    # dead while it had nothing to do: no frame is the reason, none pays
    started[-1].kill()
    started[-1].wait()
    assert np.array_equal(dying.decode(frame, FACTS, LS), DEEP)


def test_a_frame_whose_child_somebody_kills_has_another(children, monkeypatch):
    ours = children(processes=1)
    frame = ours.encode(DEEP, FACTS, LS)
    honest, killed = wire.send, []

    def send_and_kill(descriptor: int, message: dict) -> None:
        if not killed:
            killed.append(ours_child().pid)
            os.kill(killed[0], signal.SIGSTOP)  # so that it cannot answer before it dies
            honest(descriptor, message)
            os.kill(killed[0], signal.SIGKILL)
        else:
            honest(descriptor, message)

    def ours_child() -> subprocess.Popen:
        return started[-1]

    started: list[subprocess.Popen] = [child._process for child in ours._idle]
    monkeypatch.setattr(pool.wire, "send", send_and_kill)
    assert np.array_equal(ours.decode(frame, FACTS, LS), DEEP)
    assert len(killed) == 1


@pytest.mark.parametrize("what", ["launch", "memfd_create"])
def test_a_machine_without_processes_or_files_is_not_the_frames_fault(children, monkeypatch, what):
    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    ours = children(processes=1)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(pool if what == "launch" else os, what, refuse)
        for _ in range(3):
            with pytest.raises(CapacityError, match="Resource temporarily unavailable") as caught:
                ours.encode(DEEP, FACTS, LS)
            assert caught.value.code == "codec-start"
    assert len(os.listdir("/proc/self/fd")) == before
    assert np.array_equal(ours.decode(ours.encode(DEEP, FACTS, LS), FACTS, LS), DEEP)


def test_a_frame_that_needs_more_memory_than_allowed(children):
    large = np.zeros((4096, 4096), np.uint16)
    facts = facts_of_image(image(large[None], BitsStored=12))
    frame = children(seconds=30).encode(large, facts, J2K)
    ours = children(memory=300 << 20, seconds=30, processes=1)
    with pytest.raises(DicomError) as caught:  # how a library tells is its own affair
        ours.decode(frame, facts, J2K)
    assert caught.value.code in ("codec-memory", "codec-killed", "undecodable-pixels")
    assert np.array_equal(ours.decode(ours.encode(DEEP, FACTS, LS), FACTS, LS), DEEP)


def test_a_machine_that_starts_no_child_is_not_the_frames_fault(children, monkeypatch):
    launch = pool.launch
    monkeypatch.setattr(pool, "launch", lambda _, *given: launch("raise SystemExit(1)", *given))
    with pytest.raises(CapacityError) as caught:
        children().decode(b"", FACTS, LS)
    assert caught.value.code == "codec-start"


@pytest.mark.parametrize(
    "answer",
    [
        {"length": 1 << 40},
        {"length": 7},
        {"error": ["Upper Case: Doe^Jane", "x", ""]},
        {"error": 5},
    ],
)
def test_what_a_taken_over_child_answers_is_not_believed(children, monkeypatch, answer):
    ours = children(processes=1)
    frame = ours.encode(DEEP, FACTS, LS)
    honest = pool.wire.receive
    monkeypatch.setattr(pool.wire, "receive", lambda read: honest(read) and answer)
    with pytest.raises(DicomError) as caught:
        ours.decode(frame, FACTS, LS)
    assert caught.value.code in ("codec-killed", "codec-memory") and "Doe" not in str(caught.value)


def test_messages_that_are_none():
    for data in (b"", b"\0\0", b"\xff\xff\xff\xff{}", b"\0\0\0\2{]", b"\0\0\0\2[]"):
        rest = bytearray(data)

        def read(length: int, rest: bytearray = rest) -> bytes:
            piece = bytes(rest[:length])
            del rest[:length]
            return piece

        with pytest.raises(wire.EndOfMessages):
            wire.receive(read)


def test_many_threads_share_few_children(children, monkeypatch):
    started: list[object] = []
    launch = pool.launch
    monkeypatch.setattr(pool, "launch", lambda *given: started.append(1) or launch(*given))
    ours = children(processes=2)
    frames = [gray(64, 64, seed=seed) for seed in range(12)]
    facts = facts_of_image(image(frames[0][None], BitsStored=12))
    with ThreadPoolExecutor(6) as threads:
        encoded = list(threads.map(lambda frame: ours.encode(frame, facts, LS), frames))
        decoded = list(threads.map(lambda frame: ours.decode(frame, facts, LS), encoded))
    assert all(np.array_equal(one, other) for one, other in zip(decoded, frames, strict=True))
    assert len(started) <= 2


def test_children_end_with_their_parent():
    """Killed, it closes nothing; its children see the end of their pipe."""
    code = (
        "from tests.dicom.test_children import DEEP, FACTS, LS; from gateway.dicom.pixels.children import pool\n"
        "pool.shared().encode(DEEP, FACTS, LS)\n"
        "print(pool.shared()._idle[0]._process.pid, flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child outlives its parent")


def test_a_closed_pool_starts_no_more_children(children):
    ours = children()
    ours.encode(DEEP, FACTS, LS)
    process = ours._idle[0]._process
    ours.close()
    assert process.poll() is not None
    with pytest.raises(CapacityError):
        ours.encode(DEEP, FACTS, LS)


def test_a_carried_original_is_rebuilt_without_a_codec_in_this_process(monkeypatch):
    """The restore role holds the private key: a copy that comes back compressed is decoded in the child."""
    frames = DEEP[None]
    ds = image(frames, BitsStored=12)
    data = encode(ds)
    marked = slightly_changed(frames, (0, 4095))
    body = pack(data, EXPLICIT_LITTLE, decode_pixels(data, EXPLICIT_LITTLE), marked)
    whole = encode(image(gray(64, 64, seed=5)[None]))
    referring = pack_referring(whole, EXPLICIT_LITTLE)
    ds.PixelData = marked.tobytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a codec runs where the private key is")

    for library, name in ((jpeg_ls, "decode_pixel_data"), (openjpeg, "decode_pixel_data"), (decoders, "first_of_rle")):
        monkeypatch.setattr(library, name, never)
    monkeypatch.setattr(decoding, "decode_frame", never)
    for syntax in (JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, RLE_LOSSLESS):
        assert rebuild(body, len(data), recode(encode(ds), syntax), syntax) == data
        assert rebuild(referring, len(whole), recode(whole, syntax), syntax) == whole


def test_truncated_jpeg_ls_that_claims_much_leaves_this_process_free(children):
    """A few hundred bytes that stand for 32 MiB: the codec works on without Python's lock, the other threads go on."""
    ours = children(processes=1)
    frame = ours.encode(np.zeros((4096, 4096), np.uint16), facts_of_size(4096), LS)
    assert len(frame) < 1000
    ticks, done = [], threading.Event()

    def tick() -> None:
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    ticking = threading.Thread(target=tick)
    ticking.start()
    begun = time.monotonic()
    with pytest.raises(DicomError) as caught:
        ours.decode(frame[: len(frame) // 2], facts_of_size(4096), LS)
    took = time.monotonic() - begun
    done.set()
    ticking.join()
    assert caught.value.code in ("codec-timeout", "undecodable-pixels")
    assert len(ticks) > 2 * took  # a fiftieth of what an idle machine would give


def facts_of_size(side: int):
    return facts_of_image(image(np.zeros((1, side, side), np.uint16), BitsStored=12))
