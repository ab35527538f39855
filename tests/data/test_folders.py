"""Class-folder trees and CSV files, and everything that can be wrong with them."""

import random
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data import load_data
from kerasvision.data.folders import load_folder
from kerasvision.data.tables import load_csv
from kerasvision.errors import DataError


def test_plain_tree(image_folder):
    data = load_data(image_folder({"dogs": 10, "cats": 20}))
    assert data.labels == ("cats", "dogs")
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 27, "validation": 3}
    for examples in data.splits.values():
        for example in examples:
            assert data.labels[example["label"]] in example["image"]


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "validation", "testing"),
        ("train", "valid", "test"),
        ("TRAIN", "dev", "Test"),
    ],
)
def test_tree_with_splits(image_folder, train, validation, test):
    counts = {f"{train}/a": 3, f"{train}/b": 4, f"{validation}/a": 1, f"{validation}/b": 1, f"{test}/a": 2}
    data = load_data(image_folder(counts))
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 7, "validation": 2, "test": 2}
    assert data.labels == ("a", "b")


def test_missing_validation_is_taken_from_train(image_folder):
    data = load_data(image_folder({"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2}))
    assert {split: len(examples) for split, examples in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 4,
    }


def test_test_split_alone(image_folder):
    data = load_data(image_folder({"test/a": 2, "test/b": 2}))
    assert list(data.splits) == ["test"]
    with pytest.raises(DataError, match=r"no train split.*test"):
        data.batches("train", image_size=(8, 8))


def test_numbered_classes_are_in_number_order(image_folder):
    assert load_data(image_folder({"10": 2, "9": 2, "2": 2})).labels == ("2", "9", "10")


def test_clutter_is_ignored_and_nested_folders_are_read(image_folder):
    root = image_folder({"a": 3, "a/deeper": 2, "b": 3, ".git": 1, "__MACOSX/x": 1, "a/.cache": 1})
    for clutter in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", "README.md"):
        (root / clutter).write_text("clutter")
    listing = load_folder(root)
    assert listing.labels == ("a", "b")
    assert len(listing.splits["train"]) == 8


def test_linked_folders_are_followed_but_not_in_circles(image_folder):
    root = image_folder({"a": 3, "b": 3})
    (root / "a/again").symlink_to(root / "a")
    extra = image_folder({"x": 2}, root="elsewhere")
    (root / "b/linked").symlink_to(extra / "x")
    assert len(load_folder(root).splits["train"]) == 8


def test_class_called_test(image_folder):
    assert load_folder(image_folder({"test": 2, "train": 2, "exam": 2})).labels == ("exam", "test", "train")


def test_empty_class_folders_are_named(image_folder):
    root = image_folder({"a": 3, "b": 3})
    (root / "empty").mkdir()
    (root / "hidden").mkdir()
    (root / "hidden/.keep").touch()
    with pytest.raises(DataError, match=r"2 class folders are empty:(.|\n)*empty\n(.|\n)*hidden\n(.|\n)*remove them"):
        load_data(root)


def test_single_class(image_folder):
    with pytest.raises(DataError, match=r"single class \(a\)"):
        load_data(image_folder({"a": 3}))


def test_flat_folder_and_empty_folder(image_folder, tmp_path):
    with pytest.raises(DataError, match=r"No class folders .* \(3 files directly in it\)"):
        load_data(image_folder({"": 3}))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="No class folders"):
        load_data(tmp_path / "nothing")


def test_empty_validation_folder(image_folder):
    root = image_folder({"train/a": 3, "train/b": 3})
    (root / "val").mkdir()
    with pytest.raises(DataError, match=r"No class folders in .*val"):
        load_data(root)


def test_class_without_training_images(image_folder):
    with pytest.raises(DataError, match=r"no training images:\n  c\n"):
        load_data(image_folder({"train/a": 3, "train/b": 3, "val/a": 1, "val/c": 1}))


def test_folders_beside_the_splits(image_folder):
    with pytest.raises(DataError, match="beside them extras"):
        load_data(image_folder({"train/a": 3, "train/b": 3, "extras/a": 1}))


def test_two_folders_for_one_split(image_folder):
    with pytest.raises(DataError, match="two folders for the validation split"):
        load_data(image_folder({"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1}))


def test_folder_as_multi_label(image_folder):
    data = load_data(image_folder({"a": 4, "b": 4}), multi_label=True)
    assert data.multi_label
    _, targets = next(iter(data.batches("train", image_size=(8, 8))))
    np.testing.assert_array_equal(targets["labels"].numpy().sum(-1), 1)


@pytest.fixture
def table(image_folder):
    """Factory: writes a CSV beside six images, x/000.png to x/005.png."""
    root = image_folder({"x": 6})

    def write(text, name="labels.csv", encoding="utf-8"):
        path = root / name
        path.write_text(text, encoding=encoding)
        return path

    return write


LINES = "".join(f"x/{index:03}.png,{'ab'[index % 2]}\n" for index in range(6))


@pytest.mark.parametrize("header", ["", "path,label\n", "Image, Class\n", "\ufefffile_name,labels\n", "\n"])
def test_csv_with_and_without_header(table, header):
    data = load_data(table(header + LINES), validation_fraction=0)
    assert data.labels == ("a", "b")
    assert [example["label"] for example in data.splits["train"]] == [0, 1, 0, 1, 0, 1]
    next(iter(data.batches("train", image_size=(8, 8))))


def test_csv_columns_in_any_order_with_splits(table):
    text = "id,split,class,path\n" + "".join(
        f"{index},{['train', 'val', 'test'][index // 2]},{'ab'[index % 2]},x/{index:03}.png\n" for index in range(6)
    )
    data = load_data(table(text))
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 2, "validation": 2, "test": 2}


def test_csv_third_column_without_header(table):
    data = load_data(
        table("x/000.png,a,train\nx/001.png,b,train\nx/002.png,a,test\nx/003.png,b\n"), validation_fraction=0
    )
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 3, "test": 1}


def test_tsv_and_absolute_paths_and_quotes(table):
    path = table("", name="labels.tsv")
    path.write_text("".join(f'{path.parent}/x/{index:03}.png\t"{"ab"[index % 2]}, really"\n' for index in range(4)))
    assert load_data(path, validation_fraction=0).labels == ("a, really", "b, really")


def test_multi_label_csv(table):
    data = load_data(
        table("x/000.png,sky|sea\nx/001.png,\nx/002.png,sea | sea\nx/003.png,sky\n"), validation_fraction=0
    )
    assert data.multi_label and data.labels == ("sea", "sky")
    np.testing.assert_array_equal(data.targets("train")["labels"], [[1, 1], [0, 0], [1, 0], [0, 1]])
    _, targets = next(iter(data.batches("train", image_size=(8, 8))))
    assert targets["labels"].dtype == "float32"
    np.testing.assert_array_equal(targets["labels"], [[1, 1], [0, 0], [1, 0], [0, 1]])


def test_every_broken_line_is_named(table):
    path = table(
        "path,label,split\nx/000.png,a\nx/001.png\n,b\nx/002.png,,train\nx/003.png,b,somewhere\nx/000.png,b\nx/004.png,-1\n"
    )
    with pytest.raises(DataError) as error:
        load_data(path)
    message = str(error.value)
    assert message.startswith("6 lines of")
    for line, reason in {
        3: "expected path,label",
        4: "expected path,label",
        5: "no label",
        6: "unknown split 'somewhere'",
        7: "listed before, in line 2",
        8: "label -1 is outside the range",
    }.items():
        assert f"{path}:{line}: " in message and reason in message


def test_too_many_columns_without_header(table):
    with pytest.raises(DataError, match=r"csv:1: expected path,label\[,split\], got 4 columns"):
        load_data(table("x/000.png,a,b,c\n"))


def test_missing_files_name_the_line(table):
    path = table(LINES + "x/nowhere.png,a\n")
    with pytest.raises(DataError, match=r"nowhere\.png: file not found \(named in .*labels\.csv:7\)"):
        load_data(path)
    data = load_data(path, on_bad_files="skip", validation_fraction=0)
    assert len(data.splits["train"]) == 6 and data.skipped[0].origin == f"{path}:7"


def test_broken_csv_files(table):
    with pytest.raises(DataError, match=r"labels\.csv:\d: broken CSV"):
        load_data(table('x/000.png,"a" b\n'))
    with pytest.raises(DataError, match="not UTF-8"):
        load_data(table("x/000.png,Zürich\n", encoding="latin-1"))
    with pytest.raises(DataError, match="is empty"):
        load_data(table(""))
    with pytest.raises(DataError, match="column names but no lines"):
        load_data(table("path,label\n"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_csv_with_a_byte_order_mark(table, encoding):
    data = load_data(table("path,label\nx/000.png,Zürich\nx/001.png,Łódź\n", encoding=encoding), validation_fraction=0)
    assert data.labels == ("Zürich", "Łódź")


@pytest.mark.parametrize(("encoding", "line"), [("cp1252", 3), ("utf-16-le", 3)])
def test_csv_in_another_encoding_names_the_line(table, encoding, line):
    path = table("path,label\nx/000.png,a\nx/001.png,Zürich\n", encoding=encoding)
    with pytest.raises(DataError, match=rf"labels\.csv:{line}: .*Save .* as UTF-8"):
        load_data(path)
    path.write_text("path,label\n", encoding="utf-16-le")
    with pytest.raises(DataError, match=r"labels\.csv:1: a zero byte"):
        load_data(path)


def test_csv_quotes_and_line_breaks(table):
    """A row is named by the line it begins in."""
    path = table('path,label\n"x/000.png","a ""big"" one\nof two lines"\nx/001.png,b\n\nx/001.png,b\n')
    with pytest.raises(DataError, match=r"labels\.csv:6: x/001\.png was listed before, in line 4"):
        load_data(path)
    path.write_text(path.read_text()[:-12])
    assert load_data(path, validation_fraction=0).labels == ('a "big" one\nof two lines', "b")


def test_csv_with_a_column_for_each_class(table):
    path = table("path,dog,cat,split\nx/000.png,1,1,train\nx/001.png,0,0,train\nx/002.png,0,1.0,test\n")
    data = load_data(path, validation_fraction=0)
    assert data.multi_label and data.labels == ("dog", "cat")
    np.testing.assert_array_equal(data.targets("train")["labels"], [[1, 1], [0, 0]])
    np.testing.assert_array_equal(data.targets("test")["labels"], [[0, 1]])
    path.write_text("path,dog,cat\nx/000.png,1,1\nx/001.png,2,0\nx/002.png,1\n")
    with pytest.raises(
        DataError, match=r"labels\.csv:3: '2' in the column of a class(.|\n)*labels\.csv:4: expected path"
    ):
        load_data(path)


def test_csv_groups(table):
    items = load_csv(table("path,label,group\nx/000.png,a,p1\nx/001.png,b,\n")).splits["train"]
    assert [item.group for item in items] == ["p1", None]


def test_csv_paths_that_leave_the_folder(table):
    path = table(LINES + "../x/000.png,a\n" + "x/../../elsewhere.png,b\n" + "x/../x/000.png,a\n")
    with pytest.raises(DataError) as error:
        load_data(path)
    for line, reason in {7: "leads out", 8: "leads out", 9: "listed before, in line 1"}.items():
        assert f"{path}:{line}: " in str(error.value) and reason in str(error.value)


@given(
    labels=st.lists(st.text("ab |,\"'ü\n", max_size=6), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_csv_round_trip(tmp_path_factory, labels):
    """Whatever a CSV writer writes as a label is read back, or refused with a line number."""
    import csv

    path = tmp_path_factory.mktemp("csv") / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[f"{index}.png", label] for index, label in enumerate(labels)])
    try:
        items = load_csv(path).splits["train"]
    except DataError as error:
        assert f"{path}:" in str(error)
        return
    for item, label in zip(items, labels, strict=True):
        assert item.labels == tuple(dict.fromkeys(part.strip() for part in label.split("|") if part.strip()))


def test_division_is_stratified_and_fixed_by_the_seed(image_folder, tmp_path):
    root = image_folder({"a": 40, "b": 20, "c": 2})
    first = load_data(root, validation_fraction=0.2, test_fraction=0.1)
    counts = {
        split: np.bincount([example["label"] for example in examples], minlength=3).tolist()
        for split, examples in first.splits.items()
    }
    # A class of two keeps one image for training, whatever the shares.
    assert counts == {"train": [28, 14, 1], "test": [4, 2, 1], "validation": [8, 4, 0]}
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)

    def names(data, base):
        return {
            split: [example["image"].removeprefix(str(base)) for example in examples]
            for split, examples in data.splits.items()
        }

    second = load_data(moved, validation_fraction=0.2, test_fraction=0.1)
    assert names(first, root) == names(second, moved)
    other = load_data(root, validation_fraction=0.2, test_fraction=0.1, seed=1)
    assert names(first, root)["validation"] != names(other, root)["validation"]


def test_division_does_not_depend_on_the_file_systems_order(image_folder, monkeypatch):
    import os

    root = image_folder({"a": 20, "b": 20})
    expected = load_data(root).splits
    original = os.walk

    def shuffled(*arguments, **options):
        for folder, folders, files in original(*arguments, **options):
            random.Random(0).shuffle(files)
            yield folder, folders, files

    monkeypatch.setattr(os, "walk", shuffled)
    assert load_data(root).splits == expected


def test_impossible_divisions(image_folder):
    root = image_folder({"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"validation split would be empty.*validation_fraction=0"):
        load_data(root)
    assert list(load_data(root, validation_fraction=0).splits) == ["train"]
    assert list(load_data(root, validation_fraction=0, test_fraction=1).splits) == ["test"]
    with pytest.raises(DataError, match="sum to at most 1"):
        load_data(root, validation_fraction=0.6, test_fraction=0.6)


def test_limit_keeps_the_mixture(image_folder):
    data = load_data(image_folder({"a": 10, "b": 10, "c": 10}), limit=6, validation_fraction=0)
    assert [example["label"] for example in data.splits["train"]] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="limit must be at least 1"):
        load_data(image_folder({"a": 10, "b": 10}), limit=0)


def test_unreadable_image_formats_are_decided_by_content(image_folder):
    root = image_folder({"a": 2, "b": 2})
    Image.new("RGB", (4, 4)).save(root / "a/no_suffix", format="PNG")
    with pytest.warns(UserWarning, match="suffix of another format"):
        assert sum(len(split) for split in load_data(root).splits.values()) == 5
