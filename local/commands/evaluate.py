"""`make evaluate`: evaluate a model on held-out recordings.

With TRAIN, a model is trained on those recordings and evaluated on all of SESSION. Without, the second half
of SESSION is predicted block by block, each by a model trained on everything before it. All of it runs twice
more on meaningless labels: skill on these is a leak. With REFERENCE, the USD-M perpetuals of the minutes of
both, rows know the perpetual of their market, and the figures say what it adds as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import to_builtins
from rich.console import Console
from rich.table import Table

from cdk.config import PredictionConfig
from local.commands.command import Command, ExitStatus, add_reference, number_of, print_last_line
from local.commands.earnings_table import earnings_table
from local.commands.reference_gain import ALL, coverage, gains, without_reference
from local.exchange import recording
from local.exchange.events import Quote, Tick, Trade
from local.exchange.recording import Recording
from local.exchange.reference import reference_feed, references_of, refuse_useless
from local.system import progress
from local.system.options import OptionsError
from local.system.seed import as_of_arrival, reference_array, tick_arrays
from tickcast.evaluation.backtest import (
    AGES_MS,
    AtAge,
    BacktestRows,
    EvaluationError,
    Holdout,
    holdout,
    predict,
    train_and_fit_line,
    walk_forward,
)
from tickcast.evaluation.backtest_figures import (
    REGIMES,
    earnings_at_delivery,
    figures_by_age,
    figures_by_horizon,
    masked_figures,
)
from tickcast.evaluation.baselines import BASELINES, LAST_TRADE, LINE
from tickcast.evaluation.leakage import Relabel, detects_leakage, shifted, shuffled
from tickcast.features.bars import Bars, segments
from tickcast.market.ticks import Quotes
from tickcast.model.card import NetworkShape
from tickcast.model.dataset import Rows, training_rows
from tickcast.model.fit import TrainingSettings
from tickcast.model.thinning import by_symbol
from tickcast.model.training import Training

SERVED = PredictionConfig()  # as an environment is configured that says nothing else
MAX_FEE_BP = 1000.0
PICTURE = Path("out") / "evaluation.png"
NO_TEST_BLOCK = replace(TrainingSettings(), test_share=0.0)  # the rows to evaluate on are others


@dataclass(frozen=True)
class Evaluation:
    """`figures` is the last line of the output, `rows` what they are computed from."""

    figures: dict[str, Any]
    rows: BacktestRows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--session", nargs="+", type=Path, required=True, metavar="FILE", help="to evaluate on"
    )
    parser.add_argument("--train", nargs="*", type=Path, default=[], metavar="FILE", help="to train on")
    add_reference(parser)
    parser.add_argument(
        "--latency-ms",
        type=number_of("LATENCY"),
        choices=AGES_MS,
        default=200,
        help="from the row to the prediction's delivery",
    )
    parser.add_argument(
        "--fee-bp", type=_fee, default=SERVED.fee_bp, help="of one side of a trade, in basis points"
    )
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="PNG")


def _fee(text: str) -> float:
    fee_bp = number_of("FEE", float)(text)
    if not 0 <= fee_bp <= MAX_FEE_BP:
        raise argparse.ArgumentTypeError(f"FEE is {text!r}; it should be from 0 to {MAX_FEE_BP:g} bp")
    return fee_bp


def evaluate(
    session: Sequence[Path],
    train: Sequence[Path],
    latency_ms: int,
    reference: Sequence[Path] = (),
    fee_bp: float = SERVED.fee_bp,
) -> Evaluation:
    """Evaluate on `session` a model trained on `train`, or by walk-forward where that is empty.

    `latency_ms`, in steps of 100, is the time from the row to the prediction's delivery; `fee_bp` the fee of
    one side of a trade. Raises `OptionsError` where a file of `session` and one of `train` share a symbol and
    time, or two of one list do; `UnusableReference` where one of `reference` is of no use to any of them;
    `RecordingError`, `TrainingError`, `EvaluationError`.
    """
    held_out, trained_on, perpetuals = (
        [recording.inspect(path) for path in paths] for paths in (session, train, reference)
    )
    refuse_overlap(held_out, trained_on)
    refuse_useless(perpetuals, [*held_out, *trained_on])
    bars = bars_of(held_out, perpetuals)
    segments_ = [(each.symbol, training_rows(each.bars)) for each in bars]
    holdouts = [holdout(each.bars, each.symbol) for each in bars]
    quoted = sum(len(each.rows.end_us) for each in holdouts)
    if not quoted:
        raise EvaluationError(
            "SESSION has no rows with quotes: nothing is evaluated against a price that is an estimate"
        )
    to_train_on = (
        [(each.symbol, training_rows(each.bars)) for each in bars_of(trained_on, perpetuals)]
        if trained_on
        else None
    )
    figures: dict[str, Any] = {
        "mode": "train" if trained_on else "walk-forward",
        "session": [path.name for path in session],
        "train": [path.name for path in train],
        "train_shares_time": _share_time(
            held_out, trained_on
        ),  # with SESSION, of another symbol: markets move together
        "latency_ms": latency_ms,
        "quotes_share": round(quoted / (quoted + sum(each.unquoted for each in holdouts)), 4),
    }
    forecast: Callable[[list[Holdout]], BacktestRows]
    if to_train_on is None:
        markets = by_symbol(segments_)
        forecast = partial(walk_forward, markets, settings=NO_TEST_BLOCK, latency_ms=latency_ms)
    else:
        trained = train_and_fit_line(by_symbol(to_train_on), NO_TEST_BLOCK)
        forecast = partial(predict, trained, latency_ms=latency_ms)
        figures["trained"] = _about(trained.training)
        figures["masked"] = masked_figures(trained, holdouts)
    rows = forecast(holdouts)
    figures["reference"] = None
    if reference:
        without = forecast([without_reference(each) for each in holdouts])
        figures["reference"] = {
            "files": [path.name for path in reference],
            "coverage": coverage((each.symbol, each.rows) for each in holdouts),
            "coverage_train": coverage(to_train_on or []),
        } | gains(rows, without, [each.symbol for each in holdouts], latency_ms)
    figures |= {
        "rows": len(rows.end_us),
        "span_s": _span_s(rows),
        "horizons": figures_by_horizon(rows, latency_ms),
        "by_age": figures_by_age(rows),
        "fee_bp": fee_bp,
        "earnings": to_builtins(earnings_at_delivery(rows, latency_ms, fee_bp, SERVED.min_confidence)),
        "leakage": _leakage(to_train_on, segments_, holdouts, latency_ms),
    }
    return Evaluation(figures, rows)


def _share_time(some: Sequence[Recording], others: Sequence[Recording]) -> bool:
    return any(
        one.first_us <= other.last_us and other.first_us <= one.last_us for one in some for other in others
    )


def _about(training: Training) -> dict[str, Any]:
    return {
        "rows": training.rows,
        "fitted": {symbol: each._asdict() for symbol, each in training.fitted.items()},
        "epochs": training.epochs,
        "network": to_builtins(NetworkShape.of(training.network)),
        "calibration": to_builtins(training.calibration, str_keys=True),
    }


def _leakage(
    to_train_on: list[tuple[str, Rows]] | None,
    segments_: list[tuple[str, Rows]],
    holdouts: list[Holdout],
    latency_ms: int,
) -> dict[str, bool]:
    """By kind of meaningless labels, whether there is skill on them."""
    return {
        name: detects_leakage(_on_labels(relabel, to_train_on, segments_, holdouts, latency_ms))
        for name, relabel in (("shuffled", shuffled), ("shifted", shifted))
    }


def _on_labels(
    relabel: Relabel,
    to_train_on: list[tuple[str, Rows]] | None,
    segments_: list[tuple[str, Rows]],
    holdouts: list[Holdout],
    latency_ms: int,
) -> BacktestRows:
    """The same evaluation with the labels of other rows, in training and in evaluation."""
    holdouts = [each.relabelled(relabel) for each in holdouts]
    if to_train_on is None:
        markets = by_symbol((symbol, relabel(rows)) for symbol, rows in segments_)
        return walk_forward(markets, holdouts, NO_TEST_BLOCK, latency_ms)
    markets = by_symbol((symbol, relabel(rows)) for symbol, rows in to_train_on)
    trained = train_and_fit_line(markets, NO_TEST_BLOCK)
    return predict(trained, holdouts, latency_ms)


def refuse_overlap(session: Sequence[Recording], train: Sequence[Recording]) -> None:
    """Raises `OptionsError` where two recordings hold the same symbol at the same time."""
    files = [(each, "SESSION") for each in session] + [(each, "TRAIN") for each in train]
    for number, (one, of_one) in enumerate(files):
        for other, of_other in files[number + 1 :]:
            both = one.symbols & other.symbols
            if both and one.first_us <= other.last_us and other.first_us <= one.last_us:
                why = (
                    "a model is never evaluated on rows it was trained on"
                    if of_one != of_other
                    else "they cannot be distinguished"
                )
                raise OptionsError(
                    f"{of_one} {one.path.name} and {of_other} {other.path.name} both hold "
                    f"{', '.join(sorted(both))} at the same time: {why}; name one of them only"
                )


class Segment(NamedTuple):
    symbol: str
    bars: Bars


def bars_of(recordings: Sequence[Recording], references: Sequence[Recording] = ()) -> list[Segment]:
    """The bars of every symbol, by segments, with what is known of its perpetual from those of `references`
    that match. Raises `RecordingError`."""
    ticks_of: dict[str, list[Tick]] = {}
    for sending in recording.merge(recordings):
        if isinstance(sending.event, Trade | Quote):
            ticks_of.setdefault(sending.event.symbol, []).append(sending.event)
    return [
        Segment(symbol, bars)
        for symbol, ticks in sorted(ticks_of.items())
        for bars in segments(*tick_arrays(ticks), _reference_of(symbol, recordings, references))
    ]


def _reference_of(symbol: str, recordings: Sequence[Recording], references: Sequence[Recording]) -> Quotes:
    feed = reference_feed(symbol, references_of(symbol, references, recordings))
    return reference_array(map(as_of_arrival, feed))


def show(evaluation: Evaluation, console: Console) -> None:
    figures = evaluation.figures
    by = f"trained on {', '.join(figures['train'])}" if figures["train"] else "walk-forward"
    console.print(
        f"[bold]evaluation[/bold]: {figures['rows']} rows with quotes over {figures['span_s']} s of "
        f"{', '.join(figures['session'])}; {by}; {figures['quotes_share']:.0%} of rows had quotes"
    )
    console.print(_table(figures["horizons"], figures["latency_ms"]))
    if figures["reference"]:
        console.print(_reference_table(figures["reference"]))
    console.print(_age_table(figures["by_age"]))
    console.print(earnings_table(figures["earnings"], figures["fee_bp"]))
    if figures["train_shares_time"]:
        console.print("[bold]TRAIN and SESSION overlap in time[/bold]: their markets moved together")
    for name, found in figures["leakage"].items():
        result = "[bold red]skill: there is a leak[/bold red]" if found else "no skill, as expected"
        console.print(f"on {name} labels: {result}")
    console.print("brackets: 95 % by bootstrap of moving blocks; skill: 1 - MSE / MSE of no change")


def _table(horizons: dict[str, Any], latency_ms: int) -> Table:
    table = Table(title="skill and calibration on held-out rows")
    table.add_column("")
    for horizon in horizons:
        table.add_column(f"{horizon} s", justify="right")

    def line(title: str, text: Callable[[dict[str, Any]], str]) -> None:
        table.add_row(title, *(text(figures) for figures in horizons.values()))

    line(f"skill at delivery, {latency_ms} ms", partial(_with_interval, "skill_at_delivery"))
    line("  against linear imbalance", partial(_with_interval, "skill_vs_linear_at_delivery"))
    for regime in REGIMES:
        line(f"  {regime} volatility", partial(_of_regime, regime))
    for name in BASELINES:
        line(f"  of {name.replace('_', ' ')}", partial(_of_baseline, name))
    line("  by CRPS", partial(_with_interval, "crps_skill"))
    line("  by interval score", partial(_with_interval, "interval_score_skill"))
    line("direction at delivery, of moves", partial(_with_interval, "direction_at_delivery"))
    line("inside the 80 % interval", partial(_with_interval, "coverage80"))
    line("calibration error", partial(_with_interval, "calibration_error"))
    line("  its floor", lambda each: f"{each['calibration_floor']:.3f}")
    line("skill as of the row, age 0", partial(_with_interval, "skill"))
    line("  against linear imbalance", partial(_with_interval, "skill_vs_linear"))
    line(
        "  on a 1 s grid (worst, best)",
        lambda each: "{skill:+.3f} ({worst:+.3f}, {best:+.3f})".format(**each["grid_1s"]),
    )
    line("direction, of moves", partial(_with_interval, "direction"))
    return table


def _reference_table(reference: dict[str, Any]) -> Table:
    name = "skill_gain_by_reference_at_delivery"
    table = Table(title=f"skill at delivery that the perpetual adds ({', '.join(reference['files'])})")
    table.add_column("market (rows with the perpetual)")
    for horizon in reference[name]:
        table.add_column(f"{horizon} s", justify="right")
    for symbol in (ALL, *reference["coverage"]):
        known = f"{symbol} ({reference['coverage'][symbol]:.0%})" if symbol != ALL else ALL
        pairs = zip(reference[name].values(), reference[f"{name}_ci"].values(), strict=True)
        cells = [
            f"{gain[symbol]:+.3f} [{interval[symbol][0]:+.3f}, {interval[symbol][1]:+.3f}]"
            if symbol in gain
            else ""
            for gain, interval in pairs
        ]
        table.add_row(known, *cells)
    return table


def _age_table(by_age: dict[str, Any]) -> Table:
    table = Table(title="skill of the move still to come, by the age at which a prediction is read")
    table.add_column("age, ms", justify="right")
    for horizon in by_age["0"]:
        table.add_column(f"{horizon} s", justify="right")
    for age_ms, horizons in by_age.items():
        table.add_row(age_ms, *(_with_interval("skill", figures) for figures in horizons.values()))
    return table


def _with_interval(name: str, figures: dict[str, Any]) -> str:
    """A figure and its interval; empty where there is none."""
    if name not in figures:
        return ""
    low, high = figures[f"{name}_ci"]
    return f"{figures[name]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _of_regime(regime: str, figures: dict[str, Any]) -> str:
    return _with_interval("skill_at_delivery", figures["regimes"].get(regime, {}))


def _of_baseline(name: str, figures: dict[str, Any]) -> str:
    return f"{figures['baselines_at_delivery'][name]:+.3f}"


def draw(evaluation: Evaluation, path: Path) -> None:
    """Skill at delivery and that of baselines, skill by age, coverage, and reliability of the confidence: a
    PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy, and only here
    from matplotlib.figure import Figure

    horizons = evaluation.figures["horizons"]
    delivered = evaluation.rows.ages[evaluation.figures["latency_ms"]]
    picture = Figure(figsize=(17, 4), layout="constrained")
    FigureCanvasAgg(picture)
    skills, ages, coverage, reliability = picture.subplots(1, 4)
    _draw_skill(horizons, skills)
    _draw_ages(evaluation.figures["by_age"], ages)
    _draw_coverage(horizons, coverage)
    _draw_reliability(evaluation.rows, delivered, list(horizons), reliability)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _draw_skill(horizons: dict[str, Any], axes: Any) -> None:
    at = np.arange(len(horizons))
    skill = np.array([each["skill_at_delivery"] for each in horizons.values()])
    bounds = np.array([each["skill_at_delivery_ci"] for each in horizons.values()]).T
    axes.bar(at - 0.2, skill, 0.2, yerr=np.abs(bounds - skill), capsize=3, label="skill")
    for shift, name in ((0.0, LINE), (0.2, LAST_TRADE)):
        values = [each["baselines_at_delivery"][name] for each in horizons.values()]
        axes.bar(at + shift, values, 0.2, label=name.replace("_", " "))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(at, [f"{horizon} s" for horizon in horizons])
    axes.set_title("skill at delivery, 95 %")
    axes.legend()


def _draw_ages(by_age: dict[str, Any], axes: Any) -> None:
    age_ms = [int(age) for age in by_age]
    for horizon in by_age["0"]:
        skill = [each[horizon]["skill"] for each in by_age.values()]
        low, high = zip(*(each[horizon]["skill_ci"] for each in by_age.values()), strict=True)
        (curve,) = axes.plot(age_ms, skill, marker="o", markersize=3, label=f"{horizon} s")
        axes.fill_between(age_ms, low, high, color=curve.get_color(), alpha=0.1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_title("skill of the move still to come, by age (ms)")
    axes.legend()


def _draw_coverage(horizons: dict[str, Any], axes: Any) -> None:
    at = np.arange(len(horizons))
    coverage = np.array([each["coverage80"] for each in horizons.values()])
    bounds = np.array([each["coverage80_ci"] for each in horizons.values()]).T
    axes.errorbar(at, coverage, np.abs(bounds - coverage), fmt="o", capsize=3)
    axes.axhspan(0.76, 0.84, alpha=0.15)
    axes.set_xticks(at, [f"{horizon} s" for horizon in horizons])
    axes.set_title("share inside the 80 % interval")


def _draw_reliability(rows: BacktestRows, delivered: AtAge, horizons: list[str], axes: Any) -> None:
    """Confidence in the direction against the share that was right, in bins of equal counts."""
    axes.plot([0.5, 1], [0.5, 1], color="black", linewidth=0.8)
    for at, horizon in enumerate(horizons):
        moved = delivered.moves_bp[:, at] != 0
        confidence = rows.confidence[moved, at]
        right = np.sign(delivered.expected_bp[moved, at]) == np.sign(delivered.moves_bp[moved, at])
        order = np.array_split(np.argsort(confidence, kind="stable"), 10)
        points = [(confidence[each].mean(), right[each].mean()) for each in order if len(each)]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{horizon} s")
    axes.set_title("direction, given a move: confidence and share right")
    axes.legend()


def _span_s(rows: BacktestRows) -> float:
    """The time that the rows cover, in all segments together."""
    spans = [np.ptp(rows.end_us[rows.segment == each]) for each in np.unique(rows.segment)]
    return round(float(sum(spans)) / 1e6, 1)


def run(given: argparse.Namespace) -> ExitStatus:
    """Evaluate on recordings; the last line on stdout is the result."""
    steps = progress.to_stderr()
    steps.say("[bold]tickcast evaluate[/bold]: reading recordings, training, evaluating")
    evaluation = evaluate(given.session, given.train, given.latency_ms, given.reference, given.fee_bp)
    draw(evaluation, given.picture)
    show(evaluation, progress.wide_console())
    steps.say(f"plot: {given.picture}")
    first = ("rows", "span_s", "quotes_share", "horizons")
    print_last_line({name: evaluation.figures[name] for name in first} | evaluation.figures)
    return ExitStatus.OK


COMMAND = Command(
    "evaluate",
    "evaluate a model on held-out recordings; the last line is JSON",
    add_arguments,
    run,
)
