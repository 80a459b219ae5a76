"""Datasets in the forms of the Hugging Face Hub, laid down locally."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reflexion.datasets import open_dataset
from reflexion.errors import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def write(path: Path, count: int, **more: Any) -> None:
    rows = [{"question": f"{path.stem} {i}?", "answer": f"so\n#### {i}", **more} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset with two splits."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "sums"
    folder.mkdir()
    write(folder / "train.jsonl", 7, level="easy")
    write(folder / "test.jsonl", 3, level="hard")
    return folder


@pytest.mark.parametrize(("rest", "count"), [("::test", 3), ("::train", 7), (":default:test", 3)])
def test_a_split_is_a_dataset(folder: Path, rest: str, count: int) -> None:
    name = f"hf:{folder}{rest}"
    dataset = open_dataset(name)
    assert (len(dataset), dataset.format, dataset.name) == (count, "GSM8K", name)
    split = rest.rpartition(":")[2]
    assert [(p.prompt, p.answer) for p in dataset] == [(f"{split} {i}?", str(i)) for i in range(count)]
    assert [p.id for p in dataset.shard(1, 2)] == [str(i + 1) for i in range(count)][count // 2 :]
    assert open_dataset(name, shuffle_seed=1).digest == dataset.digest


def test_conditions_and_mappings_hold(folder: Path) -> None:
    name = f"hf:{folder}::test"
    assert len(open_dataset(name, where="level=hard", limit=2)) == 2
    mapped = open_dataset(name, mapping={"prompt": "{question} ({level})"})
    assert mapped[0].prompt == "test 0? (hard)"
    assert mapped.digest != open_dataset(name).digest


def test_what_save_to_disk_leaves_is_read(folder: Path, tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    saved = tmp_path / "saved"
    datasets.Dataset.from_list([{"prompt": "p", "answer": "a", "none": None}]).save_to_disk(str(saved))
    assert [(p.prompt, p.answer, p.metadata) for p in open_dataset(f"hf:{saved}")] == [("p", "a", {})]
    [file] = saved.glob("*.arrow")
    assert open_dataset(file)[0].prompt == "p"


def test_splits_that_do_not_fit_together_are_told_in_the_package_s_words(folder: Path) -> None:
    write(folder / "train.jsonl", 7, other=1)
    with pytest.raises(DatasetError, match=r"cannot be loaded .*column"):
        open_dataset(f"hf:{folder}::test")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "it has 2 splits; name one: "),
        ("::validation", "no split 'validation'; there are train, test"),
        (":french", "cannot be loaded"),
    ],
)
def test_what_there_is_not_is_named(folder: Path, rest: str, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(f"hf:{folder}{rest}")
    assert str(caught.value).startswith(f"hf:{folder}{rest}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match="hf:a/b: reading from the Hub needs the package datasets; run: pip install"):
        open_dataset("hf:a/b")
    with pytest.raises(DatasetError, match="write hf:OWNER/NAME"):
        open_dataset("hf:")
