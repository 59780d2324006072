"""The private networks of the tests: one after the other in the same process."""

from __future__ import annotations

from tests.support.network.namespaces import Network


def test_a_network_leaves_nothing_that_the_next_one_stumbles_over() -> None:
    for _ in range(5):
        network = Network()
        network.host()
        network.close()
