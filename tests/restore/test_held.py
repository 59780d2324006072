"""Memory of verified originals: bounded, used again, and never while somebody still looks at it."""

from __future__ import annotations

from gateway.restore.held import KEPT, HeldMemory

SIZE = 500_000


def test_a_buffer_is_used_again_for_about_the_same_size():
    memory = HeldMemory()
    buffer = memory.buffer(SIZE)
    assert len(buffer) > SIZE
    memory.keep(buffer)
    assert memory.buffer(SIZE + 100) is buffer
    assert memory.buffer(SIZE) is not buffer  # it is in use
    memory.keep(buffer)
    assert len(memory.buffer(2 * SIZE)) > 2 * SIZE
    assert len(memory.buffer(SIZE // 10)) < SIZE // 5
    assert memory.buffer(SIZE) is buffer


def test_a_buffer_that_is_looked_at_is_let_go():
    """A socket that still has bytes of one original to send must never send those of the next."""
    memory = HeldMemory()
    buffer = memory.buffer(SIZE)
    view = memoryview(buffer)[:SIZE]
    memory.keep(buffer)
    assert memory.buffer(SIZE) is not buffer
    view.release()
    memory.keep(buffer)
    assert memory.buffer(SIZE) is buffer


def test_what_is_kept_is_bounded():
    memory = HeldMemory()
    several = [memory.buffer(SIZE) for _ in range(2 * KEPT // SIZE)]
    for buffer in several:
        memory.keep(buffer)
    again = [memory.buffer(SIZE) for _ in several]
    assert 0 < sum(len(one) for one in again if any(one is other for other in several)) <= KEPT


def test_openers_are_used_again():
    memory = HeldMemory()
    with memory.opener() as one, memory.opener() as other:
        assert one is not other
    with memory.opener() as again:
        assert again in (one, other)
