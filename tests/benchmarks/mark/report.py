"""JSON and Markdown of a run: one row per set and network (mark, evaluation rules), the targets, every failed cell."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from tests.benchmarks.mark.answers import Answer, Answers, averaged, is_good
from tests.benchmarks.mark.methods import METHODS, OTHERS
from tests.benchmarks.mark.run import DATA, FAMILY, FOREIGN, WHITE_BOX, Run
from tests.benchmarks.mark.stages_more import ALONE_METHOD, lineage_method
from tests.benchmarks.mark.stats import DRAWS
from tests.benchmarks.mark.targets import KINDS, TIERS, data_held_out, same_family, verdicts
from tests.benchmarks.mark.treatments import ANATOMY, BLANK, CROP, DENOISE, GRID, INPAINT
from tests.benchmarks.mark.verdict import NOTHING, Verdict, counted

MEANS = {**KINDS, "same family, other data": same_family, "data held out (older sets)": data_held_out}
SAMPLE_SEED, VICTIM_SEED, BOOTSTRAP_SEED = 2026, 2026, 2026
"""As in ``data``, ``victims`` and ``stats``; pretrained victims are trained with seed 0."""

LEGEND = """\
Accuracy against true labels (0..1), mean and 95 % interval (bootstrap over images). *white-box*: the pack's own
networks; *same family, other data*: a family of the pack, trained on half B; *family held out*: no network of the pack
is of this family; *foreign network*: trained elsewhere. A network counts for a set only where at least 0.75 of its
test images are right when clean, and 0.2 more than the most frequent class would give; the others stand apart.
`notice` and `air` count images with room in their air; *n images a set* where only a part was asked about.
*Random*: the same letters with random texture. The other attacks change the same pixels at the same display PSNR,
rounded to stored values; MI-FGSM, DI-FGSM and the universal pattern see the pack as one model of mean logits and its
own answers as labels, and need neither read as letters nor keep the limit of colour.
*Images known when clean*: of each network only the images that it answers rightly before marking, the paper's way to
count; the targets are held to all images.
A column whose PSNR is higher could not spend the energy under the threshold. Removal: the setting that is
best for the adversary, chosen per network; in brackets clean images after the same."""


def write_report(run: Run) -> tuple[Answers, list[Verdict]]:
    """Write ``report.json`` and ``report.md`` from all finished cells of this run; return what they hold."""
    answers = Answers(run.store, run.identity)
    rows = verdicts(answers)
    parts = [_head(run), targets_table(rows), failed_cells(rows), LEGEND]
    parts.append(apart(answers))
    for tier in run.options.tiers + run.options.other_tiers:
        parts += [f"## Tier {tier}", columns_table(run, answers, tier), other_columns(run, answers, tier)]
        parts += [removal_table(run, answers, tier), quality_table(run, answers, tier), curve_table(run, answers, tier)]
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
    lines.append(
        f"{count} test images per set ({options.part} of an older set, for {', '.join(options.other_tiers)}, for "
        f"removal and for other attacks), {options.steps} steps; {machine(run)}. Run {run.identity}. Seeds: "
        f"images {SAMPLE_SEED}, victims {VICTIM_SEED}, intervals {BOOTSTRAP_SEED} ({DRAWS} draws); marks by a fixed "
        "site key."
    )
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
        told = [row.text, row.word, row.known_text, row.known_word]
        body.append([row.name, row.tier or NOTHING, row.paper, *limits, *told])
    head = ["", "tier", "paper", "to reach", "beyond", "all images", "", "images known when clean", ""]
    return "## Targets\n\n" + table(head, body)


def failed_cells(rows: Sequence[Verdict]) -> str:
    """Return every part of every target that does not keep its limit by itself; nothing is left out."""
    lines = [failed_line(row, what, value) for row in rows if row.reach is not None for what, value in row.failed_cells]
    return "## Failed cells\n\n" + ("\n".join(lines) if lines else "None of those that were measured.")


def failed_line(row: Verdict, what: str, value: float) -> str:
    """Return the line of a part that does not keep its row's limit."""
    return f"- {row.name}{', ' * bool(row.tier)}{row.tier}: {what}: {value:.2f}"


def apart(answers: Answers) -> str:
    """Return the networks that do not count, with what they answer all the same."""
    cells = [one for one in answers.notes if one["id"]["kind"] == "victim" and not is_good(one)]
    body = []
    for cell in cells:
        place = (cell["id"]["set"], cell["id"]["reader"])
        marked = [
            _cell(
                answers.where(
                    lambda one, place=place, t=tier: (
                        (one.set, one.reader, one.tier, one.method) == (*place, t, "strong") and one.removal == ""
                    )
                )
            )
            for tier in TIERS
        ]
        body.append([*place, f"{cell['accuracy']:.2f}", f"{cell['majority']:.2f}", *marked])
    head = ["set", "network", "clean, all test images", "most frequent class", *(f"{tier}, marked" for tier in TIERS)]
    return "## Networks that do not count\n\n" + (table(head, body) if body else "None.")


def other_columns(run: Run, answers: Answers, tier: str) -> str:
    """Return what other attacks do in the same pixels with the same energy, by kinds of networks."""
    found = answers.where(lambda one: one.tier == tier and one.part is not None and one.removal == "", parts=True)
    columns = [one for one in METHODS if any(each.method == one for each in found)]
    if not set(columns) & set(OTHERS):
        return ""
    body = []
    for name, kind in KINDS.items():
        good = counted(answers, tier, [one for one in found if kind(one)])
        body.append([name, *[_cell([one for one in good if one.method == column]) for column in columns]])
    return f"Other attacks ({run.options.part} images a set)\n\n" + table(["networks", *columns], body)


def columns_table(run: Run, answers: Answers, tier: str) -> str:
    """Return one row per set and network, one column per method, then means per kind of network."""
    lineage = [lineage_method(one) for one in ("scratch", "imagenet")]
    columns = [*[one for one in METHODS if one in run.options.methods], *lineage, ALONE_METHOD]
    columns = [c for c in columns if answers.where(lambda one, c=c: one.tier == tier and one.method == c)]
    body = []
    for name in run.options.sets + run.options.older:
        mine = [one for one in answers.where(lambda one: one.tier == tier and one.removal == "") if one.set == name]
        for reader in dict.fromkeys(one.reader for one in mine):
            found = {one.method: one for one in mine if one.reader == reader}
            first = next(iter(found.values()))
            shown = reader if answers.counts(first) else f"({reader})"
            body.append([name, shown, first.held, first.lineage, *[_cell([found.get(c)]) for c in columns]])
    for name, kind in MEANS.items():
        means = [
            averaged(
                counted(
                    answers,
                    tier,
                    answers.where(
                        lambda one, c=c, k=kind: (one.tier, one.method, one.removal) == (tier, c, "") and k(one)
                    ),
                )
            )
            for c in columns
        ]
        if any(means):
            body.append(["**mean**", "", name, "", *[NOTHING if mean is None else str(mean) for mean in means]])
    energy = ["display PSNR, dB", "", "", ""]
    for column in columns:
        cells = [answers.note("made", set=name, tier=tier, method=column) for name in run.options.sets]
        energy.append(" / ".join(NOTHING if cell is None else f"{cell['psnr']:.1f}" for cell in cells))
    return table(["set", "network", "held out", "lineage", *columns], [*body, energy])


def removal_table(run: Run, answers: Answers, tier: str) -> str:
    """Return what removal gets back: per set, network and column under attack the best setting for the adversary."""
    groups = [GRID, DENOISE, INPAINT, "u-net", *[f"averaging {n}" for n in run.options.averaging], CROP, BLANK, ANATOMY]
    groups += [f"retrained {n}" for n in run.options.finetune]
    body = []
    for method in ("strong",):
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
                str(cell["counted"]),
                *(
                    f"{cell[key]:{form}}" if key in cell else NOTHING
                    for key, form in (("anatomy_psnr", ".1f"), ("anatomy_levels", ".0f"), ("seen", ".2%"))
                ),
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
        "marked as asked",
        "anatomy, dB (least)",
        "levels (most)",
        "second measure sees (most)",
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
        for held in (WHITE_BOX, DATA, FAMILY, FOREIGN)
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
    found = {key: value for key, value in asdict(answer).items() if key not in ("correct", "as_asked")}
    numbers = {
        "accuracy": answer.accuracy,
        "images": len(answer.correct),
        "marked as asked": int(answer.as_asked.sum()),
    }
    return {**found, **numbers}
