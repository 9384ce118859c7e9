"""`python -m benchmarks.latency_budget`: the tables of docs/latency.md, milliseconds and dollars by preset.

A calculation, not a measurement: `STAGES`, `operations.cost.measured` and the price file say where each
figure is from. One symbol with
`TICKS_PER_S` ticks a second, one ingest task, one shard, Tokyo, a month of 730 hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from operations.cost import usage
from operations.cost.measured import MONTH_S, POLL_EVERY_MS, RECORD_BYTES, ROUND_TRIP_MS, TICK_BYTES
from operations.cost.prices import prices

TICKS_PER_S = 200
PREDICT_EVERY_MS = 100


class Stage(NamedTuple):
    ms: float
    source: str


# From the as-of instant, which is the newest tick when a record leaves, to an answer in the hot store.
STAGES = {
    "exchange → ingest": Stage(5, "assumed: same region"),
    "put": Stage(12, "assumed: one PutRecords call in the region"),
    "invoke": Stage(8, "assumed: the event reaches a warm function"),
    "Redis": Stage(ROUND_TRIP_MS, "assumed: one round trip between zones"),
}
FAN_OUT_MS = 70  # average from put to delivery (Amazon Kinesis Data Streams Developer Guide)

# Skill of the remaining move by age (ms), horizons 1 and 2 s: held-out minutes of spot BTC, 2024-08-08.
SKILL = {
    0: (0.160, 0.137),
    100: (0.121, 0.109),
    200: (0.097, 0.088),
    300: (0.078, 0.071),
    500: (0.055, 0.048),
    1000: (0.029, 0.022),
}


@dataclass(frozen=True)
class Preset:
    fan_out: bool
    linger_ms: int
    memory_mb: int

    @property
    def compute_ms(self) -> float:
        return usage.compute_ms(self.memory_mb)

    @property
    def delivery_ms(self) -> float:
        """From put to event of the newest record. A poll finds one that is half a linger old on average."""
        return FAN_OUT_MS if self.fan_out else self.linger_ms / 2

    @property
    def ready_ms(self) -> float:
        """From the as-of instant to an answer that can be read."""
        return sum(stage.ms for stage in STAGES.values()) + self.delivery_ms + self.compute_ms

    @property
    def every_ms(self) -> float:
        """Between two answers: as often as configured, but no more often than records or polls come."""
        return max(PREDICT_EVERY_MS, self.linger_ms, 0 if self.fan_out else POLL_EVERY_MS)

    @property
    def age_ms(self) -> float:
        """Of what is read at a random moment, on average: half the time between two answers is added."""
        return self.ready_ms + self.every_ms / 2

    @property
    def records_per_s(self) -> float:
        return 1000 / self.linger_ms

    @property
    def invocations_per_s(self) -> float:
        return self.records_per_s if self.fan_out else 1000 / POLL_EVERY_MS

    @property
    def put_dollars(self) -> float:
        """A record is far below the 25 KB of a unit."""
        return self.records_per_s * MONTH_S * _price("kinesis_put_unit")

    @property
    def fan_out_dollars(self) -> float:
        if not self.fan_out:
            return 0.0
        bytes_per_s = TICKS_PER_S * TICK_BYTES + self.records_per_s * RECORD_BYTES
        hours, gigabytes = MONTH_S / 3600, bytes_per_s * MONTH_S / 1e9
        return hours * _price("kinesis_fan_out_shard") + gigabytes * _price("kinesis_fan_out_gb")

    @property
    def lambda_dollars(self) -> float:
        """Requests and GB-seconds."""
        gb_s = usage.billed_s(self.memory_mb) * self.memory_mb / 1024
        each = _price("lambda_request") + gb_s * _price("lambda_x86_gb_s")
        return self.invocations_per_s * MONTH_S * each

    @property
    def dollars(self) -> float:
        return self.put_dollars + self.fan_out_dollars + self.lambda_dollars


PRESETS = [
    Preset(fan_out, linger_ms, memory_mb)
    for fan_out in (False, True)
    for linger_ms in (25, 50, 100)
    for memory_mb in (512, 1024, 1769)
]


def skill_at(age_ms: float) -> tuple[float, float]:
    """At horizons of 1 and 2 s; linear between the measured ages, those of 1000 ms beyond."""
    ages = sorted(SKILL)
    if age_ms >= ages[-1]:
        return SKILL[ages[-1]]
    younger = max(age for age in ages if age <= age_ms)
    older = min(age for age in ages if age > age_ms)
    share = (age_ms - younger) / (older - younger)
    one, two = (a + (b - a) * share for a, b in zip(SKILL[younger], SKILL[older], strict=True))
    return one, two


def preset_table() -> str:
    """Markdown: what each preset takes and costs."""
    rows = [
        "| delivery | linger | memory | delivery ms | fold, infer ms | ready ms | every ms | age ms | "
        "skill 1 s | 2 s | PUT $ | fan-out $ | Lambda $ | $ a month |",
        "|---|" + "---:|" * 13,
    ]
    for each in PRESETS:
        one, two = skill_at(each.age_ms)
        rows.append(
            f"| {'fan-out' if each.fan_out else 'polling'} | {each.linger_ms} | {each.memory_mb} | "
            f"{each.delivery_ms:.0f} | {each.compute_ms:.1f} | {each.ready_ms:.0f} | {each.every_ms:.0f} | "
            f"{each.age_ms:.0f} | {_skill(one)} | {_skill(two)} | {each.put_dollars:.2f} | "
            f"{each.fan_out_dollars:.2f} | {each.lambda_dollars:.2f} | {each.dollars:.2f} |"
        )
    return "\n".join(rows)


def worth_table() -> str:
    """Markdown: what a millisecond costs at each age."""
    rows = [
        "| age ms | skill 1 s | 2 s | a ms costs, 1 s | share of the skill, 1 s | 2 s |",
        "|---|" + "---:|" * 5,
    ]
    ages = sorted(SKILL)
    for younger, older in zip(ages, ages[1:], strict=False):
        (one, two), after, width_ms = SKILL[younger], SKILL[older], older - younger
        rows.append(
            f"| {younger} to {older} | {_skill(one)} | {_skill(two)} | "
            f"{(one - after[0]) / width_ms:.5f} | {math.log(one / after[0]) / width_ms:.2%} | "
            f"{math.log(two / after[1]) / width_ms:.2%} |"
        )
    return "\n".join(rows)


def stage_table() -> str:
    """Markdown: the stages that are the same in every preset."""
    rows = ["| stage | ms | from |", "|---|---:|---|"]
    return "\n".join(
        rows + [f"| {name} | {stage.ms:.0f} | {stage.source} |" for name, stage in STAGES.items()]
    )


def _price(price_id: str) -> float:
    return prices()[price_id].value


def _skill(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main() -> None:
    print(stage_table(), preset_table(), worth_table(), sep="\n\n")


if __name__ == "__main__":
    main()
