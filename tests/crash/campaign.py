"""A kill campaign: sends between real peers, one kill after another, and what was true at the end."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import checks
from tests.crash.archive import store
from tests.crash.objects import Instance, make_instances
from tests.crash.points import POINTS
from tests.crash.site import KillSite
from tests.support.network.peers import storescp

REACH_S = 300  # a named point that is not reached in this time counts as missed
RANDOM_S = 4.0  # a random kill falls within this time after its part of the send began, or after work was seen
AT_WORK_S = 15  # how long a kill waits for work to be seen
RANDOM_TARGETS = ("worker", "tree", "ingress", "supervisor", "worker", "tree", "restore")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """One kill: at the `call`-th time at a named point, or at a random moment, of a role or the tree.

    at_work
        The moment is counted from when instances are seen to move, not from when the sender began: after a kill the
        worker takes seconds to start, and most moments would fall into them.
    """

    what: str
    call: int = 0
    delay_s: float = 0.0
    at_work: bool = False


@dataclass
class Outcome:
    """What a campaign did and found. `problems` is empty when every promise held."""

    sends: int = 0
    instances: int = 0
    acknowledged: int = 0
    storescu_passes: int = 0
    kills: int = 0
    kills_by_kind: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    received_rows: int = 0
    sink_files: int = 0
    sink_uids: int = 0
    lost: int = 0
    unmarked: int = 0
    two_byte_strings: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def plan(kills: int, dice: random.Random, per_part: int, only: str = "") -> list[Kill]:
    """Named points and random moments in turn, beginning with the most telling points, in a shuffled order.

    per_part
        Instances that are sent for each kill: a named point is reached at most that often.
    only
        Beginning of the names of the points that are taken.
    """
    planned = []
    points = [point for point in POINTS if point.name.startswith(only)]
    targets = list(RANDOM_TARGETS)
    for number in range(kills):
        if number % 2 == 0:
            point = points[number // 2 % len(points)]
            call = dice.randint(1, max(1, per_part // 3))
            planned.append(Kill(point.name, call=1 if point.seldom else call))
        else:
            target, at_work = targets[number // 2 % len(targets)], number // 2 % 3 != 2
            planned.append(Kill(target, delay_s=dice.uniform(0, RANDOM_S), at_work=at_work))
    dice.shuffle(planned)
    return planned


def campaign(
    folder: Path, *, kills: int, sends: int, instances: int, seed: int, only: str = "", say: Say = lambda text: None
) -> Outcome:
    """Run it, at the points whose names begin with `only`; the caller owns `folder`.

    Raises AssertionError only where the gateway stops working altogether.
    """
    began = time.monotonic()
    dice = random.Random(seed)
    outcome = Outcome(sends=sends, instances=sends * instances)
    everything = [make_instances(folder / f"send{n}", instances, seed + n) for n in range(sends)]
    flat = [instance for one in everything for instance in one]
    sent = _truth(folder, flat)
    sink_folder = folder / "sink"
    with storescp(sink_folder, "+uf") as sink_port:
        site = KillSite(folder / "site", sink_port)
        try:
            site.start()
            order = plan(kills, dice, instances * sends // (kills + sends), only)
            acknowledged: set[str] = set()
            for number, one in enumerate(everything):
                share = order[number * kills // sends : (number + 1) * kills // sends]
                acknowledged |= _Send(site, one, share, outcome, say).run()
                say(f"send {number + 1} of {sends}: {len(acknowledged)} acknowledged, {site.counts()}")
            site.wait_until_idle()
            if site.stop() != 0:
                outcome.problems.append("the gateway did not stop in order")
        finally:
            site.destroy()
    _judge(outcome, site, flat, acknowledged, checks.delivered(sink_folder), sent)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _truth(folder: Path, instances: Sequence[Instance]) -> dict[str, str]:
    """What storescu sends, seen without a gateway in between."""
    with storescp(folder / "plain", "+xa") as port:
        stored = store(instances, port, "OUTSIDE")
    sent = checks.truth(folder / "plain")
    assert stored == set(sent) == {instance.sop_instance_uid for instance in instances}
    return sent


class _Send:
    """One send: the files go out in parts, one part for each kill, and again until each is acknowledged."""

    def __init__(
        self, site: KillSite, instances: Sequence[Instance], kills: Sequence[Kill], outcome: Outcome, say: Say
    ) -> None:
        self._site = site
        self._parts = [list(instances[n :: len(kills) + 1]) for n in range(len(kills) + 1)]
        self._kills = kills
        self._outcome = outcome
        self._say = say
        self._pending: dict[str, Instance] = {}
        self._acknowledged: set[str] = set()
        self._killed = threading.Event()

    def run(self) -> set[str]:
        """Send everything; returns the acknowledged UIDs: all of them."""
        for part, kill in zip(self._parts, self._kills, strict=False):
            self._pending |= {instance.sop_instance_uid: instance for instance in part}
            self._killed.clear()
            sender = threading.Thread(target=self._send_until_killed, daemon=True)
            if kill.call:
                self._site.arm(kill.what, kill.call)
            sender.start()
            self._kill(kill)
            self._killed.set()
            sender.join()
        self._pending |= {instance.sop_instance_uid: instance for instance in self._parts[-1]}
        deadline = time.monotonic() + 180
        while self._pending:
            assert time.monotonic() < deadline, f"{len(self._pending)} instances find no receiver: {self._site.log}"
            self._pass()
        return self._acknowledged

    def _send_until_killed(self) -> None:
        while self._pending:
            self._pass()
            if self._killed.is_set():
                return

    def _pass(self) -> None:
        self._outcome.storescu_passes += 1
        done = store(list(self._pending.values()), self._site.port)
        self._acknowledged |= done
        for uid in done:
            del self._pending[uid]
        if not done:
            time.sleep(0.3)  # nobody listens yet

    def _kill(self, kill: Kill) -> None:
        if kill.call:
            happened = self._wait_for_point()
        else:
            if kill.at_work:
                self._wait_for_work()
            time.sleep(kill.delay_s)
            self._kill_from_outside(kill.what)
            happened = True
        if happened:
            self._outcome.kills += 1
            kind = kill.what if kill.call else f"random: {kill.what}"
            self._outcome.kills_by_kind[kind] = self._outcome.kills_by_kind.get(kind, 0) + 1
        else:
            self._outcome.missed.append(kill.what)
        self._say(f"  kill {self._outcome.kills}: {kill.what} {'' if happened else '(not reached)'}")

    def _wait_for_point(self) -> bool:
        deadline = time.monotonic() + REACH_S
        while not self._site.fired():
            self._site.check_alive()
            if time.monotonic() > deadline and self._site.disarm():
                return False
            time.sleep(0.05)
        return True

    def _wait_for_work(self) -> None:
        deadline = time.monotonic() + AT_WORK_S
        before = self._site.moved()
        while self._site.moved() == before and time.monotonic() < deadline:
            self._site.check_alive()
            time.sleep(0.2)

    def _kill_from_outside(self, target: str) -> None:
        if target == "tree":
            self._site.kill_tree()
            self._site.start()
        elif target == "supervisor":
            self._site.kill_supervisor()
            self._site.start()
        else:
            self._site.kill_role(target)


def _judge(outcome: Outcome, site: KillSite, instances, acknowledged: set[str], sink, sent: dict[str, str]) -> None:
    believed = [instance for instance in instances if instance.sop_instance_uid in acknowledged]
    outcome.acknowledged = len(believed)
    outcome.received_rows = sum(site.counts().values())
    outcome.sink_files = len(sink)
    outcome.sink_uids = len({item.sop_instance_uid for item in sink})
    outcome.problems += checks.problems_of_sink(sink, instances)
    outcome.problems += checks.problems_of_originals(site, believed, sink, sent)
    outcome.problems += checks.problems_of_site(site, sink)
    kinds = Counter(problem.partition(":")[0] for problem in outcome.problems)
    outcome.lost, outcome.unmarked = kinds["lost"], kinds["unmarked"]
    outcome.two_byte_strings = kinds["two byte strings"]
