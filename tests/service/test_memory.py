"""How the threads of a role share memory, what of it is kept, and how soon what is dead is given back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.service.memory import ARENAS

# Eight threads hold memory at once; glibc's malloc_info(3) then names every arena.
_CHILD = """
import ctypes, os, tempfile, threading
from gateway.service.memory import tune_malloc
if {few}:
    tune_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def hold():
    assert libc.malloc(ctypes.c_size_t(10_000))
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
[one.start() for one in threads], [one.join() for one in threads]
with tempfile.NamedTemporaryFile() as file:
    out = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, ctypes.c_void_p(out))
    libc.fclose(ctypes.c_void_p(out))
    print(file.read().count(b"<heap nr="))
"""


def number(script: str, **variables: str) -> int:
    """What a process of its own prints, with these variables of glibc's and no others."""
    glibc = ("MALLOC_", "GLIBC_TUNABLES")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(glibc)} | variables
    command = [sys.executable, "-c", script]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def arenas(few: bool, **variables: str) -> int:
    return number(_CHILD.format(few=few), **variables)


def test_threads_share_a_few_arenas() -> None:
    assert arenas(few=True) <= ARENAS < arenas(few=False)


def test_who_runs_the_site_may_say_otherwise() -> None:
    assert arenas(few=True, MALLOC_ARENA_MAX="5") == 5


# How often the system gives, and clears, a page for images that are read again and again.
_READ = """
import resource
from gateway.service.memory import tune_malloc
if {tuned}:
    tune_malloc()
def read():
    return b"".join([bytes([number]) * (1 << 20) for number in range(10)])
for _ in range(5):
    read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(tuned: bool, **variables: str) -> int:
    return number(_READ.format(tuned=tuned), **variables)


def test_what_images_are_read_into_is_not_cleared_anew_for_each() -> None:
    assert page_faults(tuned=True) < 500 < 20_000 < page_faults(tuned=False)


@pytest.mark.parametrize(
    "said", [{"MALLOC_TRIM_THRESHOLD_": "65536"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=65536"}]
)
def test_who_runs_the_site_may_say_that_it_is_given_back(said) -> None:
    assert page_faults(tuned=True, **said) > 20_000


# A million old objects, and then rings that live for a while, as associations do: how many are there in the end?
_OLD = """
import collections, gc
from gateway.service.memory import leave_alone_what_is_there
class Ring:
    def __init__(self):
        self.itself = self
old = [[] for _ in range(1_000_000)]
gc.collect()
if {left}:
    leave_alone_what_is_there()
lately = collections.deque(maxlen=30)
for _ in range(200):
    lately.append([Ring() for _ in range(1_000)])
print(sum(type(one) is Ring for one in gc.get_objects()))
"""


def rings(left: bool) -> int:
    return number(_OLD.format(left=left))


def test_what_ended_does_not_wait_for_as_many_as_there_were_at_the_start() -> None:
    assert rings(left=True) < 100_000 < 190_000 < rings(left=False)
