"""``python -m tests.support.broken [WORD]...``: every row, or those with such words, run, as a table in Markdown."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.broken.run import run_row
from tests.support.broken.site import all_rows, make_template
from tests.support.warm import Warm


def main() -> None:
    """Run each row in a folder of its own and print what came of it."""
    warm = Warm()
    print("| | site | command | code | says |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        make_template(Path(made, "template"))
        for number, row in enumerate(all_rows(), 1):
            if sys.argv[1:] and not any(word in row.what for word in sys.argv[1:]):
                continue
            folder = Path(made, str(number))
            code, said = run_row(row, folder, Path(made, "template"), warm)
            text = " / ".join(line.strip() for line in said.replace(f"{folder}/", "").splitlines())
            print(f"| {number} | {row.what} | `{row.command}` | {code} | {text.replace('|', ' ')} |", flush=True)
    warm.close()


if __name__ == "__main__":
    main()
