"""Checkpoints: whole or not there, damage seen in every file, nothing lost when writing fails."""

import errno
import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import save_file

from metacl.coordination import checkpoint as module
from metacl.coordination.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from metacl.errors import ResourceError, TrainingError

FILES = ["meta_params.safetensors", "outer_state.safetensors", "state.json", "manifest.json"]


def checkpoint_at(step, size=3):
    generator = torch.Generator().manual_seed(step)
    meta = {"adapter.w": torch.randn(size, generator=generator), "step_size.a": torch.tensor(0.1)}
    state = {"exp_avg/adapter.w": torch.ones(size) / 3, "step/adapter.w": torch.tensor(float(step))}
    return Checkpoint(step, meta, state)


def assert_same(found, expected):
    assert found.step == expected.step
    for mine, theirs in ((found.meta, expected.meta), (found.outer_state, expected.outer_state)):
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert all(mine[name].dtype == theirs[name].dtype for name in theirs)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_loads_what_was_saved(tmp_path):
    path = save_checkpoint(tmp_path / "deep" / "checkpoints", checkpoint_at(7), keep=2)
    assert path == tmp_path / "deep" / "checkpoints" / "step-7"
    assert names_in(path) == sorted(FILES)
    assert_same(load_checkpoint(path), checkpoint_at(7))


def test_tensors_in_other_memory_layouts(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    path = save_checkpoint(tmp_path, Checkpoint(1, {"a": matrix}, {}), keep=1)
    assert torch.equal(load_checkpoint(path).meta["a"], matrix.detach())
    assert load_checkpoint(path).outer_state == {}


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.zeros(1)}, {}), keep=1)
    path = save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.ones(1)}, {}), keep=1)
    assert load_checkpoint(path).meta["a"].item() == 1.0
    assert names_in(tmp_path) == ["step-1"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path, name):
    path = save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    sound = (path / name).read_bytes()
    for position in range(0, len(sound), max(1, len(sound) // 40)):
        damaged = bytearray(sound)
        damaged[position] ^= 1
        (path / name).write_bytes(damaged)
        with pytest.raises(TrainingError, match="step-1") as caught:
            load_checkpoint(path)
        assert name in str(caught.value) or name == "manifest.json"
        assert caught.value.exit_code == 4
    (path / name).write_bytes(sound)
    load_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_cut_and_missing_files(tmp_path, name, damage):
    path = save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    whole = (path / name).read_bytes()
    if damage == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(TrainingError, match="step-1"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", ["[]", "null", "{}"])
def test_manifest_that_vouches_for_nothing(tmp_path, content):
    path = save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    (path / "manifest.json").write_text(content)
    with pytest.raises(TrainingError, match="step-1"):
        load_checkpoint(path)


def test_other_format_is_refused_by_its_number(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    (path / "state.json").write_text('{"format": 99, "step": 1}')
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = module._sha256(path / "state.json")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="written in format 99, this metacl reads 1"):
        load_checkpoint(path)


def test_newest_is_by_number_not_by_name(tmp_path):
    for step in (2, 9, 10):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=5)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10, 9, 2]
    assert newest_checkpoint(tmp_path, pytest.fail).step == 10


def test_a_course_that_goes_back_replaces_what_came_after(tmp_path):
    for step in (50, 60, 25):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [25]


def test_newest_skips_damaged_ones_and_names_them(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=5)
    (tmp_path / "step-3" / "state.json").write_text("{")
    (tmp_path / "step-2" / "manifest.json").unlink()
    notes = []
    assert_same(newest_checkpoint(tmp_path, notes.append), checkpoint_at(1))
    assert len(notes) == 2
    assert "damaged" in notes[0]
    assert str(tmp_path / "step-3") in notes[0]
    assert "state.json" in notes[0]
    assert str(tmp_path / "step-2") in notes[1]


def test_nothing_there(tmp_path):
    assert newest_checkpoint(tmp_path, pytest.fail) is None
    assert newest_checkpoint(tmp_path / "no", pytest.fail) is None


def test_all_damaged(tmp_path):
    for step in (1, 2):
        shutil.rmtree(save_checkpoint(tmp_path, checkpoint_at(step), keep=5))
        (tmp_path / f"step-{step}").mkdir()
    with pytest.raises(TrainingError, match=r"all 2 checkpoints are damaged\. Start again"):
        newest_checkpoint(tmp_path, lambda text: None)


def test_other_names_are_no_checkpoints(tmp_path):
    for name in ("step-x", "step-1.bak", ".step-4.tmp-1", "notes"):
        (tmp_path / name).mkdir()
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    for step in range(1, 6):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=keep)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [5, 4, 3][:keep]
    assert len(names_in(tmp_path)) == keep


def assert_only_the_older_one_is_there(folder):
    assert names_in(folder) == ["step-1"]
    assert_same(load_checkpoint(folder / "step-1"), checkpoint_at(1))


@pytest.mark.parametrize("failing", [1, 2])
def test_full_disk(tmp_path, failing):
    save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    calls = []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(*arguments, **options)

    with pytest.raises(ResourceError, match=r"step-2: .*No space left on device.*free some space") as caught:
        save_checkpoint(tmp_path, checkpoint_at(2), keep=1, write=full)
    assert caught.value.exit_code == 3
    assert_only_the_older_one_is_there(tmp_path)


def test_failure_while_flushing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint_at(1), keep=1)

    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.os, "fsync", broken)
    with pytest.raises(ResourceError, match="Input/output error") as caught:
        save_checkpoint(tmp_path, checkpoint_at(2), keep=1)
    assert "disk is full" not in str(caught.value)
    assert_only_the_older_one_is_there(tmp_path)


def test_failure_inside_safetensors(tmp_path):
    # safetensors writes in Rust and wraps what the system says into an exception of its own.
    save_checkpoint(tmp_path, checkpoint_at(1), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ResourceError, match=r"step-2: the checkpoint could not be written .*File too large"):
            save_checkpoint(tmp_path, checkpoint_at(2, size=10_000), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_only_the_older_one_is_there(tmp_path)


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "checkpoints", checkpoint_at(1), keep=1)


def test_what_a_killed_process_left_aside_is_removed(tmp_path):
    (tmp_path / ".step-1.tmp-999999").mkdir()
    save_checkpoint(tmp_path, checkpoint_at(2), keep=1)
    assert names_in(tmp_path) == ["step-2"]
