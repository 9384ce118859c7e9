"""What AWS charges for a unit, from a file of its own for each region: the only place where prices are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from operations.failures import OperationRefused

FOLDER = Path(__file__).parent
PRICED_REGION = "ap-northeast-1"

Text = Annotated[str, Meta(min_length=1)]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """USD for one `unit`; `date` is that of the price, `confidence` is explained at the top of the file."""

    id: Text
    value: Annotated[float, Meta(gt=0)]
    unit: Text
    source: Text
    date: Annotated[str, Meta(pattern=r"^20[0-9]{2}(-[0-9]{2}){0,2}$")]
    confidence: Literal["A", "B", "C", "D"]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    prices: list[Price]


class Prices:
    """The prices of one region, by id."""

    def __init__(self, region: str, prices: list[Price]) -> None:
        """Raises ValueError if an id is there twice."""
        self.region = region
        self.by_id = {price.id: price for price in prices}
        if len(self.by_id) < len(prices):
            ids = [price.id for price in prices]
            twice = ", ".join(sorted({each for each in ids if ids.count(each) > 1}))
            raise ValueError(f"more than one price of {twice}")

    def __getitem__(self, price_id: str) -> Price:
        """Raises `OperationRefused` naming the id and the file."""
        if price_id not in self.by_id:
            raise OperationRefused(
                f"no price of {price_id}: add it with its source to operations/cost/{_name(self.region)}"
            )
        return self.by_id[price_id]


def parse(region: str, text: str) -> Prices:
    """The prices of `region` in the YAML `text`. Raises ValueError that names what is wrong."""
    return Prices(region, msgspec.convert(yaml.safe_load(text), _File).prices)


@cache
def prices(region: str = PRICED_REGION) -> Prices:
    """Raises `OperationRefused` if there is no file for `region`, or an error is in it."""
    file = FOLDER / _name(region)
    if not file.exists():
        known = ", ".join(sorted(path.stem.removeprefix("prices-") for path in FOLDER.glob("prices-*.yaml")))
        raise OperationRefused(
            f"no prices of {region} (there are those of {known}): add operations/cost/{file.name}"
        )
    try:
        return parse(region, file.read_text("utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise OperationRefused(f"operations/cost/{file.name}: {error}") from None


def _name(region: str) -> str:
    return f"prices-{region}.yaml"
