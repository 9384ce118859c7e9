"""The first model of a deployment on the emulator, unless one that fits has been restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.system.cloud import Cloud
from local.system.options import HISTORY_S
from local.system.progress import Progress
from local.system.seed import load_requests, seed_bronze
from tickcast.adapters.redis.hot_store import now_ms
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.polling import inline


@dataclass(frozen=True)
class FirstModel:
    """What to train it on: `recordings`, with their perpetuals among `references`, or without any the market
    simulated with `seed` from `epoch_us` on.

    The file at `origin_file` names what the champion was trained on.
    """

    symbols: Sequence[str]
    recordings: Sequence[Path]
    references: Sequence[Path]
    seed: int
    epoch_us: int
    origin_file: Path

    @property
    def origin(self) -> str:
        return " ".join(path.name for path in (*self.recordings, *self.references)) or "simulated history"

    def has_champion(self, cloud: Cloud, outputs: Mapping[str, str], progress: Progress) -> bool:
        """Whether the champion is of this origin and this code can serve it."""
        watcher = ModelWatcher(cloud.client("s3"), outputs["BucketName"], now_ms, inline)
        model = watcher.current()
        known_origin = self.origin_file.read_text("utf-8") if self.origin_file.is_file() else None
        if model and known_origin == self.origin:
            progress.say(f"  champion: model {model.model_id}, trained on {self.origin}")
            return True
        if watcher.problem:
            progress.say(f"  the restored model cannot be served: {watcher.problem}")
        return False

    def train(self, cloud: Cloud, outputs: Mapping[str, str], progress: Progress) -> None:
        """Write the history to S3, load it and train, by the deployed functions. Raises `FunctionFailed`."""
        with progress.step(f"writing history to S3: {self.origin}"):
            objects = seed_bronze(
                cloud.client("s3"),
                outputs["BucketName"],
                self.symbols,
                self.seed,
                self.epoch_us,
                HISTORY_S,
                self.recordings,
                self.references,
            )
        with progress.step("loading history into PostgreSQL by the function load_history"):
            requests = load_requests(objects)
            function = outputs["LoadHistoryFunction"]
            refused = [reason for each in requests.values() for reason in cloud.load(function, each)]
        for reason in refused:
            progress.say(f"  left out of the history: {reason}")
        with progress.step("training a first model by the function train_model"):
            function = outputs["TrainModelFunction"]
            trained = cloud.train(function, sorted(requests), f"first start, on {self.origin}")
        self.origin_file.write_text(self.origin, "utf-8")
        progress.say(f"  trained model {trained['model_id']} on {trained['rows']} rows (provisional)")
