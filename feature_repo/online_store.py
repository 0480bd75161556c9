"""`UicOnlineStore`: Feast's Redis store with one layout added.

A view tagged `layout: packed` is one Redis string per entity (`uic.feature_repo.store.layout`),
read by one MGET and written by scripts in which the larger position wins. All other views are
Feast's own, untouched. Feast 0.67 reads through two private hooks and not through `online_read`;
the test `test_feast_still_has_the_hooks_we_override` fails when an upgrade changes them.

| door | hook |
|---|---|
| `get_online_features`, feature server | `_read_features_per_fv` and its `_async` twin |
| Feast's other stores, precomputed vectors | `online_read`, `online_read_async` |
| `materialize`, `write_to_online_store` | `online_write_batch`, `online_write_batch_async` |
| `apply`, `teardown` | `update`, `delete_table`, `teardown` |
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal

import redis
import redis.asyncio
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey

from uic.feature_repo.plugin.config import PackedStoreConfig
from uic.feature_repo.plugin.deletion import Deletion, views_by_keys
from uic.feature_repo.plugin.packed_reads import (
    Asked,
    OpenedView,
    append_answer,
    entity_ids,
    values_of,
    values_of_async,
)
from uic.feature_repo.plugin.packed_view import PackedView, is_packed
from uic.feature_repo.plugin.packed_writes import write_generation
from uic.feature_repo.store.claim import StoreClaim
from uic.feature_repo.store.connection import Address, connect, refuse_eviction
from uic.feature_repo.store.errors import StoreSettingError
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import NO_GENERATION, USER_FEATURES_VIEW, ViewKeys
from uic.feature_repo.store.live import LivePointer
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.tombstones import Tombstones


class UicOnlineStoreConfig(PackedStoreConfig):
    """Feast finds it by the store's name plus `Config`, and the store by its module."""

    type: Literal["uic.feature_repo.online_store.UicOnlineStore"] = (
        "uic.feature_repo.online_store.UicOnlineStore"
    )


class UicOnlineStore(RedisOnlineStore):  # type: ignore[misc] # Feast has no types
    """Feast's Redis store with the packed layout; see the module."""

    _client: Any
    _client_async: Any

    def __init__(self) -> None:
        super().__init__()
        self._client = self._client_async = None
        self._opened: dict[tuple[str, str], OpenedView] = {}
        self._address: Address | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # Connections

    def _where(self, settings: UicOnlineStoreConfig) -> Address:
        if self._address is None:
            self._address = settings.address()
        return self._address

    def _get_client(self, online_store_config: UicOnlineStoreConfig) -> Any:
        if self._client is None:
            address = self._where(online_store_config)
            client = connect(address)
            refuse_eviction(client, address)
            self._client = client
        return self._client

    async def _get_client_async(self, online_store_config: UicOnlineStoreConfig) -> Any:
        loop = asyncio.get_running_loop()
        if self._client_async is None or self._loop is not loop:
            # A connection belongs to the event loop that made it.
            await asyncio.to_thread(self._get_client, online_store_config)
            address = self._where(online_store_config)
            self._client_async = redis.asyncio.Redis(**address.client_arguments())
            self._loop = loop
        return self._client_async

    def _open(self, config: RepoConfig, table: FeatureView) -> OpenedView:
        """What belongs to a packed view as it is defined now, made on first use."""
        settings = config.online_store
        settings.check_project(config.project)
        view = PackedView.of(config.project, table)
        if settings.key_ttl_seconds:
            msg = (
                f"feature_store.yaml: key_ttl_seconds is {settings.key_ttl_seconds}, feature view "
                f"{view.name} is packed: values that expire are lost silently; remove the setting, "
                "or keep packed views in a feature repository of their own"
            )
            raise StoreSettingError(msg)
        opened = self._opened.get((config.project, table.name))
        if opened is not None and opened.view == view:
            return opened
        address = str(self._where(config.online_store))
        client = self._get_client(settings)
        store = PackedStore(
            client,
            view.keys,
            address=address,
            layout=view.layout,
            keys_per_script=settings.settings.keys_per_script,
            keys_per_read=settings.settings.keys_per_read,
        )
        pointer = (
            LivePointer(client, view.keys, address, settings.settings.pointer_refresh_seconds)
            if view.has_generations
            else None
        )
        opened = OpenedView(view, store, pointer)
        self._opened[config.project, table.name] = opened
        return opened

    # Reading

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Any]:
        """One (event time, values by feature) per entity key; (None, None) for an unknown one."""
        if not is_packed(table):
            found: list[Any] = super().online_read(config, table, entity_keys, requested_features)
            return found
        opened = self._open(config, table)
        opened.view.check_features(requested_features)
        values = opened.values([opened.view.id_of(key.entity_values[0]) for key in entity_keys])
        return [opened.view.row(value) for value in values]

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Any]:
        """As `online_read`."""
        if not is_packed(table):
            found: list[Any] = await super().online_read_async(
                config, table, entity_keys, requested_features
            )
            return found
        opened = self._open(config, table)
        opened.view.check_features(requested_features)
        ids = [opened.view.id_of(key.entity_values[0]) for key in entity_keys]
        client = await self._get_client_async(config.online_store)
        return [opened.view.row(value) for value in await opened.values_async(client, ids)]

    def _read_features_per_fv(  # noqa: PLR0917 - Feast's signature
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,  # noqa: FBT001 - Feast's signature
        include_feature_view_version_metadata: bool,  # noqa: FBT001
    ) -> None:
        entities = (join_key_values, entity_name_to_join_key_map)
        names = (full_feature_names, include_feature_view_version_metadata)
        # In the order asked for, neighbours of Feast's own layout in one pipeline.
        for packed, group in groupby(grouped_refs, lambda pair: is_packed(pair[0])):
            if not packed:
                super()._read_features_per_fv(
                    config, list(group), *entities, online_features_response, *names
                )
                continue
            tables = list(group)
            asked = self._asked(config, tables, entities)
            for (table, _), (opened, _), values in zip(
                tables, asked, values_of(asked), strict=True
            ):
                append_answer(table, opened.view, values, online_features_response, *names)

    async def _read_features_per_fv_async(  # noqa: PLR0917 - Feast's signature
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,  # noqa: FBT001 - Feast's signature
        include_feature_view_version_metadata: bool,  # noqa: FBT001
    ) -> None:
        entities = (join_key_values, entity_name_to_join_key_map)
        names = (full_feature_names, include_feature_view_version_metadata)
        # In the order asked for, neighbours of Feast's own layout in one pipeline.
        for packed, group in groupby(grouped_refs, lambda pair: is_packed(pair[0])):
            if not packed:
                await super()._read_features_per_fv_async(
                    config, list(group), *entities, online_features_response, *names
                )
                continue
            tables = list(group)
            asked = self._asked(config, tables, entities)
            client = await self._get_client_async(config.online_store)
            read = await values_of_async(asked, client)
            for (table, _), (opened, _), values in zip(tables, asked, read, strict=True):
                append_answer(table, opened.view, values, online_features_response, *names)

    def _asked(self, config: RepoConfig, tables: list[Any], entities: Any) -> Asked:
        """What neighbouring packed views are asked for."""
        asked = []
        for table, features in tables:
            opened = self._open(config, table)
            opened.view.check_features(features)
            asked.append((opened, entity_ids(table, opened.view, *entities)))
        return asked

    # Writing

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; in a packed view the larger position (or later event time) stays.

        A store that is another workspace's is refused. A generation that it does not know is
        registered from the manifest beside the view's source, if its rows come from there.
        """
        if not is_packed(table):
            super().online_write_batch(config, table, data, progress)
            return
        opened = self._open(config, table)
        if claim := self._claim(config):
            claim.hold()
        rows = opened.view.packed(data)
        if opened.view.has_generations:
            for generation, part in rows.by_generation():
                write_generation(opened, table, generation, part)
        elif len(rows.ids):
            self._tell_forgotten(config, table)
            opened.store.write(NO_GENERATION, rows.ids, rows.values)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """As `online_write_batch`; packed views are written in a thread of their own."""
        if not is_packed(table):
            await super().online_write_batch_async(config, table, data, progress)
            return
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    # Definitions

    def update(  # noqa: PLR0917 - Feast's signature
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        """Check packed views (`feast apply`), delete those that are gone, if that is allowed."""
        for table in tables_to_keep:
            if is_packed(table):
                self._open(config, table)
        packed = [table for table in tables_to_delete if is_packed(table)]
        used = views_by_keys(config, tables_to_delete, tables_to_keep)
        if packed and config.online_store.full_scan_for_deletion:
            self._deletion(config).delete(config.project, packed, used)
        super().update(
            config,
            [table for table in tables_to_delete if not is_packed(table)],
            tables_to_keep,
            entities_to_delete,
            entities_to_keep,
            partial,
        )

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete a view's values, if that is allowed; tombstones stay."""
        if not is_packed(table):
            super().delete_table(config, table)
            return
        self._deletion(config).delete(config.project, [table], ())

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Any]
    ) -> None:
        """Delete everything of these views (`feast teardown`), if that is allowed."""
        packed = [table for table in tables if is_packed(table)]
        self._deletion(config).delete(config.project, packed, ())
        super().teardown(config, [table for table in tables if not is_packed(table)], entities)

    def _tell_forgotten(self, config: RepoConfig, table: FeatureView) -> None:
        """Before users' features are written: a store that was lost does not know who must not."""
        online = config.online_store
        if table.name == USER_FEATURES_VIEW and online.workspace.is_dir():
            keys = ViewKeys.of_memories(config.project)
            client = self._get_client(online)
            Tombstones(online.workspace).tell(Generations(client, keys, str(self._where(online))))

    def _claim(self, config: RepoConfig) -> StoreClaim | None:
        """Whose store it is; None where Feast stands alone, without a workspace."""
        online = config.online_store
        if not online.workspace.is_dir():
            return None
        client, address = self._get_client(online), str(self._where(online))
        settings = online.settings.model_copy(update={"project": config.project})
        return StoreClaim(client, settings, online.workspace, address)

    def _deletion(self, config: RepoConfig) -> Deletion:
        config.online_store.check_project(config.project)
        address = str(self._where(config.online_store))
        client = self._get_client(config.online_store)
        if claim := self._claim(config):
            claim.refuse_other()
        return Deletion(client, address, allowed=config.online_store.settings.allow_deletion)

    async def close(self) -> None:
        """Close the connections (the feature server calls it as it ends)."""
        if self._client_async is not None:
            if (
                self._loop is asyncio.get_running_loop()
            ):  # those of a loop that ended, ended with it
                await self._client_async.aclose()
            self._client_async = None
        if self._client is not None:
            self._client.close()
            self._client = None
        self._opened.clear()
