"""Send a signal to its destination.

It is invoked by events: of the bucket, for signals that `predict_stream` and `score_predictions` wrote; of
CloudWatch, for alarms; and by `make notify-test`. A delivery that fails is repeated here within seconds, then
by Lambda, which repeats a failed invocation twice within minutes and then puts the event into the dead-letter
queue. What no retry can fix, such as an address that is gone, goes there at once.

A signal carries the same id in every attempt. One rule has one destination, so that a repetition reaches no
receiver that has it already.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from tickcast.adapters import json_text
from tickcast.adapters.lake.signal_outbox import SignalMissing, read_signal
from tickcast.adapters.receiver_secrets import ReceiverSecrets
from tickcast.adapters.settings import SendSignalsSettings
from tickcast.adapters.signal_text import Sending, body, late_ms
from tickcast.adapters.webhooks import Courier, DeliveryFailed, ReceiverError
from tickcast.serving.signals import Signal, SignalDestination, SignalledAlarm, SignalRule

# An alarm's name: the stack's, its logical id, a suffix. Of the logical id what the CDK adds is left out.
_ALARM = re.compile(r"MonitoringAlarms(\w+)[0-9A-F]{8}-")
_MOST_CHARACTERS = 1000  # of CloudWatch's reason

Became = Literal["sent", "expired", "failed", "ignored"]


@dataclass
class Sent:
    """What became of one signal, for the log and for `make notify-test`. `late`: it was sent after it
    expired. `why` says what went wrong."""

    became: Became
    destination: str = ""
    rule: str = ""
    signal: str = ""
    attempts: int = 0
    late: bool = False
    why: str = ""


@dataclass
class SendSignals:
    settings: SendSignalsSettings
    s3: Any
    sqs: Any
    secrets: ReceiverSecrets
    courier: Courier
    clock_ms: Callable[[], float]
    _held_until_ms: dict[str, float] = field(default_factory=dict)  # by destination: as the receiver asked

    def __call__(self, event: dict[str, Any], remaining_ms: Callable[[], float]) -> list[Sent]:
        """Raises `DeliveryFailed` for a delivery that is to be repeated, and what boto3 raises; ValueError on
        an event of another kind."""
        if event.get("test") is True:
            return [self._test(each, remaining_ms) for each in self.settings.signals.destinations]
        found = self._signal_of(event)
        if isinstance(found, Sent):
            return [found]
        rule, destination, signal = found
        sent = Sent("failed", destination.name, rule.name, signal.id)
        try:
            self._deliver(destination, signal, remaining_ms, sent, drops_late=rule.late == "drop")
        except (ReceiverError, DeliveryFailed) as error:
            if isinstance(error, DeliveryFailed) and not error.is_final:
                raise DeliveryFailed(
                    f"{destination.name}: {error}", is_final=False, wait_s=error.wait_s
                ) from None
            sent.why = str(error)
            self._give_up(sent, signal)
        return [sent]

    def _signal_of(self, event: dict[str, Any]) -> tuple[SignalRule, SignalDestination, Signal] | Sent:
        """The signal of an event, with its rule and its destination; or why it is ignored."""
        match event:
            case {"rule": str(name), "event": {"source": "aws.cloudwatch", "detail": dict(detail)}}:
                rule = self.settings.signals.rule(name)
                signal = rule and _alarm_signal(rule, event["event"], detail)
                if rule and not signal:
                    return Sent("ignored", rule=name, why="the rule names other alarms")
            case {"source": "aws.s3", "detail": {"object": {"key": str(key)}}}:
                try:
                    signal = read_signal(self.s3, self.settings.bucket, key)
                except SignalMissing as error:
                    return Sent("ignored", signal=key, why=str(error))
                name = signal.rule
                rule = self.settings.signals.rule(name)
            case _:
                raise ValueError(
                    "the event is none of the bucket's, of an alarm or of a test; it has "
                    f"{', '.join(sorted(map(str, event))) or 'nothing'}"
                )
        destination = rule and self.settings.signals.destination(rule.to)
        if not (rule and destination and signal):
            return Sent("ignored", rule=name, why="there is no such rule any more")
        return rule, destination, signal

    def _test(self, destination: SignalDestination, remaining_ms: Callable[[], float]) -> Sent:
        """A message that says that it is one. Its failure is the result, and goes nowhere else."""
        at_ms = round(self.clock_ms())
        (rule, *_) = (rule for rule in self.settings.signals.rules if rule.to == destination.name)
        signal = Signal(id=f"test-{destination.name}-{at_ms}", rule=rule.name, when=rule.when, at_ms=at_ms)
        sent = Sent("failed", destination.name, rule.name, signal.id)
        others = len(self.settings.signals.destinations)
        try:
            self.secrets.forget(destination.name)
            self._deliver(destination, signal, lambda: remaining_ms() / others, sent, drops_late=False)
        except (ReceiverError, DeliveryFailed) as error:
            sent.why = str(error)
        return sent

    def _deliver(
        self,
        destination: SignalDestination,
        signal: Signal,
        remaining_ms: Callable[[], float],
        sent: Sent,
        *,
        drops_late: bool,
    ) -> None:
        """Enters into `sent` what became of it. Raises `ReceiverError` and `DeliveryFailed`."""
        receiver = self.secrets.read(destination)
        held_s = (self._held_until_ms.get(destination.name, 0.0) - self.clock_ms()) / 1000
        if held_s > 0:
            raise DeliveryFailed(f"it asked to wait {held_s:.0f} s", is_final=False)

        def make_body() -> dict[str, Any] | None:
            now_ms = self.clock_ms()
            sent.late = late_ms(signal, now_ms) is not None
            if sent.late and drops_late:
                return None
            sending = Sending(self.settings.environment, f"{self.settings.api_url}/", now_ms)
            return body(destination.template, signal, sending, receiver.chat)

        try:
            sent.attempts = self.courier.deliver(
                receiver, destination.template, signal.id, make_body, lambda: remaining_ms() / 1000
            )
        except DeliveryFailed as failure:
            self._held_until_ms[destination.name] = self.clock_ms() + 1000 * failure.wait_s
            if failure.is_final:
                self.secrets.forget(destination.name)
            raise
        sent.became = "sent" if sent.attempts else "expired"

    def _give_up(self, sent: Sent, signal: Signal) -> None:
        """Into the dead-letter queue, as Lambda does with an event that it has repeated in vain."""
        about = {"why": sent.why, "destination": sent.destination, "signal": msgspec.to_builtins(signal)}
        self.sqs.send_message(QueueUrl=self.settings.dead_letter_queue_url, MessageBody=json_text.text(about))


def _alarm_signal(rule: SignalRule, event: dict[str, Any], detail: dict[str, Any]) -> Signal | None:
    """The signal of CloudWatch's event ("Alarm events and EventBridge"); None if `rule` names other
    alarms."""
    full_name = str(detail.get("alarmName", ""))
    found = _ALARM.search(full_name)
    name = found[1] if found else full_name
    if rule.alarms is not None and name not in rule.alarms:
        return None
    state, configuration = detail.get("state") or {}, detail.get("configuration") or {}
    at_ms = round(datetime.fromisoformat(str(event["time"]).replace("Z", "+00:00")).timestamp() * 1000)
    return Signal(
        id=f"{rule.name}-{event['id']}",
        rule=rule.name,
        when=rule.when,
        at_ms=at_ms,
        alarm=SignalledAlarm(
            alarm=name,
            state=str(state.get("value", "")),
            meaning=str(configuration.get("description") or ""),
            why=str(state.get("reason") or "")[:_MOST_CHARACTERS],
        ),
    )
