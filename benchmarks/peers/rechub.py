"""The peer of `benchmarks/family.py`: torch-rechub's DIN, DIEN and SASRec, with its own trainer.

Rows are as its documentation has them: one an impression, the last events of its user padded on
the right, 0 = padding. Its networks are used unchanged; where it has no ranker of a name, its
encoder is put under its own head (`SasRecRanker`).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.basic.layers import MLP, EmbeddingLayer
from torch_rechub.models.matching import SASRec
from torch_rechub.models.ranking import DIEN, DIN
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

from uic.models.features.definition import FeatureSet, Kind, Scale
from uic.models.features.fitted import FittedFeature
from uic.models.rankers.baselines.din import DinSettings
from uic.models.samples.groups import GroupBatch, ranges
from uic.models.samples.vocabulary import Vocabulary

TARGETS, HISTORY = ("item", "category"), ("seq", "seq_category")
NEGATIVES = ("negative", "negative_category")


@dataclass(frozen=True)
class PeerSettings:
    """What both sides are told.

    Attributes:
        item_rows: rows of our item table; the peer's has one more, for padding.
        category_rows: the same of categories.
        width: of an item's and of a category's embedding.
        embedding_std: of initial embeddings.
        head_widths: hidden layers of the head.
        events: length of a padded history.
        batch: impressions a step.
        epochs: passes over the rows.
        learning_rate: Adam's.
        auxiliary_weight: of DIEN's auxiliary loss.
        features: beside ids, each looked up in a table of `width`.
    """

    item_rows: int
    category_rows: int
    width: int
    embedding_std: float
    head_widths: tuple[int, ...]
    events: int
    batch: int
    epochs: int
    learning_rate: float
    auxiliary_weight: float
    features: tuple[FittedFeature, ...] = ()


def beside(feature: FittedFeature) -> str:
    """The peer's column of a feature."""
    return feature.named.key.replace(".", "_")


def in_tables(features: FeatureSet) -> FeatureSet:
    """Features that both sides can look up: numbers by quantile, all of one width."""
    width = DinSettings().item_width
    found = []
    for named in features:
        if named.feature.type not in (Kind.CATEGORICAL, Kind.NUMBER):
            msg = f"{named.key} is {named.feature.type.value}: the peer's rows hold one value each"
            raise SystemExit(msg)
        scale = Scale.BUCKETS if named.feature.type is Kind.NUMBER else Scale.NONE
        changed = {"scale": scale, "width": width}
        found.append(replace(named, feature=named.feature.model_copy(update=changed)))
    return FeatureSet(tuple(found))


def padded_rows(
    batches: list[GroupBatch], vocabulary: Vocabulary, events: int
) -> tuple[dict[str, Tensor], Tensor]:
    """One row an impression: our rows of the tables plus one, and 0 where a history is shorter.

    Negatives are the events of the whole set in random order, for DIEN's auxiliary loss.

    Returns:
        The peer's columns, (impressions,) or (impressions, events) int64, and labels as float.
    """
    fitted = vocabulary.features.fitted
    names = (*TARGETS, *HISTORY, *(beside(one) for one in fitted))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in batches:
        ends = batch.history_offsets[batch.impression_groups] + batch.history_lengths
        counts = np.minimum(batch.history_lengths, events)
        flat = ranges(ends - counts, counts)
        filled = np.arange(events) < counts[:, None]  # (impressions, events)
        for name, table, ids in (
            ("seq", vocabulary.item, batch.history_item_ids),
            ("seq_category", vocabulary.category, batch.history_category_ids),
        ):
            column = np.zeros(filled.shape, np.int64)
            column[filled] = table.lookup(ids[flat]) + 1
            parts[name].append(column)
        for one in fitted:
            parts[beside(one)].append(one.encode(batch.features[one.named.key]))
        parts["item"].append(vocabulary.item.lookup(batch.item_ids) + 1)
        parts["category"].append(vocabulary.category.lookup(batch.category_ids) + 1)
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    filled = columns["seq"] > 0
    order = np.random.default_rng(0).permutation(int(filled.sum()))
    for name, of in zip(NEGATIVES, HISTORY, strict=True):
        columns[name] = np.zeros_like(columns[of])
        columns[name][filled] = columns[of][filled][order]
    labels = np.concatenate([batch.labels for batch in batches]).astype(np.float32)
    return {name: torch.from_numpy(column) for name, column in columns.items()}, torch.from_numpy(
        labels
    )


class ReadyBatches:
    """Batches of rows that lie in memory, sliced at once: the fastest loader that there can be.

    Args:
        columns: as `padded_rows` has them.
        labels: (rows,).
        batch: rows a batch.
        shuffle: another order each time.
    """

    def __init__(
        self, columns: dict[str, Tensor], labels: Tensor, batch: int, *, shuffle: bool
    ) -> None:
        self.columns, self.labels, self.batch, self.shuffle = columns, labels, batch, shuffle

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Columns and labels of each batch."""
        rows = self.labels.shape[0]
        order = torch.randperm(rows) if self.shuffle else torch.arange(rows)
        for places in order.split(self.batch):
            yield (
                {name: column[places] for name, column in self.columns.items()},
                self.labels[places],
            )


def own_loader_seconds(columns: dict[str, Tensor], labels: Tensor, batch: int) -> float:
    """Seconds of one pass of its own loader, `DataGenerator`, which puts rows together singly."""
    some = {name: column[:1] for name, column in columns.items()}
    loader = DataGenerator(columns, labels).generate_dataloader(
        x_val=some, y_val=labels[:1], x_test=some, y_test=labels[:1], batch_size=batch
    )[0]
    started = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - started


class SasRecRanker(nn.Module):
    """Its SASRec, which is made to find the next item, as an encoder under its own head.

    `SASRec.seq_forward` runs on item and category side by side; its output at the last event goes
    into the head with the features that ours has: [item, sum, state, item * state].

    Args:
        settings: sizes.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__()
        width = 2 * settings.width
        self.targets, self.history, self.sums = target_and_history(settings)
        self.embedding = EmbeddingLayer(self.targets + self.history)
        # Of its table one row is made; `seq_forward` takes events that are embedded already.
        self.encoder = SASRec(
            [SequenceFeature("seq", 1, width, pooling="concat", padding_idx=0)],
            max_len=settings.events,
            dropout_rate=0.0,
        )
        self.mlp = MLP(4 * width, dims=list(settings.head_widths), activation="dice")

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Probabilities: (rows,)."""
        item = self.embedding(x, self.targets, squeeze_dim=True)  # (rows, width)
        pooled = self.embedding(x, self.sums, squeeze_dim=True)
        embedded = torch.cat(list(self.embedding(x, self.history).unbind(1)), dim=2)
        states = self.encoder.seq_forward(x, embedded)  # (rows, events, width)
        counts = (x["seq"] != 0).sum(1)
        state = states[torch.arange(counts.shape[0]), (counts - 1).clamp(min=0)]
        state = state * (counts > 0).unsqueeze(1)
        return torch.sigmoid(self.mlp(torch.cat([item, pooled, state, item * state], 1)).squeeze(1))


def target_and_history(
    settings: PeerSettings,
) -> tuple[list[SparseFeature], list[SequenceFeature], list[SequenceFeature]]:
    """Features of the candidate, of the history as a sequence, and of its sum."""
    rows = (settings.item_rows + 1, settings.category_rows + 1)
    initial = RandomNormal(0.0, settings.embedding_std)
    targets = [
        SparseFeature(name, count, settings.width, padding_idx=0, initializer=initial)
        for name, count in zip(TARGETS, rows, strict=True)
    ]
    return targets, sequences(HISTORY, settings, "concat"), sequences(HISTORY, settings, "sum")


def sequences(
    names: tuple[str, str], settings: PeerSettings, pooling: str
) -> list[SequenceFeature]:
    """Columns of events, with the tables of the candidate."""
    rows = (settings.item_rows + 1, settings.category_rows + 1)
    return [
        SequenceFeature(
            name, count, settings.width, pooling=pooling, shared_with=target, padding_idx=0
        )
        for name, count, target in zip(names, rows, TARGETS, strict=True)
    ]


def build(name: str, settings: PeerSettings) -> nn.Module:
    """A network of torch-rechub with our sizes; one attention or GRU a feature, as it has them."""
    targets, history, sums = target_and_history(settings)
    head = {"dims": list(settings.head_widths)}
    if name == "din":
        attention = {"dims": [80, 40], "activation": "prelu", "use_softmax": True}
        further = [
            SparseFeature(
                beside(one),
                one.rows,
                settings.width,
                initializer=RandomNormal(0.0, settings.embedding_std),
            )
            for one in settings.features
        ]
        return DIN(sums + further, history, targets, head, attention)
    if name == "dien":
        negatives = sequences(NEGATIVES, settings, "concat")
        return DIEN(sums, history, negatives, targets, head, alpha=settings.auxiliary_weight)
    return SasRecRanker(settings)


def train(
    name: str, settings: PeerSettings, columns: dict[str, Tensor], labels: Tensor, seed: int
) -> CTRTrainer:
    """Its trainer's epochs over ready batches; Adam without weight decay, as ours."""
    torch.manual_seed(seed)
    used = columns if name == "dien" else without_negatives(columns)
    trainer = CTRTrainer(
        build(name, settings),
        optimizer_params={"lr": settings.learning_rate},
        loss_mode=name != "dien",
    )
    for _ in range(settings.epochs):
        trainer.train_one_epoch(ReadyBatches(used, labels, settings.batch, shuffle=True))
    return trainer


def scores(trainer: CTRTrainer, columns: dict[str, Tensor], labels: Tensor) -> np.ndarray:
    """Probabilities of the rows, in their order: (rows,) float64."""
    return np.array(
        trainer.predict(trainer.model, ReadyBatches(columns, labels, 4096, shuffle=False))
    )


def without_negatives(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Columns of a network that has no auxiliary loss."""
    return {name: column for name, column in columns.items() if name not in NEGATIVES}
