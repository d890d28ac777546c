"""Learning curves."""

from __future__ import annotations

from job.report.html import drawing, plots, scoring
from job.report.html.blocks import Paragraph, Picture, Section, Table, numbers_from
from job.report.html.curves import Curve, curve, thinned
from job.report.html.drawing import Draw
from job.report.html.plots import Marks
from job.report.html.run_files import RunFiles

MOST_EVALUATIONS = 100
FOLDED_FROM = 12
TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "examples_per_second": "Examples per second",
}


def section(run: RunFiles) -> Section | None:
    """Curves of loss, score, learning rate, gradient norm and speed; None if nothing is trained."""
    if not run.settings.get("do_train", True):
        return None
    if not run.records:
        return Section("learning", "Learning curves", [Paragraph("No step has been recorded yet.")])
    blocks: list[Paragraph | Picture | Table] = [
        Picture(f"curve-{name}", title, _described(curves, run), drawing.svg(f"curve-{name}", draw))
        for name, (title, curves, draw) in pictures(run).items()
    ]
    return Section("learning", "Learning curves", [Paragraph(_marked(run)), *blocks, *_evaluations(run)])


def pictures(run: RunFiles) -> dict[str, tuple[str, dict[str, Curve], Draw]]:
    """Name -> title, curves and drawing of each picture that has data."""
    train, evaluations = run.of_split("train"), run.of_split("eval")
    number = scoring.deciding_number(run)
    found = {
        "loss": {"training": curve(train, "loss"), "evaluation": curve(evaluations, "loss")},
        **({} if number == "loss" else {number: {"evaluation": curve(evaluations, number)}}),
        **{name: {"training": curve(train, name)} for name in TITLES if name != "loss"},
    }
    made = {}
    for name, all_curves in found.items():
        curves = {label: thinned(one) for label, one in all_curves.items() if len(one)}
        if curves:
            draw = plots.curves(curves, marks(run), name.replace("_", " "), frozenset({"evaluation"}))
            title = TITLES.get(name, f"Score: {name}")
            made["score" if name == number and name != "loss" else name] = (title, curves, draw)
    return made


def marks(run: RunFiles) -> Marks:
    """The best step (so far, for an active run) and the steps from which the run was restarted."""
    best = [record["step"] for record in run.of_split("eval") if record.get("best")]
    last = run.results.get("best_step") or (best[-1] if best else None)
    return Marks(last, sorted(set(run.manifest.get("restart_steps", ()))))


def _marked(run: RunFiles) -> str:
    marked = marks(run)
    words = [] if marked.best is None else [f"The best evaluation is at step {marked.best:,} (dash-dotted line)."]
    if marked.restarts:
        steps = ", ".join(f"{step:,}" for step in marked.restarts)
        words.append(f"The run was restarted from the checkpoint of step {steps} (dotted lines).")
    else:
        words.append("The run was not restarted.")
    return " ".join(words)


def _described(curves: dict[str, Curve], run: RunFiles) -> str:
    sentences = []
    for name, one in curves.items():
        least, most = one.values.argmin(), one.values.argmax()
        sentences.append(
            f"{name.capitalize()}: {_short(one, 0)}, {_short(one, -1)}; lowest {_short(one, int(least))}, "
            f"highest {_short(one, int(most))}."
            if len(one) > 1
            else f"{name.capitalize()}: {_short(one, 0)}."
        )
    return " ".join(sentences)


def _short(one: Curve, place: int) -> str:
    return f"{one.values[place]:.4g} at step {one.steps[place]:,}"


def _evaluations(run: RunFiles) -> list[Table]:
    records = run.of_split("eval")
    if not records:
        return []
    names = [name for name in records[-1] if name not in ("step", "epoch", "split", "best")]
    columns = ["step", "epoch", *names, "best so far"]
    rows = [
        [
            f"{record['step']:,}",
            *(_cell(record.get(name)) for name in ("epoch", *names)),
            "yes" if record.get("best") else "",
        ]
        for record in records[-MOST_EVALUATIONS:]
    ]
    left_out = len(records) - len(rows)
    caption = "Evaluations" + (f", the last {MOST_EVALUATIONS} of {len(records):,}" if left_out else "")
    return [Table(caption, columns, rows, numbers_from(0, columns[:-1]), folded=len(rows) > FOLDED_FROM)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
