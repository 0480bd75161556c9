"""`online_store:` of feature_store.yaml: Feast's Redis settings, and `uic`'s.

Where Redis is comes from the place where `uic` has it, the workspace's `uic.yaml` and
`UIC_STORE__*`, read here, so that `feature_store.yaml` need not name them and never a secret. A
field of `StoreSettings` written there counts as one of `uic.yaml`; the environment wins over both.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from pydantic import model_validator

from uic.feature_repo.decode import START, workspace
from uic.feature_repo.store.connection import Address, resolve_address
from uic.feature_repo.store.errors import StoreSettingError
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.settings_file import store_settings

# Fields of Feast's Redis store that this one honours; any other must stay at its default.
_HONOURED: Final = ("type", "key_ttl_seconds", "full_scan_for_deletion", "skip_dedup")
_INSTEAD: Final = {
    "connection_string": "write address, db, username and tls, or set UIC_STORE__ADDRESS",
    "redis_type": "name the one primary by address; there is no Cluster or Sentinel",
    "sentinel_master": "name the one primary by address; there is no Sentinel",
    "client": "leave it out: redis-py reads and writes",
}
_UNSET: Final = re.compile(r"\$\{\w+\}|\$\w+")


class PackedStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc] # Feast has no types
    """Settings of the online store.

    Args:
        settings: as `uic` has them; read from its files and the environment unless handed over.
        workspace: whose they are; `UIC_WORKSPACE` unless handed over.
    """

    settings: StoreSettings
    workspace: Path

    @model_validator(mode="before")
    @classmethod
    def _read_settings(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        _refuse_what_is_not_honoured(given)
        root = Path(given.get("workspace") or workspace())
        ours = {name: given.pop(name) for name in StoreSettings.model_fields if name in given}
        given["workspace"] = root
        if "settings" not in given:
            named = os.environ.get("UIC_CONFIG")
            config = START / named if named else None
            given["settings"] = store_settings(root, config, START, ours)
        return given

    def address(self) -> Address:
        """Where Redis is, the workspace's embedded server if no address is set."""
        return resolve_address(self.settings, self.workspace)

    def check_project(self, project: str) -> None:
        """Refuse a project of Feast's that is not the one that `uic` was told.

        Raises:
            StoreSettingError: names both.
        """
        ours = self.settings.project
        if "project" in self.settings.model_fields_set and ours != project:
            msg = (
                f"feature_store.yaml: project is {project}, uic's store.project is {ours} "
                "(uic.yaml or UIC_STORE__PROJECT): they would not see each other's memories; "
                "write the same in both"
            )
            raise StoreSettingError(msg)


def _refuse_what_is_not_honoured(given: Mapping[str, Any]) -> None:
    ours = {*StoreSettings.model_fields, "settings", "workspace"}
    for name, value in given.items():
        if isinstance(value, str) and _UNSET.fullmatch(value):
            msg = (
                f"feature_store.yaml: online_store.{name} names an environment variable that is "
                "not set; remove the line: uic.yaml and UIC_STORE__* are read without it"
            )
            raise StoreSettingError(msg)
        inherited = RedisOnlineStoreConfig.model_fields.get(name)
        if inherited is None and name not in ours:
            msg = (
                f"feature_store.yaml: online_store.{name}: no such setting; `uic config show "
                "--all` lists those of the section store"
            )
            raise StoreSettingError(msg)
        if inherited is not None and name not in _HONOURED and value != inherited.default:
            advice = _INSTEAD.get(name, "remove it")
            msg = f"feature_store.yaml: online_store.{name} is not used by this store; {advice}"
            raise StoreSettingError(msg)
