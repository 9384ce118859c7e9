"""Outcomes and their scores in PostgreSQL, in the tables of `migrations/`.

Tallies and the other sums of a minute are recomputed from the table of outcomes for every minute that gets
new ones: so they depend on the stored outcomes alone, wherever an earlier run was interrupted. Counts of
features are added up instead, in one transaction with the position in the hot store's streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

import msgspec
import numpy as np
import psycopg
from msgspec.structs import asdict
from psycopg.types.json import Jsonb

from tickcast.evaluation.baselines import LIVE_DAMPING
from tickcast.evaluation.challenger_scores import SHADOWED, Shadowed
from tickcast.evaluation.distribution_scores import MISS_WEIGHT, SCALE_OF_HALF_WIDTH
from tickcast.evaluation.drift import BINS as FEATURE_BINS
from tickcast.evaluation.drift import Counts, DriftState
from tickcast.evaluation.earnings import EARNED, NOT_ACTED_ON, THRESHOLDS_BP, Earned
from tickcast.evaluation.earnings import SUMS as EARNED_SUMS
from tickcast.evaluation.gate import Shadow
from tickcast.evaluation.live_scores import BINS, SUMS, TALLY, Tallies
from tickcast.evaluation.regimes import (
    DECIMALS,
    HOUR,
    HOURS_EACH,
    LIMITS,
    REGIME_TALLY,
    SPREAD,
    VOLATILITY,
    RegimeTallies,
)
from tickcast.evaluation.remainders import REMAINDER, Remainders
from tickcast.evaluation.steps import STEP, Steps
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.outcomes import RESOLVED
from tickcast.serving.records import Outcome, encode
from tickcast.units import HOUR_US, MINUTE_US, SECOND_US

BEGINNING = "0-0"  # before the first entry of any stream
SHADOW_ROWS = 400_000  # half a day of two markets: about 100 MB

# By the names that `row_of` gives the values.
_ADD: LiteralString = """
insert into tickcast.outcomes (
    symbol, target_us, horizon_s, predicted_us, source, reason, model_id, why, basis_price, outcome_price,
    move_bp, expected_move_bp, scale_bp, confidence, p_flat, imbalance, abstains, is_inside, is_right,
    latency_ms, challenger_id, challenger_move_bp, delivered_price, half_width_bp, hindsight_move_bp,
    hindsight_expected_bp, spread_bp, fee_bp, worth_trading, spread_paid_bp)
values (
    %(symbol)s, %(target_us)s, %(horizon_s)s, %(predicted_us)s, %(source)s, %(reason)s, %(model_id)s, %(why)s,
    %(basis_price)s, %(outcome_price)s, %(move_bp)s, %(expected_move_bp)s, %(scale_bp)s, %(confidence)s,
    %(p_flat)s, %(imbalance)s, %(abstains)s, %(inside)s, %(right)s, %(latency_ms)s, %(challenger_id)s,
    %(challenger_move_bp)s, %(delivered_price)s, %(half_width_bp)s, %(hindsight_move_bp)s,
    %(hindsight_expected_bp)s, %(spread_bp)s, %(fee_bp)s, %(worth_trading)s, %(spread_paid_bp)s)
on conflict do nothing"""
_FORECAST: LiteralString = "filter (where expected_move_bp is not null)"
_EXPECTED: LiteralString = "expected_move_bp"
_SCALE: LiteralString = f"(half_width_bp * {SCALE_OF_HALF_WIDTH!r})"


def _crps(expected: LiteralString) -> LiteralString:
    """As `distribution_scores.crps`."""
    to_outcome, to_flat = (_mean_distance(f"abs({at} - {expected})") for at in ("move_bp", "0"))
    of_move = f"{to_outcome} - p_flat * ({to_flat}) - 0.75 * (1 - p_flat) * {_SCALE}"
    return f"p_flat * abs(move_bp) + (1 - p_flat) * ({of_move})"


def _mean_distance(size: LiteralString) -> LiteralString:
    return f"{size} + {_SCALE} * exp(-least({size} / {_SCALE}, 700))"


def _interval_score(expected: LiteralString) -> LiteralString:
    """As `distribution_scores.interval_score`."""
    miss: LiteralString = f"abs(move_bp - {expected})"
    return f"2 * half_width_bp + {MISS_WEIGHT!r} * greatest({miss} - half_width_bp, 0)"


# σ (bp per √s), and the input of the line, as `baselines.live_slope` takes it.
_SIGMA: LiteralString = "(scale_bp / sqrt(horizon_s::float8))"
_DAMPING: LiteralString = " ".join(f"when {h} then {each!r}" for h, each in LIVE_DAMPING.items())
_LINE: LiteralString = (
    f"(imbalance * scale_bp * power(nullif({_SIGMA}, 0), case horizon_s {_DAMPING} end::float8))"
)

# The sums of `live_scores.SUMS`, and those of σ and the spread. Moves without delivered_price are of earlier
# releases, from the prediction's own instant on: they are left out, as are tallies of them, without crps.
# Where no price is known, the move is null, and sums ignore it.
_TALLY: LiteralString = f"""
insert into tickcast.tallies (
    symbol, minute_us, horizon_s, model_id, is_model, abstains, why, bin, first_us, last_us, count, moved,
    rights, confidence, inside, squared_error, squared_move, crps, crps_of_no_change, interval_score,
    interval_score_of_no_change, hindsight_squared_error, hindsight_squared_move, squared_line, line_move,
    sigma_bp, spread_bp)
select symbol, target_us / {MINUTE_US} * {MINUTE_US}, horizon_s, model_id, source = 'model', abstains, why,
    least(greatest(width_bucket(confidence, 0.5, 1.0, {BINS}) - 1, 0), {BINS - 1}),
    min(target_us), max(target_us), count(*),
    count(is_right), count(*) filter (where is_right),
    coalesce(sum(confidence) filter (where is_right is not null), 0), count(*) filter (where is_inside),
    coalesce(sum((move_bp - expected_move_bp) ^ 2), 0), coalesce(sum(move_bp ^ 2) {_FORECAST}, 0),
    coalesce(sum({_crps(_EXPECTED)}), 0), coalesce(sum({_crps("0")}), 0),
    coalesce(sum({_interval_score(_EXPECTED)}), 0), coalesce(sum({_interval_score("0")}), 0),
    coalesce(sum((hindsight_move_bp - hindsight_expected_bp) ^ 2), 0),
    coalesce(sum(hindsight_move_bp ^ 2) filter (where hindsight_expected_bp is not null), 0),
    coalesce(sum({_LINE} ^ 2) filter (where move_bp is not null and expected_move_bp is not null), 0),
    coalesce(sum({_LINE} * move_bp) {_FORECAST}, 0),
    avg({_SIGMA}) * count(*), avg(spread_bp) * count(*)
from tickcast.outcomes
where symbol = %(symbol)s and target_us >= %(from_us)s and target_us < %(to_us)s
    and (move_bp is null or delivered_price is not null)
group by 1, 2, 3, 4, 5, 6, 7, 8"""
_KNOWN = {  # of minutes that were tallied with the line
    f"line_{name}": f"case when line_move is not null then {name} end"
    for name in ("squared_error", "squared_move")
}
_READ: LiteralString = (
    "select minute_us / %(block_us)s, horizon_s, is_model, abstains, why, bin, sum(count)::float8, "
    + ", ".join(f"coalesce(sum({_KNOWN.get(name, name)}), 0)::float8" for name in SUMS)
    + """
from tickcast.tallies
where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
    and (%(model_id)s::text is null or model_id = %(model_id)s)
    and crps is not null
group by 1, 2, 3, 4, 5, 6
order by 1"""
)
# The sums of `steps.STEP`.
_READ_STEPS: LiteralString = """
select minute_us / %(block_us)s, horizon_s, sum(count)::float8, sum(inside)::float8, sum(squared_error),
    sum(squared_move)
from tickcast.tallies
where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
    and is_model and why = '' and crps is not null
group by 1, 2"""
# As `earnings.earned`, by minute; the sums are `earnings.SUMS`, in that order. Outcomes without a spread or a
# fee are of earlier releases, and are left out.
_EARN: LiteralString = f"""
insert into tickcast.earnings (
    symbol, minute_us, horizon_s, model_id, step, worth_trading, count, directions, moves, gross, spread,
    fees)
select symbol, target_us / {MINUTE_US} * {MINUTE_US}, horizon_s, model_id,
    case when direction = 0 then {NOT_ACTED_ON}
        else width_bucket(abs(expected_move_bp), array{list(THRESHOLDS_BP)!r}::float8[]) - 1 end,
    direction <> 0 and worth_trading,
    count(*), sum(direction), sum(move_bp), sum(direction * move_bp),
    sum(abs(direction) * spread_paid_bp), sum(abs(direction) * 2 * fee_bp)
from tickcast.outcomes,
    lateral (select case when abstains then 0 else sign(expected_move_bp) end) as acted (direction)
where symbol = %(symbol)s and target_us >= %(from_us)s and target_us < %(to_us)s
    and source = 'model' and move_bp is not null and delivered_price is not null
    and expected_move_bp is not null and spread_paid_bp is not null and fee_bp is not null
    and worth_trading is not null
group by 1, 2, 3, 4, 5, 6"""
_READ_EARNED: LiteralString = (
    "select minute_us / %(block_us)s, horizon_s, step, worth_trading, "
    + ", ".join(f"sum({name})::float8" for name in EARNED_SUMS)
    + """
from tickcast.earnings
where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
group by 1, 2, 3, 4
order by 1"""
)
# The sums of `remainders.REMAINDER`: each outcome with those of the same prediction over shorter horizons,
# which are found by key.
_REMAIN: LiteralString = f"""
insert into tickcast.remainders (
    symbol, minute_us, horizon_s, age_s, count, squared_error, squared_move)
select o.symbol, o.target_us / {MINUTE_US} * {MINUTE_US}, o.horizon_s, early.horizon_s, count(*),
    sum((o.move_bp - early.move_bp - o.expected_move_bp + early.expected_move_bp) ^ 2),
    sum((o.move_bp - early.move_bp) ^ 2)
from tickcast.outcomes as o
cross join unnest(array{list(HORIZONS_S)!r}) as age (s)
join tickcast.outcomes as early on early.symbol = o.symbol and early.horizon_s = age.s
    and early.target_us = o.target_us - (o.horizon_s - age.s) * {SECOND_US}
    and early.predicted_us = o.predicted_us
where o.symbol = %(symbol)s and o.target_us >= %(from_us)s and o.target_us < %(to_us)s
    and early.target_us >= %(from_us)s - {max(HORIZONS_S) * SECOND_US} and early.target_us < %(to_us)s
    and age.s < o.horizon_s and o.source = 'model'
    and o.move_bp is not null and o.delivered_price is not null and o.expected_move_bp is not null
    and early.move_bp is not null and early.expected_move_bp is not null
group by 1, 2, 3, 4"""
_READ_REMAINDERS: LiteralString = """
select minute_us / %(block_us)s, horizon_s, age_s, sum(count)::float8, sum(squared_error), sum(squared_move)
from tickcast.remainders
where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
group by 1, 2, 3"""
# The sums of `challenger_scores.SHADOWED`.
_SHADOW: LiteralString = f"""
insert into tickcast.shadows (
    symbol, minute_us, horizon_s, challenger_id, count, squared_error, champion_squared_error, squared_move)
select symbol, target_us / {MINUTE_US} * {MINUTE_US}, horizon_s, challenger_id, count(*),
    sum((move_bp - challenger_move_bp) ^ 2), sum((move_bp - expected_move_bp) ^ 2), sum(move_bp ^ 2)
from tickcast.outcomes
where symbol = %(symbol)s and target_us >= %(from_us)s and target_us < %(to_us)s
    and source = 'model' and challenger_id is not null and challenger_move_bp is not null
    and move_bp is not null and delivered_price is not null and expected_move_bp is not null
group by 1, 2, 3, 4"""
_READ_SHADOWS: LiteralString = """
select minute_us / %(block_us)s, horizon_s, sum(count)::float8, sum(squared_error),
    sum(champion_squared_error), sum(squared_move)
from tickcast.shadows
where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
    and challenger_id = %(challenger_id)s
group by 1, 2"""
# What follows from the outcomes of a minute.
_OF_MINUTES: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("tallies", _TALLY),
    ("earnings", _EARN),
    ("remainders", _REMAIN),
    ("shadows", _SHADOW),
)
_LIMITS: LiteralString = f"array[{', '.join(map(repr, LIMITS))}]"
# The columns of `REGIME_TALLY`. A minute is of one regime of each kind, by its means.
_REGIMES: LiteralString = f"""
with minutes as materialized (
    select minute_us, horizon_s, sum(count) as count, sum(moved) as moved, sum(rights) as rights,
        sum(squared_error) as squared_error, sum(squared_move) as squared_move,
        round((sum(sigma_bp) / sum(count))::numeric, {DECIMALS[VOLATILITY]})::float8 as volatility,
        round((sum(spread_bp) / sum(count))::numeric, {DECIMALS[SPREAD]})::float8 as spread
    from tickcast.tallies
    where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s
        and is_model and why = '' and sigma_bp is not null
    group by 1, 2),
limits as (
    select horizon_s, percentile_disc({_LIMITS}) within group (order by volatility) as v,
        percentile_disc({_LIMITS}) within group (order by spread) as s
    from minutes group by 1)
select kind, regime, minute_us / %(block_us)s, horizon_s, min(value), max(value), sum(count)::float8,
    sum(moved)::float8, sum(rights)::float8, sum(squared_error), sum(squared_move)
from minutes join limits using (horizon_s)
cross join lateral (values
    ('{VOLATILITY}', (volatility > v[1])::int + (volatility > v[2])::int, volatility),
    ('{SPREAD}', (spread > s[1])::int + (spread > s[2])::int, spread),
    ('{HOUR}', (minute_us / {HOUR_US} %% 24 / {HOURS_EACH})::int, 'nan')) as regimes (kind, regime, value)
where regime is not null
group by 1, 2, 3, 4"""


class ScoreStore:
    """The scores behind one connection, which is in autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def lock(self, symbol: str) -> None:
        """Wait until no other run scores `symbol`, and keep others waiting until this transaction ends."""
        self.connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tickcast:score:{symbol}",)
        )

    def drained(self, symbol: str) -> tuple[str, str]:
        """The ids of the newest entries copied, of outcomes and of predictions."""
        query: LiteralString = "select outcome, prediction from tickcast.drained where symbol = %s"
        row = self.connection.execute(query, (symbol,)).fetchone()
        return (row[0], row[1]) if row else (BEGINNING, BEGINNING)

    def set_drained(self, symbol: str, outcome: str, prediction: str) -> None:
        self.connection.execute(
            "insert into tickcast.drained values (%s, %s, %s) on conflict (symbol) do update "
            "set outcome = excluded.outcome, prediction = excluded.prediction",
            (symbol, outcome, prediction),
        )

    def add_days(self, days_us: Iterable[int]) -> None:
        """Create the partitions of days that have none."""
        for day_us in sorted(days_us):
            self.connection.execute("select tickcast.add_day(%s)", (day_us,))

    def add_outcomes(self, symbol: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add outcomes of `symbol`, as `row_of` returns them, each once, and tally their minutes."""
        if not rows:
            return
        with self.connection.cursor() as cursor:
            cursor.executemany(_ADD, rows)
        minutes = [row["target_us"] // MINUTE_US * MINUTE_US for row in rows]
        span = {"symbol": symbol, "from_us": min(minutes), "to_us": max(minutes) + MINUTE_US}
        minutes_of: LiteralString = (
            "where symbol = %(symbol)s and minute_us >= %(from_us)s and minute_us < %(to_us)s"
        )
        for table, insert in _OF_MINUTES:
            self.connection.execute("delete from tickcast." + table + " " + minutes_of, span)
            self.connection.execute(insert, span)

    def tallies(
        self, symbol: str, from_us: int, to_us: int, block_us: int, model_id: str | None = None
    ) -> Tallies:
        """The tallies of the minutes that begin in [from_us, to_us), by blocks; of one model, if it is
        named."""
        span = {"symbol": symbol, "from_us": from_us, "to_us": to_us}
        parameters = span | {"block_us": block_us, "model_id": model_id}
        return np.array(self.connection.execute(_READ, parameters).fetchall(), TALLY)

    def earned(self, symbol: str, from_us: int, to_us: int, block_us: int) -> Earned:
        """What acting would have earned in the minutes that begin in [from_us, to_us), by blocks."""
        parameters = {"symbol": symbol, "from_us": from_us, "to_us": to_us, "block_us": block_us}
        return np.array(self.connection.execute(_READ_EARNED, parameters).fetchall(), EARNED)

    def regimes(self, symbol: str, from_us: int, to_us: int, block_us: int) -> RegimeTallies:
        """The model's outcomes of the minutes that begin in [from_us, to_us), by regime and blocks."""
        parameters = {"symbol": symbol, "from_us": from_us, "to_us": to_us, "block_us": block_us}
        return np.array(self.connection.execute(_REGIMES, parameters).fetchall(), REGIME_TALLY)

    def steps(self, symbol: str, from_us: int, to_us: int, block_us: int) -> Steps:
        """The model's outcomes of the minutes that begin in [from_us, to_us), by blocks."""
        parameters = {"symbol": symbol, "from_us": from_us, "to_us": to_us, "block_us": block_us}
        return np.array(self.connection.execute(_READ_STEPS, parameters).fetchall(), STEP)

    def remainders(self, symbol: str, from_us: int, to_us: int, block_us: int) -> Remainders:
        """What was left of forecasts at each age, of minutes that begin in [from_us, to_us), by blocks."""
        parameters = {"symbol": symbol, "from_us": from_us, "to_us": to_us, "block_us": block_us}
        return np.array(self.connection.execute(_READ_REMAINDERS, parameters).fetchall(), REMAINDER)

    def shadowed(self, symbol: str, challenger_id: str, span_us: tuple[int, int], block_us: int) -> Shadowed:
        """The outcomes that `challenger_id` had forecast too, of the minutes that begin in `span_us`, by
        blocks."""
        span = {"symbol": symbol, "from_us": span_us[0], "to_us": span_us[1], "block_us": block_us}
        parameters = span | {"challenger_id": challenger_id}
        return np.array(self.connection.execute(_READ_SHADOWS, parameters).fetchall(), SHADOWED)

    def extent(self, symbol: str) -> tuple[int, int] | None:
        """The first and the last target that is scored of `symbol`; None where there is none."""
        scored: LiteralString = "from tickcast.tallies where symbol = %(symbol)s and crps is not null"
        query: LiteralString = f"""
            select min(first_us), max(last_us) {scored}
            and minute_us in ((select min(minute_us) {scored}), (select max(minute_us) {scored}))"""
        row = self.connection.execute(query, {"symbol": symbol}).fetchone()
        return (row[0], row[1]) if row and row[0] is not None else None

    def count_features(self, symbol: str, model_id: str, hour_us: int, counts: Counts) -> None:
        """Add `counts` (features, bins) to those of the hour."""
        self.connection.execute(
            """
            insert into tickcast.feature_counts as old values (%s, %s, %s, %s)
            on conflict (symbol, hour_us, model_id) do update set counts = (
                select array_agg(a + b order by n)
                from unnest(old.counts, excluded.counts) with ordinality as pair (a, b, n))""",
            (symbol, hour_us, model_id, counts.ravel().tolist()),
        )

    def feature_counts(self, symbol: str, model_id: str, from_us: int, features: int) -> Counts:
        """The counts of the hours since that of `from_us`, added up; (features, bins)."""
        query: LiteralString = (
            "select counts from tickcast.feature_counts where symbol = %s and model_id = %s and hour_us >= %s"
        )
        hour_us = from_us // HOUR_US * HOUR_US
        found = self.connection.execute(query, (symbol, model_id, hour_us)).fetchall()
        total = np.zeros((features, FEATURE_BINS), np.int64)
        for (counts,) in found:
            total += np.reshape(counts, total.shape)
        return total

    def drift_states(self) -> dict[str, DriftState]:
        """The state of drift detection, by symbol."""
        found = self.connection.execute("select symbol, watch from tickcast.drift_watches").fetchall()
        return {symbol: msgspec.convert(state, DriftState) for symbol, state in found}

    def set_drift_states(self, states: Mapping[str, DriftState]) -> None:
        for symbol, state in states.items():
            self.connection.execute(
                "insert into tickcast.drift_watches values (%s, %s) "
                "on conflict (symbol) do update set watch = excluded.watch",
                (symbol, Jsonb(state, dumps=encode)),
            )

    def last_training(self) -> tuple[int, list[str]] | None:
        """When drift asked for a training last, and why; None if it never did."""
        query: LiteralString = (
            "select asked_us, reasons from tickcast.drift_trainings order by asked_us desc limit 1"
        )
        row = self.connection.execute(query).fetchone()
        return (row[0], list(row[1])) if row else None

    def ask_for_training(self, asked_us: int, reasons: Sequence[str]) -> None:
        self.connection.execute(
            "insert into tickcast.drift_trainings values (%s, %s)", (asked_us, list(reasons))
        )


def in_shadow(connection: psycopg.Connection[Any], champion_id: str, challenger_id: str) -> Shadow | None:
    """The forecasts of both models at the newest instants they share, with the outcomes; None without any."""
    query: LiteralString = """
        select symbol, predicted_us, horizon_s, move_bp, challenger_move_bp, expected_move_bp
        from tickcast.outcomes
        where challenger_id = %s and model_id = %s and source = 'model'
            and move_bp is not null and challenger_move_bp is not null and delivered_price is not null
        order by predicted_us desc limit %s"""
    parameters = (challenger_id, champion_id, SHADOW_ROWS)
    rows: dict[tuple[str, int], Any] = {}
    for symbol, predicted_us, horizon_s, *moves in connection.execute(query, parameters):
        row = rows.setdefault((symbol, predicted_us), np.full((3, len(HORIZONS_S)), np.nan))
        if horizon_s in HORIZONS_S:
            row[:, HORIZONS_S.index(horizon_s)] = moves
    if not rows:
        return None
    moves_bp, challenger_bp, champion_bp = np.stack(list(rows.values()), axis=1)
    return Shadow(np.array([at for _, at in rows], np.int64), moves_bp, challenger_bp, champion_bp)


def row_of(outcome: Outcome) -> dict[str, Any] | None:
    """The values of `_ADD`; None for a resolved outcome of an earlier release, which had no delivery. Raises
    ValueError on a resolved outcome without a price or move."""
    is_resolved, challenger = outcome.status == RESOLVED, outcome.challenger
    if is_resolved and None in (outcome.outcome_price, outcome.move_bp):
        raise ValueError("resolved, and without outcome_price or move_bp")
    if is_resolved and outcome.delivered_price is None:
        return None
    return asdict(outcome) | {
        "target_us": outcome.target_time * 1000,
        "predicted_us": outcome.timestamp * 1000,
        "reason": outcome.reason or "",
        "model_id": outcome.model_id or "",
        "why": "" if is_resolved else outcome.why,
        "challenger_id": challenger and challenger.model_id,
        "challenger_move_bp": challenger and challenger.expected_move_bp,
    }
