"""Samples in WebDataset shards: they are read in an order that seed and position say, and damage is named."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

pytest.importorskip("webdataset", reason="training data need the extra train")
from ex4d.installation import install_command
from ex4d.training import optical_flow_tracks, shards
from ex4d.training.errors import SampleError, ShardError, TrainingDataError
from ex4d.training.samples import SampleOrigin, TrainingSample, stacked
from ex4d.training.shards import Dataset, write_shard
from ex4d_core.errors import RequestError
from tests.training.random_samples import random_dataset, random_sample


def test_a_sample_survives_its_file_and_text_features_are_stored_without_their_empty_end():
    sample = random_sample(3)
    data = sample.to_bytes()
    again = TrainingSample.from_bytes(data, sample.key)
    assert again.origin == sample.origin
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in sample.tensors.items())
    full = random_sample(3, prompt_embeds=torch.ones(12, 8, dtype=torch.bfloat16)).to_bytes()
    assert len(full) - len(data) == 7 * 8 * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_latents": torch.zeros(16, 3, 4, 6, dtype=torch.bfloat16)}, "target_latents have 3"),
        ({"control_latents": torch.zeros(31, 2, 4, 6, dtype=torch.bfloat16)}, r"control_latents must be \(32, 2, 4, 6"),
        ({"image_latents": torch.zeros(20, 2, 4, 6)}, "image_latents is torch.float32"),
        ({"prompt_embeds": torch.full((12, 8), torch.nan, dtype=torch.bfloat16)}, "prompt_embeds contains NaN"),
        ({"image_embeds": torch.zeros(7, dtype=torch.bfloat16)}, "image_embeds must have 2 axes"),
    ],
)
def test_a_bad_tensor_is_named(changes, said):
    with pytest.raises(SampleError, match=f"sample '00000000': {said}"):
        random_sample(**changes)


def test_a_key_with_a_dot_would_split_its_name_in_the_shard():
    with pytest.raises(RequestError, match="invalid key"):
        SampleOrigin("a.b", 5, 48, 32)


def test_samples_of_a_batch_have_one_shape():
    target, conditioning = stacked([random_sample(0), random_sample(1)])
    assert target.shape == (2, 16, 2, 4, 6) and conditioning.control_latents.shape == (2, 32, 2, 4, 6)
    with pytest.raises(SampleError, match="differ in shape"):
        stacked([random_sample(0), random_sample(1, image_embeds=torch.zeros(4, 7, dtype=torch.bfloat16))])


def test_the_same_samples_become_the_same_shard_and_webdataset_reads_it(tmp_path):
    from webdataset import WebDataset

    records = [write_shard(tmp_path / f"samples-0000{n}.tar", [random_sample(1), random_sample(2)]) for n in range(2)]
    assert records[0].sha256 == records[1].sha256 and not list(tmp_path.glob("*.partial"))
    read = list(WebDataset(str(tmp_path / "samples-00000.tar"), shardshuffle=False))
    assert [one["__key__"] for one in read] == ["00000001", "00000002"] == list(records[0].keys)
    assert TrainingSample.from_bytes(read[0]["safetensors"]).origin == random_sample(1).origin


def test_a_pass_has_every_sample_once_and_any_position_can_be_resumed(tmp_path):
    random_dataset(tmp_path, 3, 1, 4)
    dataset = Dataset.open(tmp_path)
    order = [sample.key for sample in islice(dataset.stream(seed=5), 24)]
    passes = [order[start : start + 8] for start in (0, 8, 16)]
    assert all(sorted(one) == [f"{number:08d}" for number in range(8)] for one in passes)
    assert passes[0] != passes[1] != passes[2]
    for start in (0, 1, 7, 8, 13):
        assert [sample.key for sample in islice(dataset.stream(5, start), 11)] == order[start : start + 11]
    ranks = [[sample.key for sample in islice(dataset.stream(5, 2 + rank, step=3), 7)] for rank in range(3)]
    assert [key for step in zip(*ranks, strict=True) for key in step] == order[2:23]
    assert [sample.key for sample in islice(dataset.stream(6), 24)] != order


def test_damage_of_a_shard_is_named(tmp_path):
    manifest = random_dataset(tmp_path, 2, 2)
    dataset, shard = Dataset.open(tmp_path), manifest.shards[1]
    path = tmp_path / shard.name
    whole = path.read_bytes()

    def read():
        return list(dataset.samples(shard))

    assert len(read()) == 2
    for damaged in (whole[: len(whole) // 3], whole[:512], b""):  # in a sample, after a header, and of all
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=shard.name):
            read()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ShardError, match=shard.name):
        read()
    path.write_bytes((tmp_path / manifest.shards[0].name).read_bytes())
    with pytest.raises(ShardError, match=f"{shard.name} has '00000000.safetensors' in the place of sample '00000002'"):
        read()
    path.unlink()
    with pytest.raises(ShardError, match=shard.name):
        read()


def test_a_shard_of_other_shapes_than_the_manifest_is_named(tmp_path):
    random_dataset(tmp_path, 1)
    other = random_sample(0, image_embeds=torch.zeros(9, 7, dtype=torch.bfloat16))
    dataset = Dataset.open(tmp_path)
    record = write_shard(tmp_path / "samples-00000.tar", [other])
    with pytest.raises(ShardError, match=r"samples-00000.tar: sample '00000000' has shapes"):
        list(dataset.samples(record))


def test_a_data_set_that_is_not_finished_or_damaged_is_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="no finished data set"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": 2}')
    with pytest.raises(TrainingDataError, match="no manifest"):
        Dataset.open(tmp_path)
    random_dataset(tmp_path)
    with pytest.raises(TrainingDataError, match="has no samples"):
        Dataset.open(tmp_path)
    with pytest.raises(TrainingDataError, match="pipe"):
        Dataset.open("pipe://touch x")


@pytest.mark.parametrize("require", [shards.require_webdataset, optical_flow_tracks._require_scikit_image])
def test_a_missing_package_comes_with_the_command_of_this_installation(require, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingDataError) as told:
        require()
    assert install_command("train") in str(told.value)
