"""What is well written in gateway.toml and does not go together, or means nothing."""

from __future__ import annotations

from tests.support.broken.site import Row, Site, add, put
from tests.support.broken.words import DEST, ROUTE, STATION

SECOND = '[[routes]]\nname = "{}"\ncalled_ae = "{}"\ndestinations = ["pacs"]'
RULE = '[[routes.rules]]\nmodality = "RTSTRUCT"\naction = "{}"\n'
RULES = RULE.format("remap") + RULE.format("block")


def _loop(site: Site) -> None:
    site.put(f"port = {site.ports['pacs']}", f"port = {site.ports['ingress']}")


def _one_port(site: Site) -> None:
    site.put(f"port = {site.ports['page']}", f"port = {site.ports['ingress']}")


def _route(lines: str):
    return put(ROUTE, f"{ROUTE}\n{lines}")


def _dest(lines: str):
    return put(DEST, f"{DEST}\n{lines}")


def _mark(lines: str):
    return put("[[destinations]]", f"[routes.mark]\n{lines}\n[[destinations]]")


ROWS = (
    Row("a route's name twice", add(SECOND.format("research", "B")), 2, ("routes", "research")),
    Row("two routes of one called AE", add(SECOND.format("b", "RESEARCH")), 2, ("called_ae", "RESEARCH")),
    Row("a route without destination", put('["pacs"]', "[]"), 2, ("routes[0].destinations",)),
    Row("a route to nobody known", put('["pacs"]', '["pcas"]'), 2, ("routes[0].destinations", "pcas")),
    Row("a destination that is this gateway", _loop, 0, ("destinations[0].port", "our own ingress.port")),
    Row("two roles on one port", _one_port, 2, ("page.port", "taken by ingress.port")),
    Row("a workstation bound to nothing", put('san = ["reader.example"]', ""), 2, ("workstations[0]", "READER")),
    Row(
        "a plain workstation without address",
        put('addresses = ["127.0.0.1"]\nsan = ["reader.example"]', "plain = true\naddresses = []"),
        2,
        ("addresses",),
    ),
    Row("a plain workstation, and no port for it", put(STATION, f"{STATION}\nplain = true"), 2, ("plain_port",)),
    Row("a workstation's host without port", put(STATION, f'{STATION}\nhost = "a"'), 2, ("host and port go together",)),
    Row(
        "an unknown SOP class in a rule",
        _route('rules = [{ sop_class = "1.2.3.4", action = "block" }]'),
        0,
        ("rules[0].sop_class", "no SOP class", "PS3.6"),
    ),
    Row(
        "a SOP class by name",
        _route('rules = [{ sop_class = "CT Image", action = "hold" }]'),
        2,
        ("sop_class is a UID",),
    ),
    Row(
        "a keyword that is none",
        _route('rules = [{ tags = [{ tag = "PatinetName", like = "X" }], action = "hold" }]'),
        2,
        ("rules[0].tags[0].tag",),
    ),
    Row(
        "a rule for everything", _route('rules = [{ action = "hold" }]'), 2, ("rules[0]", "a rule says what it is for")
    ),
    Row(
        "a rule behind the same rule",
        put("[[destinations]]", f"{RULES}\n[[destinations]]"),
        0,
        ("rules[1]", "never reached", "narrower one before"),
    ),
    Row("an unknown transfer syntax", _dest('transfer_syntaxes = ["jpeg-9"]'), 2, ("transfer_syntaxes[0]", "jpeg-9")),
    Row("a schedule of no day", _dest('schedule = ["mon-fry 19:00-06:00"]'), 2, ("schedule", "fry")),
    Row("a schedule of 25 o'clock", _dest('schedule = ["mon 19:00-25:00"]'), 2, ("schedule", "25:00")),
    Row(
        "a time zone of no place",
        _dest('schedule = ["mon 19:00-20:00"]\ntime_zone = "Europe/Berln"'),
        2,
        ("time_zone",),
    ),
    Row(
        "the longest pause under the first",
        _dest("retry_first_s = 600\nretry_longest_s = 60"),
        0,
        ("retry_longest_s", "no pause is longer"),
    ),
    Row("a fallback to itself", _dest('fallback = "pacs"'), 2, ("fallback",)),
    Row("a pass without its sentence", _route('action = "pass"'), 2, ("pass_statement",)),
    Row(
        "a clinical destination without its sentence",
        put('"research"\nae', '"clinical"\nae'),
        2,
        ("clinical_override",),
    ),
    Row("text that no letter can draw", _mark('text = "复制件"'), 2, ("mark.text", "printable ASCII")),
    Row("text too long", _mark(f'text = "{"NO " * 20}"'), 2, ("mark.text", "32")),
    Row("a tier that is none", _mark('tier = "discrete"'), 2, ("mark.tier", "discreet")),
    Row(
        "copies that outlive their originals",
        add("[retention]\nvault_days = 1\nderived_days = 30"),
        0,
        ("retention.derived_days", "no more than vault_days"),
    ),
    Row("retention below nothing", add("[retention]\nvault_days = -1"), 2, ("retention.vault_days",)),
    Row(
        "a role without its table",
        lambda site: site.put(f"[page]\nport = {site.ports['page']}", ""),
        2,
        ("page", "no [page] table"),
        "serve --role page",
    ),
    Row("nobody may log in to a page for users", add('view = "login"'), 2, ("page.view", "page user add")),
)
