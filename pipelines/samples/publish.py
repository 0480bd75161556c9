"""The last step of a run: picks one file per bucket and day, and publishes the manifest.

1. Of results that a runner delivered twice, the first by file name stays.
2. Its files get their final names, which hold their sum: a reader of the published version never
   finds other bytes under a name that it knows.
3. The quality gate, if there is one, judges them.
4. `manifest.json` replaces the old one; then what it does not name is removed.

When any of it fails, the launcher calls `discard`; this step itself removes nothing, since a runner
may try it again.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from uic.models.errors import BadInputError
from uic.models.published import (
    MANIFEST_NAME,
    name_draft,
    publish_manifest,
    remove_unnamed_files,
    sync_directory,
)
from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.pipelines.samples.bucket_files import BucketResult, DraftFile, SamplesWriteError
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.labels import LabelCounts
from uic.pipelines.samples.log_parts import offset_bounds
from uic.pipelines.samples.next_item import NextItemTargets, TargetCounts
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.samples.sizes import SampleSizes

# How many left-out users a manifest names; their count is always whole.
NAMED_USERS: Final = 20


# Judges the files of a manifest that is to be published, under its root; raises to stop it.
Gate = Callable[[Path, Mapping[str, Any]], None]


class NoSamplesError(BadInputError):
    """Not one impression of the days asked for is left to make a group of."""


@dataclass(frozen=True)
class SamplesPublication:
    """Where the samples go, and what their manifest says of their input."""

    root: Path
    plan: SamplesPlan
    source: Mapping[str, Any]
    gate: Gate | None = None
    features: FeatureJoin = field(default_factory=FeatureJoin)
    next_item: NextItemTargets | None = None

    def publish(
        self, results: Iterable[BucketResult], read: Iterable[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Publish what the workers wrote; the manifest.

        Raises:
            NoSamplesError: there is no group; nothing is published.
            SamplesWriteError: a file cannot be renamed or the manifest not be written.
            QualityGateError: the gate refused the samples; what was published before stays.
        """
        by_bucket: dict[int, BucketResult] = {}
        for result in sorted(results, key=_attempt):
            by_bucket.setdefault(result.bucket, result)
        chosen = [by_bucket[bucket] for bucket in sorted(by_bucket)]
        manifest = self._manifest(chosen, list(read))
        if not manifest["groups"]:
            msg = (
                f"samples {self.plan.first} to {self.plan.last}: no impression is left "
                f"({_in_words(manifest['left_out'])}); nothing was published: choose other days "
                "or settings"
            )
            raise NoSamplesError(msg)
        try:
            for file in _files(chosen):
                name_draft(self.root / file.path, self.root / file.final_path)
            for folder in sorted({file.final_path.split("/")[0] for file in _files(chosen)}):
                sync_directory(self.root / folder)
            if self.gate is not None:
                self.gate(self.root, manifest)
            publish_manifest(self.root, manifest)
        except OSError as error:
            msg = f"{self.root}: cannot be published: {error}; make room and run it again"
            raise SamplesWriteError(msg) from error
        return manifest

    def discard(self) -> None:
        """Remove what the published manifest, if there is one, does not name."""
        path = self.root / MANIFEST_NAME
        published = json.loads(path.read_bytes()) if path.exists() else {"files": []}
        remove_unnamed_files(self.root, published)

    def _manifest(
        self, results: list[BucketResult], read: list[Mapping[str, Any]]
    ) -> dict[str, Any]:
        plan = self.plan
        files = sorted(_files(results), key=lambda file: file.final_path)
        by_day = np.sum([result.facts.impressions_by_day for result in results], axis=0)
        days = [plan.first + timedelta(days=index) for index in range(plan.days.count)]
        sizes = sum((result.sizes for result in results), SampleSizes())
        return {
            "kind": SAMPLES_KIND,
            "schema_version": SAMPLES_SCHEMA_VERSION,
            **self.asked(),
            "files": [_entry(file) for file in files],
            "groups": sum(file.rows for file in files),
            "impressions": int(by_day.sum()),
            "impressions_by_day": {
                day.isoformat(): int(count) for day, count in zip(days, by_day, strict=True)
            },
            "empty_days": [
                day.isoformat() for day, count in zip(days, by_day, strict=True) if not count
            ],
            "left_out": _left_out(results) | self._targets(results),
            "grouping": sizes.summary(sum(file.bytes for file in files)),
            "read": {
                table: sum(facts["rows"] for facts in read if facts["table"] == table)
                for table in ("behaviors", "impressions")
            },
            "positions": _positions(read),
            **self._coverage(results, int(by_day.sum())),
            **self._labels(results),
        }

    def asked(self) -> dict[str, Any]:
        """What the manifest says before anything is built; the same again gives the same samples.

        Days, settings, the log's files, and the features and labels that are joined.
        """
        plan = self.plan
        return {
            "first": plan.first.isoformat(),
            "last": plan.last.isoformat(),
            "time_zone": plan.time_zone,
            "settings": {
                **plan.samples.model_dump(mode="json", exclude={"labels"}),
                "buckets": plan.buckets,
                "dropped_behaviors": plan.dropped_behaviors.fingerprint(),
                "dropped_impressions": plan.dropped_impressions.fingerprint(),
            },
            "source": dict(self.source),
            **({"protocol": self.next_item.document()} if self.next_item else {}),
            **self._features(),
            **({"labels": list(self.features.labels)} if self.features.labels else {}),
        }

    def _features(self) -> dict[str, Any]:
        """What a reader needs to know of features; nothing where there are none."""
        events = self.features.events
        of_events = {"event_features": events.to_json()} if len(events) else {}
        if not len(self.features.features):
            return of_events
        return {
            **of_events,
            "features": self.features.features.to_json(),
            **self._state(),
            "feature_sources": self.features.sources(),
        }

    def _coverage(self, results: list[BucketResult], impressions: int) -> dict[str, Any]:
        """By feature, the share of impressions with a value; nothing where there are none."""
        if not len(self.features.features):
            return {}
        missing = {
            named.key: sum(result.facts.missing[named.key] for result in results)
            for named in self.features.features
        }
        return {
            "feature_coverage": {
                key: round(1 - count / max(impressions, 1), 6) for key, count in missing.items()
            }
        }

    def _targets(self, results: list[BucketResult]) -> dict[str, dict[str, int]]:
        """What became of the behaviours of the next-item protocol; nothing without it."""
        if self.next_item is None:
            return {}
        return {"targets": vars(sum((one.facts.targets for one in results), TargetCounts()))}

    def _state(self) -> dict[str, Any]:
        state = self.features.state
        return {} if state is None else {"state": state.document()}

    def _labels(self, results: list[BucketResult]) -> dict[str, Any]:
        """What is known of the labels that stand beside the click; nothing for none."""
        labels = self.features.labels
        if not labels:
            return {}
        counts = {
            name: sum((result.facts.labels[name] for result in results), LabelCounts())
            for name in labels
        }
        shares = {name: of_label.shares() for name, of_label in counts.items()}
        return {"label_shares": shares}


def _attempt(result: BucketResult) -> tuple[int, list[str]]:
    return result.bucket, [file.path for file in result.files]


def _files(results: Iterable[BucketResult]) -> list[DraftFile]:
    return [file for result in results for file in result.files]


def _entry(file: DraftFile) -> dict[str, Any]:
    return {
        "path": file.final_path,
        "dt": file.dt.isoformat(),
        "rows": file.rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
    }


def _left_out(results: list[BucketResult]) -> dict[str, Any]:
    machines = np.sort(np.concatenate([result.facts.inhuman_users for result in results]))
    return {
        "sale_day_impressions": sum(result.facts.sale_impressions for result in results),
        "sale_day_behaviors": sum(result.facts.sale_behaviors for result in results),
        "inhuman_users": len(machines),
        "inhuman_user_ids": machines[:NAMED_USERS].tolist(),
        "inhuman_impressions": sum(result.facts.inhuman_impressions for result in results),
    }


def _in_words(left_out: Mapping[str, Any]) -> str:
    """What there was of each kind that was left out: `sale day impressions 900`."""
    counts = {**left_out, **left_out.get("targets", {})}
    told = [
        f"{name.replace('_', ' ')} {count}"
        for name, count in counts.items()
        if isinstance(count, int) and count
    ]
    return ", ".join(told) or "there was none"


def _positions(read: list[Mapping[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Epoch -> partition -> [first, last] offset of the behaviours that were read."""
    positions: dict[str, dict[str, list[int]]] = {}
    runs = (run for facts in read for run in facts.get("positions", ()))
    for (epoch, partition), bounds in offset_bounds(runs).items():
        positions.setdefault(str(epoch), {})[str(partition)] = list(bounds)
    return positions
