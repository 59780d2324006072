"""Batches of one and of eight give the same marked pixels under the same derived UIDs."""

from __future__ import annotations

from pathlib import Path

from tests.crash import checks
from tests.crash.archive import store
from tests.crash.objects import make_instances
from tests.crash.site import KillSite
from tests.support.network.peers import storescp


def agreement(folder: Path, instances: int, seed: int = 1) -> dict:
    """Send the same files through two sites that share their keys; one marks one by one, the other eight at once.

    Tokens, locators and time stamps belong to a site's own record, so pixels are compared, not whole files.
    """
    made = make_instances(folder / "send", instances, seed)
    one = _marked_pixels(folder / "one", made, batch=1, keys=None)
    eight = _marked_pixels(folder / "eight", made, batch=8, keys=folder / "one" / "site" / "keys")
    different = sorted(uid for uid in one.keys() | eight.keys() if one.get(uid) != eight.get(uid))
    return {"instances": instances, "compared": len(one.keys() & eight.keys()), "different": different}


def _marked_pixels(folder: Path, made, batch: int, keys: Path | None) -> dict[str, str]:
    """Derived UID -> SHA-256 of the marked pixels at the sink."""
    with storescp(folder / "sink", "+uf") as sink_port:
        site = KillSite(folder / "site", sink_port, batch, keys)
        try:
            site.start()
            pending = {instance.sop_instance_uid: instance for instance in made}
            while pending:
                for uid in store(list(pending.values()), site.port):
                    del pending[uid]
            site.wait_until_idle()
            site.stop()
        finally:
            site.destroy()
    sink = checks.delivered(folder / "sink")
    assert not checks.problems_of_sink(sink, made)
    return {item.sop_instance_uid: item.pixels_sha256 for item in sink}
