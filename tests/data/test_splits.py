"""Splits: by class, at random, by group, and saved ones."""

import itertools
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.data import load_arrays, load_data, save_split
from kerasvision.data.listing import Item, Listing
from kerasvision.data.splits import apply_split, divide, set_groups
from kerasvision.errors import DataError
from kerasvision.files import write_text
from kerasvision.recipe import DataRecipe, ModelRecipe, Recipe, to_yaml
from kerasvision.run_data import load_recipe_data, load_run_data, recipe_of


def listing(groups: list[str | None], labels: str = "ab") -> Listing:
    items = [
        Item(f"{index}.png", (labels[index % len(labels)],), f"{index}", group=group)
        for index, group in enumerate(groups)
    ]
    return Listing({"train": items}, tuple(labels))


def keys(splits: Listing) -> dict[str, list[str]]:
    return {name: [item.key for item in items] for name, items in splits.splits.items()}


@settings(deadline=None, max_examples=150)
@given(
    groups=st.lists(st.sampled_from(["x", "y", "z", "u", "v", None]), min_size=4, max_size=60),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.2, 0.5]),
    rule=st.sampled_from(["stratified", "random"]),
    seed=st.integers(0, 5),
)
def test_no_rule_divides_a_group_or_loses_an_item(groups, validation, test, rule, seed):
    made = listing(groups)
    try:
        divide(made, validation, test, seed, rule)
    except DataError as error:
        assert "would be empty" in str(error)
        return
    assert sorted(itertools.chain(*keys(made).values())) == sorted(str(index) for index in range(len(groups)))
    where = defaultdict(set)
    for name, items in made.splits.items():
        for item in items:
            if item.group is not None:
                where[item.group].add(name)
    assert all(len(splits) == 1 for splits in where.values())


def test_shares_come_near_what_was_asked_for():
    groups = [f"g{index % 50}" for index in range(1000)]
    made = listing(groups)
    divide(made, 0.1, 0.2, 0, "group")
    assert {name: len(items) for name, items in made.splits.items()} == {"train": 700, "test": 200, "validation": 100}
    single = listing([None] * 1000)
    divide(single, 0.1, 0.2, 0, "random")
    assert {name: len(items) for name, items in single.splits.items()} == {"train": 700, "test": 200, "validation": 100}


def test_classes_keep_their_shares_only_where_stratified():
    def shares(rule: str) -> Counter:
        made = listing([None] * 400, "aaab")
        divide(made, 0.1, 0, 3, rule)
        return Counter(item.labels[0] for item in made.splits["validation"])

    assert shares("stratified") == {"a": 30, "b": 10}
    assert shares("random") != {"a": 30, "b": 10} and shares("random").total() == 40


def test_a_large_group_does_not_go_where_a_small_share_is_wanted():
    groups = ["large"] * 90 + [f"small{index}" for index in range(10)]
    for seed in range(5):
        made = listing(groups, "a")
        divide(made, 0.05, 0, seed, "group")
        assert len(made.splits["validation"]) == 5


def test_rules_that_cannot_be_followed():
    with pytest.raises(DataError, match=r"(?s)1 of 3 images belong to no group:\n  1\nSet group_pattern"):
        divide(listing(["x", None, "y"]), 0.3, 0, 0, "group")
    with pytest.raises(DataError, match="validation split would be empty: there is not more than one group"):
        divide(listing(["x"] * 9), 0.3, 0, 0, "group")
    with pytest.raises(DataError, match='split must be "stratified", "random" or "group", got \'groups\''):
        divide(listing(["x"] * 9), 0.3, 0, 0, "groups")


def test_groups_from_the_path():
    made = Listing({"train": [Item("", (), f"cats/p{index // 3}_{index}.png") for index in range(9)]}, ("cats",))
    set_groups(made, r"/(p\d)_")
    assert [item.group for item in made.splits["train"]] == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    set_groups(made, r"^(\w+)/p(\d)")
    assert made.splits["train"][8].group == "cats/2"
    set_groups(made, r"p\d")
    assert made.splits["train"][8].group == "p2"
    with pytest.raises(DataError, match=r"(?s)'p1' is not found in 6 keys:\n  cats/p0_0.png"):
        set_groups(made, "p1")
    with pytest.raises(DataError, match=r"'\(' is no regular expression"):
        set_groups(made, "(")


def test_load_data_by_group(image_folder):
    root = image_folder({"a/p1": 3, "a/p2": 3, "a/p3": 3, "b/p1": 3, "b/p4": 3, "b/p5": 3})
    data = load_data(root, validation_fraction=0.2, split="group", group_pattern=r"/(p\d)/")
    groups = {split: {example["group"] for example in examples} for split, examples in data.splits.items()}
    assert groups["validation"] and not groups["train"] & groups["validation"]
    again = load_data(root, validation_fraction=0.2, split="group", group_pattern=r"/(p\d)/")
    assert again.splits == data.splits


def test_a_saved_split_comes_back_after_files_were_added(image_folder, tmp_path):
    root = image_folder({"a": 20, "b": 20})
    data = load_data(root, validation_fraction=0.2, test_fraction=0.2, seed=5)
    save_split(data, tmp_path / "split.json", rule="stratified", seed=5)
    content = json.loads((tmp_path / "split.json").read_text())
    assert (content["rule"], content["seed"], content["source"]) == ("stratified", 5, str(root))
    assert {name: len(found) for name, found in content["splits"].items()} == {"train": 24, "validation": 8, "test": 8}
    assert load_data(root, split_file=tmp_path / "split.json").splits == {
        name: data.splits[name] for name in ("train", "validation", "test")
    }
    for index in range(20, 60):
        (root / "a" / f"{index:03}.png").write_bytes((root / "a/000.png").read_bytes())
    (root / "b/000.png").unlink()
    with pytest.warns(UserWarning) as warned:
        later = load_data(root, split_file=tmp_path / "split.json")
    messages = [str(warning.message) for warning in warned]
    assert any("40 images are new since" in text and "not held out" in text for text in messages)
    assert any("1 images that" in text and "are gone" in text for text in messages)
    for name in ("validation", "test"):
        old = {example["key"] for example in data.splits[name]} - {"b/000.png"}
        assert {example["key"] for example in later.splits[name]} == old
    assert sum(map(len, later.splits.values())) == 79


def test_new_members_of_a_group_join_it(tmp_path):
    made = listing(["x", "x", "y", "y"], "a")
    content = {"kind": "kerasvision split", "version": 1, "splits": {"train": ["0"], "validation": ["2"]}}
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="2 images are new"):
        apply_split(made, tmp_path / "split.json")
    assert keys(made) == {"train": ["0", "1"], "validation": ["2", "3"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ('{"splits": {}}', "is no split file"),
        ("[]", "is no split file"),
        ('{"kind": "kerasvision split", "version": 9}', "is of version 9"),
        ('{"kind": "kerasvision split", "version": 1, "splits": {"train": [1]}}', "is damaged"),
        ('{"kind": "kerasvision split", "version": 1, "splits": {"trains": ["a"]}}', "is damaged"),
        ('{"kind": "kerasvision split", "version": 1, "splits": {"train": ["z"]}}', "is the split of another set"),
    ],
)
def test_split_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=message):
        apply_split(listing([None] * 4), tmp_path / "split.json")
    with pytest.raises(DataError, match="No split file at"):
        apply_split(listing([None] * 4), tmp_path / "other.json")


def test_a_run_keeps_its_split(image_folder, tmp_path):
    root = image_folder({"a": 20, "b": 20})
    recipe = Recipe(DataRecipe(str(root), test_fraction=0.2, split="random", split_seed=3), ModelRecipe("small_cnn"))
    first = load_run_data(recipe.data, tmp_path / "run/split.json")
    write_text(tmp_path / "run/recipe.yaml", to_yaml(recipe))
    content = json.loads((tmp_path / "run/split.json").read_text())
    assert (content["rule"], content["seed"]) == ("random", 3)
    for index in range(20, 60):
        (root / "b" / f"{index:03}.png").write_bytes((root / "b/000.png").read_bytes())
    saved = recipe_of(tmp_path / "run")
    for load in (
        lambda: load_run_data(recipe.data, tmp_path / "run/split.json"),
        lambda: load_recipe_data(saved.data),
    ):
        with pytest.warns(UserWarning, match="40 images are new since"):
            again = load()
        assert again.splits["test"] == first.splits["test"] and len(again.splits["train"]) == 28 + 40


def test_only_examples_with_keys_can_be_saved(tmp_path):
    data = load_arrays(np.zeros((8, 4, 4), np.uint8), [0, 1] * 4)
    save_split(data, tmp_path / "split.json")
    del data.splits["train"][0]["key"], data.splits["train"][1]["key"]
    with pytest.raises(DataError, match="examples without a key of their own"):
        save_split(data, tmp_path / "split.json")


def test_groups_of_a_csv_file_stay_together(image_folder):
    root = image_folder({"photos": 20})
    rows = [f"photos/{index:03}.png,{'ab'[index % 2]},day {index // 4}" for index in range(20)]
    (root / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    for rule in ("stratified", "random", "group"):
        data = load_data(root / "list.csv", validation_fraction=0.4, split=rule)
        groups = {split: {example["group"] for example in examples} for split, examples in data.splits.items()}
        assert not groups["train"] & groups["validation"] and len(data.splits["validation"]) == 8
