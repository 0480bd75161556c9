"""The models that can be trained, by name, with the hyper-parameters of each."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

from uic.models.errors import BadInputError
from uic.models.layers.ranker_settings import RankerSettings, WindowedSettings
from uic.models.rankers.baselines.arnn import Arnn
from uic.models.rankers.baselines.dien import Dien, DienSettings
from uic.models.rankers.baselines.din import Din
from uic.models.rankers.baselines.gru4rec import Gru4Rec
from uic.models.rankers.baselines.lr import LogisticRegression, LrSettings
from uic.models.rankers.baselines.pooling import AveragePooling, Dnn, DnnSettings, SumPooling
from uic.models.rankers.baselines.rum import Rum, RumSettings
from uic.models.rankers.baselines.sasrec import SasRec, SasRecSettings
from uic.models.rankers.baselines.sim import Sim, SimSettings
from uic.models.rankers.baselines.two_pools import TwoPools, TwoPoolsSettings
from uic.models.rankers.baselines.ubr4ctr import Ubr4Ctr, Ubr4CtrSettings
from uic.models.rankers.dicm.dicm import Dicm
from uic.models.rankers.dicm.prerank import Prerank
from uic.models.rankers.dicm.prerank_settings import PrerankSettings
from uic.models.rankers.dicm.settings import DicmSettings
from uic.models.rankers.imn.imn import Imn
from uic.models.rankers.imn.settings import ImnSettings
from uic.models.rankers.lmn.settings import DinSettings, LmnOnDinSettings, PluggableSettings
from uic.models.rankers.mimn import Mimn, MimnSettings
from uic.models.rankers.ranker import Ranker


class UnknownModelError(BadInputError):
    """No model of that name."""


@dataclass(frozen=True)
class ModelKind:
    """One model.

    Attributes:
        title: its name in the papers.
        settings: hyper-parameters with defaults.
        build: (settings, item rows, category rows) to the model.
    """

    title: str
    settings: type[RankerSettings]
    build: Callable[..., Ranker]


MODELS: dict[str, ModelKind] = {
    "mimn": ModelKind("MIMN", MimnSettings, Mimn),
    "sum_pooling": ModelKind("Embedding&MLP", PluggableSettings, SumPooling),
    "average_pooling": ModelKind("YouTube DNN", PluggableSettings, AveragePooling),
    "two_pools": ModelKind("two pools", TwoPoolsSettings, TwoPools),
    "din": ModelKind("DIN", DinSettings, Din),
    "gru4rec": ModelKind("GRU4REC", WindowedSettings, Gru4Rec),
    "dien": ModelKind("DIEN", DienSettings, Dien),
    "dnn": ModelKind("Base", DnnSettings, Dnn),
    "lr": ModelKind("LR", LrSettings, LogisticRegression),
    "arnn": ModelKind("ARNN", WindowedSettings, Arnn),
    "rum": ModelKind("RUM", RumSettings, Rum),
    "sasrec": ModelKind("SASRec", SasRecSettings, SasRec),
    "sim": ModelKind("SIM", SimSettings, Sim),
    "ubr4ctr": ModelKind("UBR4CTR", Ubr4CtrSettings, Ubr4Ctr),
    "imn": ModelKind("IMN", ImnSettings, Imn),
    "lmn": ModelKind("LMN", LmnOnDinSettings, Din),
    "dicm": ModelKind("DICM", DicmSettings, Dicm),
    "prerank": ModelKind("DICM pre-rank", PrerankSettings, Prerank),
}


ENTRY_POINTS: Final = "uic.rankers"


def register_ranker(name: str, kind: ModelKind) -> None:
    """Make a ranker from outside known to training, bundles and the service.

    A process that loads its bundles must register it too. A package does so for every process by
    an entry point of the group `uic.rankers`: `name = "package.module:KIND"`, a `ModelKind`.

    Raises:
        BadInputError: another model has this name.
    """
    if MODELS.get(name, kind) != kind:
        msg = f"model {name!r} is known already ({MODELS[name].title}); choose another name"
        raise BadInputError(msg)
    MODELS[name] = kind


def model_kind(name: str) -> ModelKind:
    """Look a model up, also among the entry points of installed packages.

    Raises:
        UnknownModelError: lists the known ones.
    """
    if name not in MODELS:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            register_ranker(name, entry.load())
    if name not in MODELS:
        msg = f"model {name!r} is unknown; known: {', '.join(sorted(MODELS))}"
        raise UnknownModelError(msg)
    return MODELS[name]
