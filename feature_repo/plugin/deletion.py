"""What `feast apply` and `feast teardown` may delete of packed views: nothing, unless told to.

Memories take days of events to make, and a definition is a line of Python. So:

1. Keys that a view uses which stays are never deleted: a view that was renamed and kept its tag
   `key_name` keeps its values.
2. Where values would go, `store.allow_deletion` must say so; the error tells how many they are.
3. All views are looked at before the first key is deleted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from feast import FeatureStore, FeatureView, RepoConfig

from uic.feature_repo.plugin.packed_view import is_packed, keys_of
from uic.feature_repo.store.errors import DeletionRefusedError, StoreSettingError, typed_errors
from uic.feature_repo.store.layout import ID_BYTES, ViewKeys

_SCAN_KEYS: Final = 1000


def views_by_keys(
    config: RepoConfig, gone: Iterable[FeatureView], kept: Iterable[FeatureView]
) -> dict[ViewKeys, str]:
    """Names of the packed views that there are after an apply, by their keys.

    Feast hands over what it was called with; the other views are in the registry, which holds the
    state before the apply.

    Raises:
        StoreSettingError: two of them have the same keys.
    """
    applied = {view.name: view for view in kept}
    leaving = {view.name for view in gone} - set(applied)
    registry = FeatureStore(config=config).registry
    registered = {
        view.name: view
        for view in registry.list_all_feature_views(config.project)
        if view.name not in leaving
    }
    names: dict[ViewKeys, str] = {}
    for view in (registered | applied).values():
        keys = keys_of(config.project, view) if is_packed(view) else None
        if keys is None:
            continue
        if keys in names:
            msg = (
                f"feature views {names[keys]} and {view.name} have one key_name, {keys.view}: each "
                "would overwrite the other's values; give one of them another tag key_name, or "
                "remove the old view and apply the new one in the same step"
            )
            raise StoreSettingError(msg)
        names[keys] = view.name
    return names


class Deletion:
    """Deletes the values of packed views whose definitions are gone.

    Args:
        client: Redis.
        address: for messages.
        allowed: `store.allow_deletion`.
    """

    def __init__(self, client: redis.Redis, address: str, *, allowed: bool) -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self._address = address
        self._allowed = allowed

    def delete(self, project: str, views: Sequence[FeatureView], used: Iterable[ViewKeys]) -> None:
        """Delete the keys of these views, apart from tombstones and keys in use.

        Raises:
            DeletionRefusedError: it would delete values, which is not allowed.
        """
        going: dict[ViewKeys, str] = {}
        for view in views:
            keys = keys_of(project, view)
            if keys is not None and keys not in set(used):
                going[keys] = view.name
        if not self._allowed:
            self._refuse_values(going)
        for keys in going:
            self._delete(keys)

    def _refuse_values(self, going: Mapping[ViewKeys, str]) -> None:
        counts = {keys: sum(_is_entity(key, keys) for key in self._keys(keys)) for keys in going}
        if any(counts.values()):
            each = ", ".join(
                f"{count} values of {going[keys]} (key_name {keys.view})"
                for keys, count in counts.items()
                if count
            )
            msg = (
                f"{self._address}: this would delete {each}, and nothing was deleted; to rename a "
                "view keep its tag key_name, to delete all of these set "
                "UIC_STORE__ALLOW_DELETION=true (store.allow_deletion) for this one command"
            )
            raise DeletionRefusedError(msg)

    def _delete(self, keys: ViewKeys) -> None:
        tombstones = keys.forgotten.encode()
        batch: list[bytes] = []
        for key in self._keys(keys):
            if key != tombstones:
                batch.append(key)
            if len(batch) == _SCAN_KEYS:
                self._unlink(batch)
                batch = []
        self._unlink(batch)

    def _keys(self, keys: ViewKeys) -> Iterator[bytes]:
        with typed_errors(self._address):
            yield from self._client.scan_iter(match=keys.everything, count=_SCAN_KEYS)

    def _unlink(self, batch: list[bytes]) -> None:
        if batch:
            with typed_errors(self._address):
                self._client.unlink(*batch)


def _is_entity(key: bytes, keys: ViewKeys) -> bool:
    """Whether a key of the view is a value's, and not one of the state beside them."""
    start = len(keys.everything) - 1
    generation, _, entity = key[start:].partition(b":")
    return generation.isdigit() and len(entity) == ID_BYTES
