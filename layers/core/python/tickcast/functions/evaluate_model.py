"""The gate as a function: challengers against the champion, on rows that none of them has learnt from.

Challengers are the model named and the one that ran in the champion's shadow, if there is one: that has live
outcomes by now. The verdict goes onto their cards. Nothing is put in force here (`promote_model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg

from tickcast.adapters.postgres import training_rows
from tickcast.adapters.postgres.score_store import in_shadow
from tickcast.adapters.postgres.training_rows import GateRows
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import Card, Pointer, RegistryError
from tickcast.adapters.registry.model_watcher import LOAD_ERRORS, load
from tickcast.evaluation import gate
from tickcast.evaluation.backtest import fit_line
from tickcast.evaluation.gate import CHAMPION, NO_CHANGE, Block, GateDecision
from tickcast.features.vector import Floats
from tickcast.functions.request import RequestError
from tickcast.market.sources import Origin
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.prediction import ServingModel


class _Candidate:
    """A model with its card, as it takes part."""

    def __init__(self, s3: Any, bucket: str, model_id: str) -> None:
        """Raises one of `MISFITS`, or `RegistryError`, when it cannot serve."""
        self.model_id = model_id
        self.card: Card = model_registry.read_card(s3, bucket, model_id)
        self.model: ServingModel = load(s3, bucket, model_id)
        if "learned_to_us" not in self.card:
            raise RegistryError(f"the card of model {model_id} does not say up to when it has learnt")

    def moves_bp(self, judged: Sequence[GateRows]) -> Floats:
        return np.concatenate([self.model.run(each.rows.features)[0] for each in judged])


def evaluate_model(
    request: dict[str, Any],
    s3: Any,
    bucket: str,
    connection: psycopg.Connection[Any],
    symbols: Sequence[str],
    now: datetime,
) -> dict[str, Any]:
    """The verdict on `request["model_id"]`, and on the one in shadow.

    Returns what `promote_model` takes: `champion` (which was judged against, or None), `promote` (which is to
    be put in force, or None), `shadow` (which is to run in shadow, or None); and of the model named, or of
    the one to promote, the verdict. Raises `RequestError`, `RegistryError`, and what PostgreSQL raises.
    """
    model_id = request.get("model_id")
    if not isinstance(model_id, str) or not model_id:
        raise RequestError('model_id should name a model, like {"model_id": "20260101T030000Z-0a1b2c3d"}')
    pointer = model_registry.active_model(s3, bucket)
    model_registry.check_servable(s3, bucket, model_id)
    challengers = {model_id: _Candidate(s3, bucket, model_id)}
    champion = _usable(s3, bucket, pointer and pointer["model_id"])
    shadow = _usable(s3, bucket, ((pointer or {}).get("challenger") or {}).get("model_id"))
    if shadow is not None:
        challengers.setdefault(shadow.model_id, shadow)
    if pointer:
        challengers.pop(pointer["model_id"], None)
    if not challengers:
        raise RequestError(f"model {model_id} is in force already: there is nothing to judge it against")

    rivals = [*challengers.values(), *([champion] if champion else [])]
    seen_to_us = gate.unseen_from_us([rival.card for rival in rivals])
    found = training_rows.row_counts(connection, symbols, seen_to_us)
    judged = training_rows.judged_rows(connection, found, seen_to_us)
    blocks = {rival.model_id: _block(rival, champion, judged) for rival in challengers.values()}
    verdicts = {}
    for rival in challengers.values():
        verdicts[rival.model_id] = gate.decide(
            blocks[rival.model_id],
            seen_to_us,
            champion_is_provisional=_is_provisional(pointer, champion),
            is_real=not any(each.origin is Origin.SIM for each in found if each.has_quotes),
            shadow=in_shadow(connection, champion.model_id, rival.model_id) if champion else None,
        )
    answer = _answer(model_id, pointer, verdicts)
    for rival in challengers.values():
        record = _about(blocks[rival.model_id], verdicts[rival.model_id], champion, now)
        is_best = rival.model_id == answer["promote"]
        # What passed and was not the best, or does not pass any more, is not proven.
        told = {"provisional": record["provisional"] or not is_best, "gate": record | {"promoted": is_best}}
        model_registry.save_card(s3, bucket, rival.model_id, rival.card | told)
    return answer


def _usable(s3: Any, bucket: str, model_id: Any) -> _Candidate | None:
    """A model that can take part; None where there is none, or it can no longer serve."""
    if not model_id:
        return None
    try:
        return _Candidate(s3, bucket, str(model_id))
    except (*LOAD_ERRORS, RegistryError):
        return None


def _is_provisional(pointer: Pointer | None, champion: _Candidate | None) -> bool:
    if pointer is None or champion is None:
        return True
    return bool(pointer.get("provisional", champion.model.provisional))


def _block(rival: _Candidate, champion: _Candidate | None, judged: Sequence[GateRows]) -> Block:
    none = np.empty((0, len(HORIZONS_S)))
    if not judged:
        return Block(np.empty(0, str), np.empty(0, np.int64), none, none, None, {})
    guesses = [gate.baselines(each.rows.features, each.last_trade_bp, _line(rival, each)) for each in judged]
    return Block(
        np.repeat([each.symbol for each in judged], [len(each.rows.end_us) for each in judged]),
        np.concatenate([each.rows.end_us for each in judged]),
        np.concatenate([each.rows.moves_bp for each in judged]),
        rival.moves_bp(judged),
        champion.moves_bp(judged) if champion else None,
        {name: np.concatenate([each[name] for each in guesses]) for name in guesses[0]},
    )


def _line(rival: _Candidate, judged: GateRows) -> Floats:
    """The slopes of the line through book imbalance in this market: of the rows that the rival has learnt
    from or, where there were none, of those that it is judged on, which favours the line."""
    told = rival.card.get("line", {}).get(judged.symbol)
    return np.array([told[str(h)] for h in HORIZONS_S]) if told else fit_line([judged.rows])


def _about(block: Block, verdict: GateDecision, champion: _Candidate | None, now: datetime) -> dict[str, Any]:
    """The verdict as it stands on the card."""
    return {
        "judged_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "champion": champion and champion.model_id,
        "passed": verdict.promoted,
        "provisional": verdict.provisional,
        "reasons": list(verdict.reasons),
        "sentence": verdict.sentence,
        "block": {
            "from_us": int(block.end_us.min()) if verdict.rows else None,
            "to_us": int(block.end_us.max()) if verdict.rows else None,
            "seconds": verdict.seconds,
            "rows": verdict.rows,
            "symbols": np.unique(block.market).tolist(),
        },
        "figures": verdict.figures,
        "bands": gate.bands(block) if verdict.rows else {},
        "shadow": verdict.shadow,
    }


def _answer(model_id: str, pointer: Pointer | None, verdicts: dict[str, GateDecision]) -> dict[str, Any]:
    """The best of those that passed, or why the model named did not."""

    def margin(each: str) -> float:
        together = verdicts[each].figures.get(gate.ALL, {})
        return float(together.get(CHAMPION, together.get(NO_CHANGE, {"skill": 0.0}))["skill"])

    passed = [each for each, verdict in verdicts.items() if verdict.promoted]
    best = max(passed, key=margin, default=None)
    # Of those that did not pass the most promising one goes on in the shadow: the new one may be the worse.
    hopeful = [each for each, verdict in verdicts.items() if not _is_worthless(verdict)]
    told = best or (model_id if model_id in verdicts else next(iter(verdicts)))
    verdict = verdicts[told]
    return {
        "model_id": told,
        "champion": pointer and pointer["model_id"],
        "promote": best,
        "shadow": None if best or pointer is None else max(hopeful, key=margin, default=None),
        "provisional": verdict.provisional,
        "reasons": list(verdict.reasons),
        "sentence": verdict.sentence,
        "seconds": verdict.seconds,
        "rows": verdict.rows,
        "figures": verdict.figures.get(gate.ALL, {}),
        "shadow_evidence": verdict.shadow,
    }


def _is_worthless(verdict: GateDecision) -> bool:
    """Not even better than no change: nothing to learn from it in shadow."""
    return f"not_above_{NO_CHANGE}" in verdict.reasons
