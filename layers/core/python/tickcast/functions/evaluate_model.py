"""The gate as a function: challengers against the champion, on rows that neither was trained on.

Challengers are the model named in the request and the one in the champion's shadow, if there is one, which
has live outcomes by now. Each is compared with the champion on all rows newer than both. A champion that is
provisional is evaluated as well, on all rows that it was not trained on: that is how it becomes proven. The
decisions go onto the cards. Nothing is promoted here (`promote_model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import psycopg
from msgspec import to_builtins

from tickcast.adapters.postgres import training_rows
from tickcast.adapters.postgres.score_store import in_shadow
from tickcast.adapters.postgres.training_rows import GateRows
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.adapters.registry.model_watcher import LOAD_ERRORS, load
from tickcast.adapters.registry.pointer import Pointer
from tickcast.evaluation import gate
from tickcast.evaluation.baselines import NO_CHANGE, baselines, fit_scaled_line
from tickcast.evaluation.gate import ALL, CHAMPION, Block, GateDecision, sentence, sentence_of_proof
from tickcast.features.vector import Floats
from tickcast.functions.request import RequestError
from tickcast.market.sources import Origin
from tickcast.model.card import GateBlock, GateRecord, ScaledLine, card_from
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves
from tickcast.serving.prediction import ServingModel


class _Candidate:
    """A model that is compared, with its card."""

    def __init__(self, model_id: str, document: dict[str, Any], model: ServingModel) -> None:
        """Raises `RegistryError` where the card does not say up to when the model was trained."""
        self.model_id = model_id
        self.document = document
        self.card = card_from(document)
        self.model = model
        if self.card.learned_to_us is None:
            raise RegistryError(
                f"learned_to_us on the card of model {model_id} is {document.get('learned_to_us')!r}: "
                "it cannot be evaluated"
            )
        self.learned_to_us = self.card.learned_to_us

    @classmethod
    def of(cls, s3: Any, bucket: str, model_id: str) -> _Candidate:
        """Raises one of `LOAD_ERRORS`, or `RegistryError`, when it cannot take part."""
        document = model_registry.card_document(s3, bucket, model_id)
        return cls(model_id, document, load(s3, bucket, model_id))

    def moves_bp(self, markets: Sequence[GateRows]) -> Floats:
        paths = np.concatenate(  # (N, J)
            [
                self.model.paths([each.symbol] * len(each.rows.end_us), each.rows.features)[0]
                for each in markets
            ]
        )
        return remaining_moves(paths, DELIVERY_S)

    def line(self, market: GateRows) -> ScaledLine:
        """The line through book imbalance in this market: fitted on the rows that the model was trained on
        or, where there were none, on those it is evaluated on, which favours the line."""
        return self.card.scaled_line.get(market.symbol) or fit_scaled_line([market.rows])


def evaluate_model(
    request: dict[str, Any],
    s3: Any,
    bucket: str,
    connection: psycopg.Connection[Any],
    symbols: Sequence[str],
    now: datetime,
) -> dict[str, Any]:
    """The decision on `request["model_id"]`, and on the model in shadow. With `request["shadow_first"]`
    nothing is promoted: the model named runs in shadow, unless it is no better than no change.

    Returns what `promote_model` takes: `champion` (which was compared with, or None), `promote` (which is to
    be active, or None), `shadow` (which is to run in shadow, or None), `proves_champion` (it is no longer
    provisional); and the decision on the model to promote or, where there is none, on the model
    named. Raises `RequestError`, `RegistryError`, and what PostgreSQL raises.
    """
    model_id = request.get("model_id")
    if not isinstance(model_id, str) or not model_id:
        raise RequestError('model_id should name a model, like {"model_id": "20260101T030000Z-0a1b2c3d"}')
    pointer = model_registry.active_model(s3, bucket)
    model_registry.check_servable(s3, bucket, model_id)
    challengers = {model_id: _Candidate.of(s3, bucket, model_id)}
    champion = _champion(s3, bucket, pointer)
    in_the_shadow = _usable(s3, bucket, pointer.challenger_id if pointer else None)
    if in_the_shadow is not None:
        challengers.setdefault(in_the_shadow.model_id, in_the_shadow)
    if pointer:
        challengers.pop(pointer.model_id, None)
    if not challengers:
        raise RequestError(f"model {model_id} is active already: there is nothing to compare it with")

    evaluated = {
        each.model_id: _evaluate(each, champion, _is_provisional(pointer, champion), connection, symbols)
        for each in challengers.values()
    }
    decisions = {each: found.decision for each, found in evaluated.items()}
    shadow_first = request.get("shadow_first") is True
    answer = (_shadow_first if shadow_first else _answer)(model_id, pointer, decisions)
    is_held = pointer is not None and pointer.is_held(now)
    for each in challengers.values():
        is_best = each.model_id == answer["promote"]
        found = evaluated[each.model_id]
        is_first = shadow_first and each.model_id == model_id
        words = _shadow_first_sentence(found.decision) if is_first else ""
        record = _record(found, champion, is_best, now, is_held=is_held, words=words)
        # A model that passed but was not the best, or no longer passes, is not proven.
        provisional = record.provisional or not is_best
        decided = {"provisional": provisional, "gate": to_builtins(record, str_keys=True)}
        model_registry.save_card(s3, bucket, each.document | decided)
    proof = None
    if champion and _is_provisional(pointer, champion) and (is_held or not answer["promote"]):
        proof = _evaluate_champion(champion, connection, symbols)
        record = _record(proof, None, False, now, words=sentence_of_proof(proof.decision))
        proven = {"provisional": False} if proof.decision.promoted else {}
        document = champion.document | proven | {"proof": to_builtins(record, str_keys=True)}
        model_registry.save_card(s3, bucket, document)
    return answer | {"proves_champion": bool(proof and proof.decision.promoted)}


class _Unseen(NamedTuple):
    """Rows with quotes newer than `from_us`. `is_real`: none is of a simulated market."""

    from_us: int
    markets: list[GateRows]
    is_real: bool


class _Evaluated(NamedTuple):
    """A decision, and what a card says of the rows that it was made on. They are not kept: those of one
    decision take as much memory as a training's."""

    decision: GateDecision
    bands: dict[str, dict[int, float]]
    block: GateBlock


def _unseen(connection: psycopg.Connection[Any], symbols: Sequence[str], from_us: int) -> _Unseen:
    found = training_rows.row_counts(connection, symbols, from_us)
    markets = training_rows.gate_rows(connection, found, from_us)
    return _Unseen(from_us, markets, not any(row.origin is Origin.SIM for row in found if row.has_quotes))


def _evaluate(
    challenger: _Candidate,
    champion: _Candidate | None,
    champion_is_provisional: bool,
    connection: psycopg.Connection[Any],
    symbols: Sequence[str],
) -> _Evaluated:
    """The decision on a challenger, on all rows that neither it nor the champion was trained on."""
    learned_to_us = [each.learned_to_us for each in (challenger, champion) if each]
    rows = _unseen(connection, symbols, max(learned_to_us))
    block = _block(challenger, champion, rows.markets)
    decision = gate.decide(
        block,
        rows.from_us,
        champion_is_provisional=champion_is_provisional,
        is_real=rows.is_real,
        shadow=in_shadow(connection, champion.model_id, challenger.model_id) if champion else None,
    )
    return _Evaluated(decision, gate.bands(block) if decision.rows else {}, _about(block))


def _evaluate_champion(
    champion: _Candidate, connection: psycopg.Connection[Any], symbols: Sequence[str]
) -> _Evaluated:
    """Whether the champion is proven, on all rows that it was not trained on."""
    rows = _unseen(connection, symbols, champion.learned_to_us)
    block = _block(champion, None, rows.markets)
    decision = gate.prove(block, rows.from_us, is_real=rows.is_real)
    return _Evaluated(decision, gate.bands(block) if decision.rows else {}, _about(block))


def _champion(s3: Any, bucket: str, pointer: Pointer | None) -> _Candidate | None:
    """The active model; None where there is none, or it can no longer serve. Raises `RegistryError` where it
    serves and cannot be evaluated: without it others would be promoted that are worse."""
    if pointer is None:
        return None
    try:
        document = model_registry.card_document(s3, bucket, pointer.model_id)
        model = load(s3, bucket, pointer.model_id)
    except (*LOAD_ERRORS, RegistryError):
        return None
    return _Candidate(pointer.model_id, document, model)


def _usable(s3: Any, bucket: str, model_id: str | None) -> _Candidate | None:
    """A model that can take part; None where there is none, or it can no longer serve."""
    if not model_id:
        return None
    try:
        return _Candidate.of(s3, bucket, model_id)
    except (*LOAD_ERRORS, RegistryError):
        return None


def _is_provisional(pointer: Pointer | None, champion: _Candidate | None) -> bool:
    if pointer is None or champion is None:
        return True
    return champion.model.provisional if pointer.provisional is None else pointer.provisional


def _block(challenger: _Candidate, champion: _Candidate | None, markets: Sequence[GateRows]) -> Block:
    none = np.empty((0, len(HORIZONS_S)))
    if not markets:
        return Block(np.empty(0, str), np.empty(0, np.int64), none, none, None, {})
    by_market = [
        baselines(
            each.rows.features,
            each.last_trade_bp,
            challenger.line(each),
            each.rows.moves_bp[:, PATH_S.index(DELIVERY_S)],
        )
        for each in markets
    ]
    return Block(
        np.repeat([each.symbol for each in markets], [len(each.rows.end_us) for each in markets]),
        np.concatenate([each.rows.end_us for each in markets]),
        np.concatenate([remaining_moves(each.rows.moves_bp, DELIVERY_S) for each in markets]),
        challenger.moves_bp(markets),
        champion.moves_bp(markets) if champion else None,
        {name: np.concatenate([each[name] for each in by_market]) for name in by_market[0]},
    )


def _about(block: Block) -> GateBlock:
    """What a card says of the rows."""
    rows = len(block.end_us)
    return GateBlock(
        from_us=int(block.end_us.min()) if rows else None,
        to_us=int(block.end_us.max()) if rows else None,
        seconds=round(block.seconds, 1),
        rows=rows,
        symbols=np.unique(block.market).tolist(),
    )


def _record(
    evaluated: _Evaluated,
    champion: _Candidate | None,
    is_best: bool,
    now: datetime,
    *,
    is_held: bool = False,
    words: str = "",
) -> GateRecord:
    """The decision for the card."""
    decision = evaluated.decision
    return GateRecord(
        judged_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        champion=champion.model_id if champion else None,
        passed=decision.promoted,
        promoted=is_best and not is_held,
        held=is_best and is_held,
        provisional=decision.provisional,
        reasons=list(decision.reasons),
        sentence=words or sentence(decision),
        block=evaluated.block,
        figures=decision.figures,
        bands=evaluated.bands,
        shadow=decision.shadow,
    )


def _answer(model_id: str, pointer: Pointer | None, decisions: dict[str, GateDecision]) -> dict[str, Any]:
    """The best of those that passed, or why the model named did not."""

    def margin(each: str) -> float:
        together = decisions[each].figures.get(ALL, {})
        found = together.get(CHAMPION, together.get(NO_CHANGE))
        return found.skill if found else 0.0

    passed = [each for each, decision in decisions.items() if decision.promoted]
    best = max(passed, key=margin, default=None)
    # Of those that did not pass, the most promising one runs in shadow: the newest may be the worst.
    hopeful = [each for each, found in decisions.items() if _is_hopeful(found)]
    about = best or (model_id if model_id in decisions else next(iter(decisions)))
    shadow = None if best or pointer is None else max(hopeful, key=margin, default=None)
    return _response(about, pointer, decisions[about], best, shadow)


def _shadow_first(
    model_id: str, pointer: Pointer | None, decisions: dict[str, GateDecision]
) -> dict[str, Any]:
    """The model named in shadow, or else the one that is there."""
    decision, there = decisions[model_id], next((each for each in decisions if each != model_id), None)
    shadow = model_id if _is_hopeful(decision) else there
    found = _response(model_id, pointer, decision, None, shadow if pointer else None)
    return found | {"sentence": _shadow_first_sentence(decision)}


def _shadow_first_sentence(decision: GateDecision) -> str:
    return f"{sentence(decision)}{' It runs in shadow first.' if decision.promoted else ''}"


def _is_hopeful(decision: GateDecision) -> bool:
    """Whether a model may show something in shadow: one that is no better than no change would not."""
    return f"not_above_{NO_CHANGE}" not in decision.reasons


def _response(
    about: str, pointer: Pointer | None, decision: GateDecision, best: str | None, shadow: str | None
) -> dict[str, Any]:
    return {
        "model_id": about,
        "champion": pointer.model_id if pointer else None,
        "promote": best,
        "shadow": shadow,
        "provisional": decision.provisional,
        "reasons": list(decision.reasons),
        "sentence": sentence(decision),
        "seconds": decision.seconds,
        "rows": decision.rows,
        "figures": to_builtins(decision.figures.get(ALL, {})),
        "shadow_evidence": to_builtins(decision.shadow),
    }
