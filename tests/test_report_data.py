"""`inspect`: finds what was planted in a set, counts as a plain loop does, and writes a page that stands alone."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from html_page import NASTY, Page
from PIL import Image

from kerasvision.cli.commands import main
from kerasvision.cli.inspecting import inspect_verb
from kerasvision.data import Data
from kerasvision.data.mask_files import VOID
from kerasvision.report.data_page import choose_samples
from kerasvision.report.inspection import inspect
from kerasvision.report.plots import bar_chart, bubble_chart, histogram

RNG = np.random.default_rng(0)


def noise(height=24, width=32):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def texts(report, level=None):
    return " | ".join(found.text for found in report.findings if level in (None, found.level))


def objects(count, size=(24, 32), **fields):
    corners = RNG.uniform(0, 10, (count, 2))
    boxes = np.concatenate([corners, corners + RNG.uniform(5, 14, (count, 2))], axis=1).astype(np.float32)
    return {
        "image": noise(*size),
        "boxes": boxes,
        "classes": RNG.integers(0, 2, count).astype(np.int32),
        "crowd": np.zeros(count, bool),
        **fields,
    }


def check_page(report, tmp_path):
    """The page is whole, loads nothing, and its text is returned."""
    path = report.save(tmp_path / "page" / "report.html")
    text = path.read_text()
    page = Page(text)
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]*:?//", text)
    assert not page.named("script") and not page.named("link")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.named("img"))
    assert all("scope" in header for header in page.named("th"))
    assert "nan" not in re.sub(r'src="[^"]*"', "", text).lower().replace("finance", "")
    json.dumps(report.to_dict(), allow_nan=False)
    return "".join(page.text), page


def test_planted_faults_are_found(tmp_path):
    images = [noise() for _ in range(30)]
    train = [{"image": image, "label": index % 2} for index, image in enumerate(images[:20])]
    train.append({"image": images[1], "label": 0})  # The same image with another label.
    test = [{"image": image, "label": 0} for image in images[20:]]
    test += [{"image": images[2], "label": 0}, {"image": images[3], "label": 1}]
    report = inspect(Data(("a", NASTY), {"train": train, "test": test}, source="planted"))
    assert report.findings[0].level == "error" and report.findings[0].count == 2
    assert report.findings[0].text == "2 of 12 images of the test split (16.7 %) are copies of some of the train split"
    assert report.findings[0].names == ("train/2 = test/10", "train/3 = test/11")
    assert "1 pair of equal images with different labels" in texts(report, "error")
    assert report.to_dict()["duplicates"] == {"copies": 3, "look_alike_pairs": 0, "leaks": {"train, test": 2}}
    assert report.to_dict()["classes"]["splits"]["train"] == {"a": 11, NASTY: 10}
    text, page = check_page(report, tmp_path)
    assert NASTY in text and "equal, in two splits" in text
    pictures = [image for image in page.named("img") if image["src"].startswith("data:image/png")]
    assert len(pictures) == 24 + 2 * 3


def test_look_alikes_across_splits_are_a_warning(tmp_path):
    photo = np.asarray(Image.fromarray(noise(6, 8)).resize((160, 120), Image.Resampling.BICUBIC))
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo).save(tmp_path / "b.jpg", quality=60)
    splits = {
        name: [{"image": str(tmp_path / file), "label": 0}] for name, file in (("train", "a.png"), ("test", "b.jpg"))
    }
    report = inspect(Data(("a", "b"), splits))
    assert "1 of 1 image of the test split (100.0 %) looks like an image of the train split" in texts(report, "warning")
    assert "of equal images" not in texts(report)


def test_groups_in_two_splits():
    def example(group):
        return {"image": noise(), "label": 0, "group": group}

    report = inspect(Data(("a", "b"), {"train": [example("x"), example("y")], "test": [example("y"), example("z")]}))
    found = next(found for found in report.findings if "group" in found.text)
    assert (found.level == "error" and found.names == ("y: train, test")) or found.names == ("y: train, test",)


def test_boxes(tmp_path):
    examples = [objects(count) for count in (3, 0, 5, 1)]
    examples[0]["boxes"][0] = (5, 5, 5, 9)  # no area
    examples[2]["boxes"][0] = (100, 100, 120, 120)  # outside
    examples[2]["boxes"][1:3] = (1, 1, 12, 12)  # twice the same
    examples[2]["classes"][1:3] = 1
    report = inspect(Data(("cell", "dust"), {"train": examples[:3], "test": examples[3:]}))
    for wanted in (
        "1 box is without area",
        "1 box is outside the image",
        "1 box is drawn twice",
        "1 image (25.0 %) without any object",
    ):
        assert wanted in texts(report)
    values = report.to_dict()["boxes"]
    assert values["boxes"] == 9 and values["per_image"] == {"0": 1, "1": 1, "3": 1, "5": 1}
    assert sum(values["sizes"].values()) == pytest.approx(1)
    assert set(values["anchors"]) == {"5", "9"}
    text, page = check_page(report, tmp_path)
    assert "Anchors" in text and "Centres in the image".lower() in text.lower()
    assert len([svg for svg in page.named("svg") if "boxes" in svg["aria-label"]]) == 2


def test_masks_and_keypoints_are_drawn_and_counted(tmp_path):
    keypoints = np.dstack([RNG.uniform(0, 20, (2, 3, 2)), [[2, 1, 0], [2, 2, 0]]]).astype(np.float32)
    polygons = [[[2, 2, 12, 2, 12, 12]], [[5, 5, 9, 5, 9, 9, 5, 9]]]
    example = objects(2, masks=polygons, keypoints=keypoints)
    data = Data(("cat", "dog"), {"train": [example]}, keypoint_names=("nose", "ear", "tail"))
    report = inspect(data)
    assert report.to_dict()["boxes"]["keypoints"] == [[0, 0, 2], [0, 1, 1], [2, 0, 0]]
    text, _ = check_page(report, tmp_path)
    assert "Keypoints" in text and "nose" in text and "instance masks" in text


def test_class_maps(tmp_path):
    maps = [RNG.choice([0, 1, VOID], (24, 32), p=[0.7, 0.2, 0.1]).astype(np.uint8) for _ in range(3)]
    maps.append(np.full((24, 32), VOID, np.uint8))
    examples = [{"image": noise(), "segmentation": each} for each in maps]
    report = inspect(Data(("sky", "road", "never"), {"train": examples[:2], "test": examples[2:]}))
    values = report.to_dict()
    assert values["classes"]["unit"] == "pixels"
    assert values["classes"]["splits"]["train"] == {
        name: int(sum((each == index).sum() for each in maps[:2]))
        for index, name in enumerate(("sky", "road", "never"))
    }
    assert values["void_share"] == pytest.approx(np.mean([(each == VOID).mean() for each in maps]))
    assert "1 image is mostly void" in texts(report) and "1 of 3 classes missing in the train split" in texts(report)
    text, _ = check_page(report, tmp_path)
    assert "of the pixels are void" in text


def test_files(tmp_path, image_folder):
    root = image_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    (root / "train/a/cut.png").write_bytes((root / "train/a/000.png").read_bytes()[:60])
    (root / "train/b/000.png").rename(root / "train/b/wrong.jpg")
    with pytest.warns(UserWarning, match="suffix of another format"):
        report = inspect(root)
    assert "1 unusable file was left out" in texts(report) and "cut.png" in str(report.findings)
    assert "1 file has a suffix of another format" in texts(report)
    assert report.to_dict()["splits"] == {"train": 6, "test": 4}
    text, _ = check_page(report, tmp_path)
    assert "cut.png" in text and "Files that cannot be used" in text
    # A file that breaks after the set was listed is found, too.
    (root / "test/a/000.png").write_bytes(b"")
    again = inspect(report.data)
    assert "1 image cannot be read" in texts(again, "error") and "0 bytes" in str(again.findings)
    check_page(again, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        Data((), {}),
        Data(("a",), {"train": [], "test": []}),
        Data(("a",), {"test": [{"image": np.zeros((1, 1), np.uint8), "label": 0}]}),
        Data(("a", "b"), {"train": [{"image": np.full((1, 1), i, np.uint8), "label": 0} for i in range(3)]}),
        Data(("a", "b"), {"train": [objects(0), objects(0)]}),
        Data(("a",), {"train": [{"image": noise(), "labels": []}]}, multi_label=True),
        Data(tuple(f"class {i} {'long ' * 30}" for i in range(300)), {"train": [{"image": noise(), "label": 7}]}),
        Data(("a",), {"train": [{"image": noise(20, 200), "label": 0}]}, source="/some/where/set.json"),
    ],
    ids=["nothing", "empty splits", "one pixel", "even", "no boxes", "no labels", "many classes", "one image"],
)
def test_small_and_odd_sets(tmp_path, data):
    report = inspect(data)
    check_page(report, tmp_path)
    assert len(report.scan) == sum(map(len, data.splits.values()))


def test_limit_spreads_over_a_split():
    data = Data(("a", "b"), {"train": [{"image": noise(), "label": int(i >= 8)} for i in range(16)]})
    assert inspect(data, limit=4).to_dict()["classes"]["splits"]["train"] == {"a": 2, "b": 2}
    assert len(data.splits["train"]) == 16


def test_samples_show_every_class_they_can():
    labels = [0] * 50 + [1] * 3 + [2]
    report = inspect(Data(("a", "b", "c"), {"train": [{"image": noise(8, 8), "label": label} for label in labels]}))
    chosen = choose_samples(report, 9)
    assert len(set(chosen)) == len(chosen) == 9
    # As many of each class as there are, then any.
    assert sorted(labels[index] for index in chosen) == [0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert len(choose_samples(report, 1)) == 1 and sorted(choose_samples(report, 99)) == list(range(54))


class TestVerb:
    def run(self, *arguments):
        return CliRunner().invoke(main, ["inspect", *map(str, arguments)])

    def test_it_is_a_verb(self):
        assert main.commands["inspect"] is inspect_verb

    def test_page_and_table(self, image_folder, tmp_path):
        root = image_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
        (root / "test/a/001.png").write_bytes((root / "train/a/001.png").read_bytes())
        result = self.run(root, "--out", tmp_path / "report.html")
        assert result.exit_code == 0, result.output
        assert "1 of 4 images of the test split" in result.output and "train 6, test 4" in result.output
        assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")

    def test_json(self, image_folder):
        root = image_folder({"a": 3, "b": 3})
        result = CliRunner(catch_exceptions=False).invoke(main, ["inspect", str(root), "--limit", "2", "--json"])
        values = json.loads(result.stdout)
        assert values["splits"] == {"train": 2} and values["page"] is None
        assert {found["level"] for found in values["findings"]} <= {"error", "warning", "note"}

    def test_a_page_is_html(self, image_folder):
        result = self.run(image_folder({"a": 2, "b": 2}), "--out", "report.pdf")
        assert result.exit_code == 2 and "report.html" in result.output


@pytest.mark.parametrize("log", [False, True])
def test_histograms_count_every_value(log):
    for values in (
        RNG.lognormal(0, 1, 200),
        np.array([3.0]),
        np.array([2, 2, 2.0]),
        np.arange(1, 9.0),
        np.array([1e-3, 1e4]),
    ):
        edges, counts = histogram(values, log)
        assert counts.sum() == len(values) and len(edges) == len(counts) + 1 and (np.diff(edges) > 0).all()
        assert edges[0] <= values.min() and edges[-1] >= values.max() and len(counts) <= 70
        if log:
            assert np.ptp(np.diff(np.log2(edges))) < 1e-9
        assert "<rect" in bar_chart("t", edges, counts, NASTY) and NASTY not in bar_chart("t", edges, counts, NASTY)
    assert bar_chart("t", *histogram(np.zeros(0), log), "x") == ""


@pytest.mark.parametrize("log", [False, True])
def test_bubbles_are_bounded_and_lie_in_the_chart(log):
    assert bubble_chart("t", np.zeros((0, 2)), ("w", "h"), log) == ""
    for points in (np.array([[7, 7]]), RNG.integers(1, 2000, (5000, 2)), np.ones((9, 2))):
        chart = str(bubble_chart("t", points, ("w", "h"), log))
        spots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
        assert 1 <= len(spots) <= 1600
        assert all(52 <= x <= 408.1 and 13.9 <= y <= 190.1 for x, y in spots)
        counted = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) images</title>", chart)]
        assert sum(counted) == len(points)
