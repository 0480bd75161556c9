"""User interest center: one small record per user, from the behaviour log to ranking.

The names below are imported when they are first used: `import uic` takes no torch.

| name | for |
|---|---|
| `Workspace` | everything that the commands do, as methods |
| `load_bundle`, `Bundle` | a trained model, checked before it is used |
| `MemoryFolder` | folding events into memories with a bundle |
| `UicOnlineStore` | Feast's online store type, `uic.feature_repo.online_store.UicOnlineStore` |
| `register_ranker`, `ModelKind` | a ranker of your own, trained and served as the built-in ones |
| `Importer` | the protocol of an importer of your own |
| `UicError`, `BadInputError` | every error that is raised on purpose is one of these |
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uic.feature_repo.online_store import UicOnlineStore
    from uic.jobs.workspace.workspace import Workspace
    from uic.models.bundles.bundle import Bundle, load_bundle
    from uic.models.errors import BadInputError, UicError
    from uic.models.memory.fold import MemoryFolder
    from uic.models.rankers.catalogue import ModelKind, register_ranker
    from uic.pipelines.importers.source import Importer

__version__ = _version("user-interest-center")
__all__ = [
    "BadInputError",
    "Bundle",
    "Importer",
    "MemoryFolder",
    "ModelKind",
    "UicError",
    "UicOnlineStore",
    "Workspace",
    "load_bundle",
    "register_ranker",
]
_MODULES = {
    "BadInputError": "uic.models.errors",
    "Bundle": "uic.models.bundles.bundle",
    "Importer": "uic.pipelines.importers.source",
    "MemoryFolder": "uic.models.memory.fold",
    "ModelKind": "uic.models.rankers.catalogue",
    "UicError": "uic.models.errors",
    "UicOnlineStore": "uic.feature_repo.online_store",
    "Workspace": "uic.jobs.workspace.workspace",
    "load_bundle": "uic.models.bundles.bundle",
    "register_ranker": "uic.models.rankers.catalogue",
}


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    if name not in _MODULES:
        msg = f"module 'uic' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted([*globals(), *__all__])
