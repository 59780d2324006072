"""JSON and Markdown of a run: one row per set and network (mark, evaluation rules), the targets, every failed cell."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from tests.benchmarks.mark.answers import Answer, Answers, averaged
from tests.benchmarks.mark.methods import METHODS, OURS
from tests.benchmarks.mark.run import ALONE, DATA, FAMILY, WHITE_BOX, Run
from tests.benchmarks.mark.stages_more import ALONE_METHOD, lineage_method
from tests.benchmarks.mark.targets import NOTHING, Verdict, verdicts
from tests.benchmarks.mark.treatments import CROP, DENOISE, GRID, INPAINT

LEGEND = """\
Accuracy against true labels (0..1), mean and 95 % interval (bootstrap over images). *white-box*: the pack's own
networks; *data held out*: a family of the pack, trained on half B; *family held out*: no network of the pack is of this
family; where the pack holds a network's family, that is left out (rows that say so; not for `paper` and `generator`).
All columns change the same pixels at the same display PSNR, rounded to stored values; MI-FGSM, DI-FGSM and the
universal pattern see the pack as one model of mean logits and its own answers as labels, and need neither read
as letters nor keep the limit of colour.
*Images known when clean*: of each network only the images that it answers rightly before marking, the paper's way to
count; the targets are held to all images.
A column whose PSNR is higher could not spend the energy under the threshold. Removal: the setting that is
best for the adversary, chosen per network; in brackets clean images after the same."""


def write_report(run: Run) -> tuple[Answers, list[Verdict]]:
    """Write ``report.json`` and ``report.md`` from all finished cells of this run; return what they hold."""
    answers = Answers(run.store, run.identity)
    rows = verdicts(answers)
    parts = [_head(run), targets_table(rows), failed_cells(rows), LEGEND]
    for tier in run.options.tiers:
        parts += [f"## Tier {tier}", columns_table(run, answers, tier), removal_table(run, answers, tier)]
        parts += [quality_table(run, answers, tier), curve_table(run, answers, tier)]
    parts.append(control_lines(run, answers))
    (run.out / "report.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")
    figures = {
        **run.described(),
        "run": run.identity,
        "machine": machine(run),
        "skipped": run.skipped,
        "targets": [{**asdict(row), "word": row.word} for row in rows],
        "answers": [_plain(one) for one in answers.all],
        "notes": answers.notes,
    }
    (run.out / "report.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return answers, rows


def machine(run: Run) -> str:
    """Return what the figures were made on, in words."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else platform.machine()
    return f"{name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}"


def _head(run: Run) -> str:
    options = run.options
    count = "all" if options.sample is None else str(options.sample)
    lines = ["# What the mark does, beside its controls", ""]
    lines.append(f"{count} test images per set, {options.steps} steps; {machine(run)}. Run {run.identity}.")
    lines += [f"- not run: {what}: {why}" for what, why in run.skipped.items()]
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def targets_table(rows: Sequence[Verdict]) -> str:
    """Return the targets with what was measured."""

    def limit(row: Verdict, value: float | None) -> str:
        if value is None:
            return "reported"
        return f">= {value:g}" if row.higher else f"<= {value:g}"

    body = []
    for row in rows:
        limits = (limit(row, row.reach), limit(row, row.beyond))
        body.append([row.name, row.paper, *limits, row.text, row.word, row.known_text, row.known_word])
    head = ["", "paper", "to reach", "beyond", "all images", "", "images known when clean", ""]
    return "## Targets\n\n" + table(head, body)


def failed_cells(rows: Sequence[Verdict]) -> str:
    """Return every part of every target that does not keep its limit by itself; nothing is left out."""
    lines = [
        f"- {row.name}: {what}: {value:.2f}"
        for row in rows
        if row.reach is not None
        for what, value in row.failed_cells
    ]
    return "## Failed cells\n\n" + ("\n".join(lines) if lines else "None of those that were measured.")


def columns_table(run: Run, answers: Answers, tier: str) -> str:
    """Return one row per set and network, one column per method, then means per kind of network."""
    lineage = [lineage_method(one) for one in ("scratch", "imagenet")]
    columns = [*[one for one in METHODS if one in run.options.methods], *lineage, ALONE_METHOD]
    columns = [c for c in columns if answers.where(lambda one, c=c: one.tier == tier and one.method == c)]
    body = []
    for name in run.options.sets:
        mine = [one for one in answers.where(lambda one: one.tier == tier and one.removal == "") if one.set == name]
        for reader in dict.fromkeys(one.reader for one in mine):
            found = {one.method: one for one in mine if one.reader == reader}
            first = next(iter(found.values()))
            body.append([name, reader, first.held, first.lineage, *[_cell([found.get(c)]) for c in columns]])
    for held in (WHITE_BOX, ALONE, DATA, FAMILY):
        means = [
            averaged(
                answers.where(
                    lambda one, c=c, held=held: (one.tier, one.method, one.removal, one.held) == (tier, c, "", held)
                )
            )
            for c in columns
        ]
        if any(means):
            body.append(["**mean**", "", held, "", *[NOTHING if mean is None else str(mean) for mean in means]])
    energy = ["display PSNR, dB", "", "", ""]
    for column in columns:
        cells = [answers.note("made", set=name, tier=tier, method=column) for name in run.options.sets]
        energy.append(" / ".join(NOTHING if cell is None else f"{cell['psnr']:.1f}" for cell in cells))
    return table(["set", "network", "held out", "lineage", *columns], [*body, energy])


def removal_table(run: Run, answers: Answers, tier: str) -> str:
    """Return what removal gets back: per set, network and column under attack the best setting for the adversary."""
    groups = [GRID, DENOISE, INPAINT, "u-net", *[f"averaging {n}" for n in run.options.averaging], CROP]
    groups += [f"retrained {n}" for n in run.options.finetune]
    body = []
    for method in OURS:
        marked = [
            one for one in answers.where(lambda one, m=method: (one.tier, one.method) == (tier, m)) if one.removal
        ]
        for name, reader in dict.fromkeys((one.set, one.reader) for one in marked):
            row = [method, name, reader]
            for group in groups:
                best = answers.best_for_the_adversary(
                    lambda one, g=group, n=name, r=reader, m=method: (
                        (one.tier, one.method, one.set, one.reader, one.removal) == (tier, m, n, r, g)
                    )
                )
                clean = answers.same_on_clean(best[0]) if best else None
                row.append(_cell(best) + (f" ({clean.accuracy:.2f}; {best[0].setting})" if clean else ""))
            body.append(row)
    return "After removal\n\n" + table(["column", "set", "network", *groups], body) if body else ""


def quality_table(run: Run, answers: Answers, tier: str) -> str:
    """Return per set what may be seen of the mark, its price and that promises are kept."""
    body = []
    for name in run.options.sets:
        cell = answers.note("quality", set=name, tier=tier)
        if cell is None:
            continue
        mean, least, most = cell["mean"], cell["least"], cell["most"]
        gpu = f"{1000 * cell['seconds']:.0f}" if cell["device"] == "cuda" else "not run on a GPU"
        cpu = f"{1000 * cell['seconds']:.0f}" if cell["device"] == "cpu" else NOTHING
        body.append(
            [
                name,
                f"{cell['images']}, {len(cell['refused'])} refused",
                f"{mean['psnr']:.2f}, least {least['psnr']:.2f}",
                *[f"{mean[key]:.3f}" if key in mean else NOTHING for key in ("ssim", "ms_ssim")],
                NOTHING if cell["max_jnd"] is None else f"{cell['max_jnd']:.0f}",
                f"{mean['stroke_share']:.1%}, most {most['stroke_share']:.1%}",
                f"{cell['visible_outside_strokes']:.2%}",
                NOTHING if cell.get("over_jnd_outside") is None else f"{cell['over_jnd_outside']:.0%}",
                str(cell["roi_difference"]),
                f"{cell['region_share']:.0%}",
                f"{cell['cross_key_correlation']:.3f}",
                f"{cpu} / {gpu}",
                f"{cell['payload_bytes']:.0f}",
                "exact" if cell["exact"] else "**NOT EXACT**",
            ]
        )
    head = [
        "set",
        "images",
        "display PSNR, dB",
        "SSIM",
        "MS-SSIM",
        "most JND",
        "strokes",
        "above masked threshold outside strokes (most)",
    ]
    head += ["above 1 JND outside strokes, noise not counted (most)"]
    head += ["ROI difference", "mask area", "cross-key corr", "ms per slice CPU / GPU", "payload bytes", "residual"]
    return table(head, body) if body else ""


def curve_table(run: Run, answers: Answers, tier: str) -> str:
    """Return mean accuracy over energy."""
    curve = answers.where(lambda one: one.tier == tier and one.psnr is not None, curve=True)
    levels = sorted({one.psnr for one in curve})
    body = [
        [held, *[_cell([one for one in curve if one.held == held and one.psnr == level]) for level in levels]]
        for held in (WHITE_BOX, DATA, FAMILY)
    ]
    head = ["accuracy at", *[f"{level:g} dB" for level in levels]]
    return f"Over energy ({run.options.curve_sample} images a set)\n\n" + table(head, body) if levels else ""


def control_lines(run: Run, answers: Answers) -> str:
    """Return what became of the fixed weak logo."""
    lines = []
    for name in run.options.sets:
        cell = answers.note("control", set=name)
        for one in cell["results"] if cell else ():
            lines.append(
                f"- {name}, {one['removal']}: {one['gone']:.0%} of the logo's energy gone; accuracy "
                f"{one['accuracy']:.2f}, clean after the same {one['clean_accuracy']:.2f}"
            )
    return "## Positive control: a fixed weak logo must be undone\n\n" + "\n".join(lines) if lines else ""


def _cell(answers: Sequence[Answer | None]) -> str:
    interval = averaged(one for one in answers if one is not None)
    return NOTHING if interval is None else str(interval)


def _plain(answer: Answer) -> dict[str, object]:
    found = {key: value for key, value in asdict(answer).items() if key != "correct"}
    return {**found, "accuracy": answer.accuracy, "images": len(answer.correct)}
