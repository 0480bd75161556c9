"""The models that can be trained, by name, with the hyper-parameters of each."""

from collections.abc import Callable
from dataclasses import dataclass

from models.baselines.arnn import Arnn
from models.baselines.average_pooling import AveragePooling
from models.baselines.dien import Dien, DienSettings
from models.baselines.din import Din
from models.baselines.dnn import Dnn
from models.baselines.gru4rec import Gru4Rec
from models.baselines.lr import LogisticRegression, LrSettings
from models.baselines.rum import Rum, RumSettings
from models.baselines.sasrec import SasRec, SasRecSettings
from models.baselines.sim import Sim, SimSettings
from models.baselines.sum_pooling import SumPooling
from models.baselines.ubr4ctr import Ubr4Ctr, Ubr4CtrSettings
from models.dicm import Dicm
from models.dicm_settings import DicmSettings
from models.errors import BadInputError
from models.imn import Imn
from models.imn_settings import ImnSettings
from models.lmn_settings import DinSettings, LmnOnDinSettings, PoolingSettings
from models.mimn import Mimn, MimnSettings
from models.prerank import Prerank
from models.prerank_settings import PrerankSettings
from models.ranker import Ranker
from models.ranker_settings import RankerSettings, WindowedSettings


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
    "sum_pooling": ModelKind("Embedding&MLP", PoolingSettings, SumPooling),
    "average_pooling": ModelKind("YouTube DNN", PoolingSettings, AveragePooling),
    "din": ModelKind("DIN", DinSettings, Din),
    "gru4rec": ModelKind("GRU4REC", WindowedSettings, Gru4Rec),
    "dien": ModelKind("DIEN", DienSettings, Dien),
    "dnn": ModelKind("Base", PoolingSettings, Dnn),
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


def model_kind(name: str) -> ModelKind:
    """Look a model up.

    Raises:
        UnknownModelError: lists the known ones.
    """
    if name not in MODELS:
        msg = f"model {name!r} is unknown; known: {', '.join(sorted(MODELS))}"
        raise UnknownModelError(msg)
    return MODELS[name]
