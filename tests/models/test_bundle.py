"""Bundles: what is saved is what is loaded, and anything else is refused by name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from uic.jobs.drills.hostile.bundle_damage import DAMAGES, reseal
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import ManifestError, UicError
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.records.record import header_view
from uic.models.samples.reader import SamplesReader
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer

SMALL = ["item_width=4", "category_width=2", "head_widths=[8]", "epochs=1"]
MIMN = [*SMALL, "slots=2", "controller=4", "channel_width=4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request):
    """A trained model of each kind; training is not what is tested here."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("c", request.path.parent / "conftest.py")
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    root = samples.publish_samples(tmp_path_factory.mktemp("s") / "small", samples.random_rows(60))
    reader = SamplesReader(root)

    def train(model, sets, seed=0):
        settings, training = apply_settings(model, TrainSettings(), sets)
        days = split_days(reader.days(), None, None, 1, "small")
        run = RunSpec(model, settings, training, days, seed, reader.name, reader.manifest_sha256())
        return Trainer(reader, run).run()

    return {
        "mimn": train("mimn", MIMN),
        "sum_pooling": train("sum_pooling", SMALL),
        "other": train("sum_pooling", SMALL, seed=1),
    }


@pytest.fixture
def bundle_path(trained, tmp_path):
    path = tmp_path / "bundles" / "mimn" / "0001"
    save_bundle(path, trained["mimn"])
    return path


def edit_config(path, change):
    document = json.loads((path / "config.json").read_text())
    change(document)
    (path / "config.json").write_text(json.dumps(document))
    reseal(path)


def test_a_loaded_bundle_is_the_trained_model(trained, bundle_path):
    bundle = load_bundle(bundle_path)
    assert (bundle.name, bundle.version) == ("mimn", "0001")
    for name, tensor in trained["mimn"].model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[name], tensor), name
    assert bundle.metrics["test"]["auc"] == pytest.approx(trained["mimn"].metrics.auc)
    assert bundle.config.settings["slots"] == 2
    assert bundle.manifest["training_data"]["first_day"] == "2024-01-01"
    ids = np.array([3, 17, 999_999])
    vectors = bundle.embed(ids, ids % 10)
    assert vectors.shape == (3, 6)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad


def test_a_loaded_bundle_folds_events_into_records(bundle_path):
    bundle = load_bundle(bundle_path)
    folder = MemoryFolder(bundle, generation=3)
    records = folder.initial_records(2)
    count = np.arange(4)
    events = EventBatch(
        user_index=np.array([0, 0, 1, 1]),
        item_ids=np.array([1, 2, 3, 777_777]),
        category_ids=np.array([1, 2, 3, 7]),
        behaviors=np.zeros(4, np.int8),
        event_times_ms=count,
        log_times_ms=count,
        epochs=np.ones(4, np.int64),
        partitions=np.zeros(4, np.int64),
        offsets=count,
    )
    outcome = folder.fold(records, events)
    assert not outcome.skipped.any()
    header = header_view(outcome.records)
    assert header["events"].tolist() == [2, 2]
    assert bytes(header["bundle"][0]) == bundle.hash8


def test_the_hash_is_of_the_model_and_not_of_its_name(trained, tmp_path):
    first = save_bundle(tmp_path / "a", trained["sum_pooling"])
    same = save_bundle(tmp_path / "b", trained["sum_pooling"])
    other = save_bundle(tmp_path / "c", trained["other"])
    assert len(first) == 8
    assert first == same != other
    assert load_bundle(tmp_path / "a").hash8 == first


def test_a_readout_understands_its_own_memories_and_those_listed(trained, tmp_path):
    hash8 = save_bundle(tmp_path / "a", trained["mimn"], readout_compatible_with=(b"12345678",))
    assert load_bundle(tmp_path / "a").readout_compatible_with == {hash8, b"12345678"}


def test_a_model_without_memory_says_so(trained, tmp_path):
    save_bundle(tmp_path / "a", trained["sum_pooling"])
    bundle = load_bundle(tmp_path / "a")
    assert not bundle.has_memory
    with pytest.raises(BundleError, match="model sum_pooling keeps no memory"):
        _ = bundle.memory


def test_a_published_version_is_not_overwritten(trained, bundle_path):
    with pytest.raises(BundleError, match="0001: this version is published already"):
        save_bundle(bundle_path, trained["mimn"])


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "vocabulary.parquet", "metrics.json"]
)
def test_a_changed_byte_is_refused_by_name(bundle_path, name):
    path = bundle_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=rf"{name}: sha256 is .* the manifest says"):
        load_bundle(bundle_path)


def test_a_missing_file_is_refused_by_name(bundle_path):
    (bundle_path / "vocabulary.parquet").unlink()
    with pytest.raises(ManifestError, match=r"vocabulary\.parquet: missing"):
        load_bundle(bundle_path)


def test_a_bundle_without_manifest_is_refused(bundle_path):
    (bundle_path / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"manifest\.json: missing"):
        load_bundle(bundle_path)


def test_a_missing_tensor_is_refused_by_name(bundle_path):
    tensors = load_file(bundle_path / "model.safetensors")
    del tensors["memory.controller.weight_hh"]
    save_file(tensors, bundle_path / "model.safetensors")
    reseal(bundle_path)
    with pytest.raises(BundleError, match=r"tensor memory\.controller\.weight_hh is missing"):
        load_bundle(bundle_path)


def test_an_unknown_tensor_is_refused_by_name(bundle_path):
    tensors = load_file(bundle_path / "model.safetensors")
    save_file({**tensors, "extra": torch.ones(1)}, bundle_path / "model.safetensors")
    reseal(bundle_path)
    with pytest.raises(BundleError, match="tensor extra is unknown to model mimn"):
        load_bundle(bundle_path)


def test_a_tensor_of_another_shape_is_refused_by_name(bundle_path):
    tensors = load_file(bundle_path / "model.safetensors")
    tensors["memory.initial_memory"] = torch.ones(3, 6)
    save_file(tensors, bundle_path / "model.safetensors")
    reseal(bundle_path)
    message = r"initial_memory is float32\[3, 6\], expected float32\[2, 6\]"
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle_path)


def test_weights_that_are_no_safetensors_are_refused(bundle_path):
    (bundle_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    reseal(bundle_path)
    with pytest.raises(BundleError, match="not readable as safetensors"):
        load_bundle(bundle_path)


def test_a_newer_format_is_refused(bundle_path):
    edit_config(bundle_path, lambda document: document.update(format_version=2))
    with pytest.raises(BundleError, match="format_version is 2, this code reads up to 1"):
        load_bundle(bundle_path)


def test_a_newer_manifest_is_refused(bundle_path):
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    (bundle_path / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 7}))
    with pytest.raises(BundleError, match="schema_version is 7, this code reads up to 1"):
        load_bundle(bundle_path)


def test_an_unknown_key_is_refused_by_name(bundle_path):
    edit_config(bundle_path, lambda document: document.update(surprise=1))
    with pytest.raises(BundleError, match=r"config\.json: surprise: unknown"):
        load_bundle(bundle_path)


def test_an_unknown_hyper_parameter_is_refused_by_name(bundle_path):
    edit_config(bundle_path, lambda document: document["settings"].update(surprise=1))
    with pytest.raises(BundleError, match=r"settings\.surprise: unknown"):
        load_bundle(bundle_path)


def test_an_unknown_model_is_refused_by_name(bundle_path):
    edit_config(bundle_path, lambda document: document.update(model="mimm"))
    with pytest.raises(BundleError, match=r"config\.json: model 'mimm' is unknown"):
        load_bundle(bundle_path)


def test_a_vocabulary_of_another_size_is_refused(bundle_path):
    edit_config(bundle_path, lambda document: document["vocabulary"].update(item_ids=7))
    with pytest.raises(
        BundleError, match=r"vocabulary\.parquet: \d+ item ids, config\.json says 7"
    ):
        load_bundle(bundle_path)


def test_a_manifest_without_a_needed_file_is_refused(bundle_path):
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    manifest["files"] = [
        entry for entry in manifest["files"] if entry["path"] != "vocabulary.parquet"
    ]
    (bundle_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"names no vocabulary\.parquet"):
        load_bundle(bundle_path)


def test_every_refusal_is_a_user_error():
    assert issubclass(BundleError, UicError)
    assert BundleError.exit_code == 2


def test_a_shelf_finds_numbers_and_points(trained, tmp_path):
    shelf = BundleShelf(tmp_path / "bundles")
    assert shelf.models() == []
    assert shelf.next_version("mimn") == "0001"
    for version in ("0001", "0009", "tuned"):
        save_bundle(shelf.path("mimn", version), trained["mimn"])
    assert shelf.versions("mimn") == ["0001", "0009", "tuned"]
    assert shelf.next_version("mimn") == "0010"
    assert shelf.current("mimn") is None
    shelf.choose("mimn", "0009")
    assert shelf.find("mimn") == tmp_path / "bundles" / "mimn" / "0009"
    assert shelf.find("mimn/tuned").name == "tuned"
    assert shelf.find(str(tmp_path / "bundles" / "mimn" / "0001")).name == "0001"
    # A killed attempt has no manifest and is not a version.
    (tmp_path / "bundles" / "mimn" / "0011").mkdir()
    assert shelf.versions("mimn") == ["0001", "0009", "tuned"]


def test_a_bundle_that_is_not_there_lists_those_that_are(trained, tmp_path):
    shelf = BundleShelf(tmp_path / "bundles")
    save_bundle(shelf.path("mimn", "0001"), trained["mimn"])
    with pytest.raises(BundleError, match="no bundle 'mimn/0002'; there is: mimn/0001"):
        shelf.find("mimn/0002")
    with pytest.raises(BundleError, match="no version '0002'; there is: 0001"):
        shelf.choose("mimn", "0002")
    with pytest.raises(BundleError, match=r"version '\.\./x'"):
        shelf.path("mimn", "../x")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_published(trained, tmp_path, number):
    parameter = next(trained["other"].model.parameters())
    before = parameter.detach().view(-1)[0].item()
    parameter.data.view(-1)[0] = number
    try:
        with pytest.raises(BundleError, match="not finite"):
            save_bundle(tmp_path / "new", trained["other"])
    finally:
        parameter.data.view(-1)[0] = before
    assert not (tmp_path / "new" / "manifest.json").exists()


SAYS = {
    "no files": "files is no list",
    "null for files": "files is no list",
    "a file without bytes": "files is no list",
    "a file without a sum": r"no sha256 of model\.safetensors",
    "a device for a file": "outside of the directory",
    "a file of another folder": "outside of the directory",
    "a hash that is none": "no list of hashes",
    "no hashes": "no list of hashes",
    "a deep manifest": r"manifest\.json",
    "deep metrics": r"metrics\.json",
    "a deep config": r"config\.json",
    "metrics that are a list": r"metrics\.json",
    "metrics cut off": r"metrics\.json",
    "a pipe for metrics": r"metrics\.json: missing",
    "more rows than a machine has": "spare_item_rows",
    "weights that are NaN": "has 1 numbers that are not finite",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bundle_that_is_damaged_with_care_is_refused_in_a_line(bundle_path, damage):
    DAMAGES[damage](bundle_path)
    with pytest.raises(UicError, match=SAYS[damage]) as refused:
        load_bundle(bundle_path)
    assert "\n" not in str(refused.value)
