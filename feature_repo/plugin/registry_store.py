"""Feast's registry file, replaced by a rename.

Feast 0.67 truncates the file and writes it again. A reader that looks in between finds a registry
without any view, and a `feast materialize` killed there leaves one for good.
`feature_store.yaml` names this class in its place.
"""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig

from uic.feature_repo.decode import workspace
from uic.models.published import write_bytes_atomically


class AtomicRegistryStore(FileRegistryStore):  # type: ignore[misc] # Feast has no types
    """A registry file that is the old one or the new one, never less.

    A relative path lies in the workspace, where `uic` has its registry, and not beside the code.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        super().__init__(registry_config, repo_path)
        self._filepath = workspace() / registry_config.path

    def _write_registry(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(self._filepath, registry_proto.SerializeToString())
