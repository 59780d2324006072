"""What is written wrong in gateway.toml: its syntax, its keys, the form of a value."""

from __future__ import annotations

from tests.support.broken.site import Row, Site, add, put

ROUTE, DEST, STATION = 'name = "research"', 'name = "pacs"', 'ae_title = "READER"'


def _utf16(site: Site) -> None:
    site.file.write_bytes(site.file.read_text().encode("utf-16"))


def _bom(site: Site) -> None:
    """As Windows' Notepad writes it: taken; the mistake in line 4 is told of all the same."""
    site.put('name = "hospital"', "name = 5")
    site.file.write_bytes(b"\xef\xbb\xbf" + site.file.read_bytes())


def _part(text: str, encoding: str = "utf-8"):
    def breaks(site: Site) -> None:
        (site.folder / "conf.d").mkdir()
        (site.folder / "conf.d" / "ct.toml").write_bytes(text.encode(encoding))

    return breaks


ROWS = (
    Row("no such file", lambda site: site.file.unlink(), 2, ("gateway.toml", "cannot be read", "--config"), "serve"),
    Row("a folder in its place", lambda site: (site.file.unlink(), site.file.mkdir()), 2, ("cannot be read",)),
    Row(
        "an empty file",
        lambda site: site.file.write_text(""),
        0,
        ("no peer is listed", "there is no route", "0 errors, 3 warnings"),
    ),
    Row("UTF-16", _utf16, 2, ("line 1", "is not UTF-8", "save the file as UTF-8")),
    Row("a byte order mark before a wrong value", _bom, 2, ("line 4", "site.name")),
    Row("text without quotes", put('"hospital"', "hospital"), 2, ("line 4", "is not TOML", 'key = "text"')),
    Row("a colon for =", put('name = "hospital"', 'name: "hospital"'), 2, ("line 4", "joined by =")),
    Row("a quote that does not end", put('"hospital"', '"hospital'), 2, ("line 4", "ends with the quote")),
    Row("a key twice", put('name = "hospital"', 'name = "a"\nname = "b"'), 2, ("line 5", "stands once in a table")),
    Row("a table twice", add("[site]"), 2, ("line 41", "a table stands once")),
    Row("a misspelt key", put("destinations =", "destinatoins ="), 2, ("destinatoins", "destinations")),
    Row("a misspelt table", put("[page]", "[pgae]"), 2, ("pgae", "page")),
    Row("a key of another table", put("[page]\n", "[page]\ncalled_ae = 'X'\n"), 2, ("page.called_ae", "unknown key")),
    Row("a format of the future", put("version = 1", "version = 2"), 2, ("line 1", "version")),
    Row("a date for a name", put('"hospital"', "2026-01-01"), 2, ("line 4", "site.name", "must not be a date")),
    Row("a port in quotes", put("[page]\nport = ", '[page]\nport = "8480" # '), 2, ("page.port",)),
    Row("a port over 65535", put("[page]\nport = ", "[page]\nport = 70000 # "), 2, ("page.port", "65535")),
    Row("a port with a fraction", put("[page]\nport = ", "[page]\nport = 8480.5 # "), 2, ("page.port",)),
    Row("text for a list", put('["pacs"]', '"pacs"'), 2, ("routes[0].destinations", "list")),
    Row("true in quotes", put(STATION, f'{STATION}\nplain = "true"'), 2, ("workstations[0].plain",)),
    Row("one table for a list of them", put("[[routes]]", "[routes]"), 2, ("line 13, routes", "[[routes]]")),
    Row("an AE title of 17 letters", put('"PACS"', '"RESEARCH_PACS_017"'), 2, ("destinations[0].ae_title", "16")),
    Row("an AE title with a backslash", put('"PACS"', "'PA\\CS'"), 2, ("destinations[0].ae_title", "backslash")),
    Row("an empty AE title", put('"PACS"', '"  "'), 2, ("destinations[0].ae_title", "1 to 16")),
    Row("an AE title with an umlaut", put('"PACS"', '"RÖNTGEN"'), 2, ("destinations[0].ae_title", "ASCII")),
    Row(
        "half an address",
        put('["127.0.0.1"]\n\n[[routes]]', '["10.0.0"]\n\n[[routes]]'),
        2,
        ("addresses[0]", "10.1.0.0/16"),
    ),
    Row("a key itself for a reference", add(f'[keys]\nspool_key = "{"ab" * 32}"'), 2, ("keys.spool_key", "file:PATH")),
    Row("files: for file:", add('[keys]\nuid_key = "files:keys/uid.key"'), 2, ("keys.uid_key", "file:PATH")),
    Row("conf.d sets a key again", _part('[site]\nname = "b"'), 2, ("ct.toml", "line 2", "is set already in")),
    Row("conf.d has a wrong key", _part('[site]\nnaem = "b"'), 2, ("conf.d/ct.toml", "line 2", "site.naem")),
    Row("conf.d is UTF-16", _part("[log]\n", "utf-16"), 2, ("ct.toml", "is not UTF-8")),
)
