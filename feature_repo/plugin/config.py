"""`online_store:` of feature_store.yaml."""

from pathlib import Path
from typing import Any

from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from pydantic import SecretStr, ValidationInfo, field_validator

from uic.feature_repo.decode import workspace
from uic.feature_repo.store.connection import Address, resolve_address
from uic.feature_repo.store.settings import StoreSettings


class PackedStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc] # Feast has no types
    """Settings of the online store: Feast's own that are honoured, and where Redis is.

    A value that is still `${NAME}` is an environment variable that is not set, and means the
    default.
    """

    address: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    db: int = 0
    workspace: str | None = None
    timeout_seconds: float = 10.0
    keys_per_script: int = 500
    keys_per_read: int = 2000
    pointer_refresh_seconds: float = 1.0
    allow_deletion: bool = False

    @field_validator("address", "password", "tls", "workspace", mode="before")
    @classmethod
    def _default_if_unset(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and (not value or value.startswith("${")):
            return cls.model_fields[str(info.field_name)].default
        return value

    def resolved(self, project: str) -> Address:
        """Where Redis is, the workspace's embedded server if no address is set."""
        settings = StoreSettings(
            address=self.address,
            password=self.password,
            tls=self.tls,
            db=self.db,
            project=project,
            timeout_seconds=self.timeout_seconds,
        )
        root = Path(self.workspace).resolve() if self.workspace else workspace()
        return resolve_address(settings, root)
