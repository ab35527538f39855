"""report.html: complete, self-contained, escaped, and honest about what is missing."""

import json
import re

import numpy as np
import pytest
from html_page import NASTY, Page
from hypothesis import given
from hypothesis import strategies as st

from kerasvision.errors import ArtifactError
from kerasvision.report import ReportExample, make_examples, write_card, write_metrics, write_report
from kerasvision.report.charts import COLOURS, heat_image, line_chart, nice_ticks, share_chart
from kerasvision.report.tables import cards, class_rows, confusion, metric_name, milliseconds, size, warnings


def export_report(file: str, format: str, quantization: str, **changes) -> dict:
    return {
        "path": f"saved_models/run/exports/{file}",
        "format": format,
        "quantization": quantization,
        "size_bytes": 1_000_000 if quantization == "none" else 270_000,
        "samples": 64,
        "samples_source": "data",
        "parity": {"scores": {"max": 0.03, "mean": 0.0004, "p99": 0.012, "lsb": None}},
        "metrics": {"accuracy": 0.9},
        "latency": {"median_ms": 0.5, "p90_ms": 1.25, "runs": 50, "threads": 2},
        "ops": {"CONV_2D": 4, "SOFTMAX": 1} if format == "tflite" else {},
        "float_ops": [],
        "islands": [],
        **changes,
    }


def metrics_of(labels: list[str]) -> dict:
    matrix = np.diag(np.arange(len(labels)) + 10)
    matrix[0, 1] = 3
    return {
        "kerasvision": "0.1.0",
        "model": "small_cnn",
        "task": "classification",
        "labels": labels,
        "data": {
            "source": "digits",
            "train": 1259,
            "validation": 179,
            "test": 359,
            "skipped": [{"path": "a/bad.jpg", "reason": "truncated"}],
        },
        "parameters": 289066,
        "training": {
            "epochs": 3,
            "seconds": 12.0,
            "history": {
                "loss": [2.0, 1.0, 0.5],
                "val_loss": [2.0, float("nan"), 0.7],
                "crossentropy": [2.0, 1.0, 0.5],
                "accuracy": [0.1, 0.5, 0.9],
                "val_accuracy": [0.1, 0.5, 0.8],
            },
            "qat_history": {"loss": [0.4]},
        },
        "metrics": {
            "split": "test",
            "float": {"accuracy": 0.92, "auc": 0.99},
            "quantized": {"accuracy": 0.9, "auc": 0.98},
        },
        "exports": [
            export_report("model_float32.tflite", "tflite", "none"),
            export_report("model_int8.tflite", "tflite", "qat", islands=["attention_softmax"]),
            export_report("model_saved_model", "saved_model", "none"),
        ],
        "environment": {"python": "3.11.9", "keras": "3.15.1"},
        "classification": {"confusion_matrix": matrix.tolist()},
    }


def write_run(folder, metrics: dict) -> str:
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "recipe.yaml").write_text(f"data:\n  source: '{NASTY}'\n")
    return folder


def examples(labels: list[str], count: int = 6) -> list[ReportExample]:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(len(labels)), count)
    data = [{"image": rng.integers(0, 256, (8, 8), np.uint8), "label": int(i % len(labels))} for i in range(count)]
    return make_examples(data, scores, scores)


@pytest.mark.parametrize("count", [2, 10, 120])
def test_page_is_whole_and_loads_nothing(tmp_path, count):
    labels = [NASTY, *(f"class {index}" for index in range(1, count))]
    path = write_report(write_run(tmp_path, metrics_of(labels)), examples(labels))
    text = path.read_text()
    page = Page(text)
    assert path == tmp_path / "report.html"
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]*:?//", text)
    assert not page.named("script") and not page.named("link")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.named("img"))
    assert NASTY in "".join(page.text)  # shown as text, not run
    headings = "".join(page.text)
    for wanted in (
        "Exported files",
        "Training",
        "Worst mistakes",
        "Example predictions",
        "Confusion matrix",
        "Classes",
    ):
        assert wanted in headings
    assert "a/bad.jpg: truncated" in headings
    assert "attention_softmax" in headings
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.json", "recipe.yaml", "report.html"]


def test_tables_have_headers_and_figures_have_names(tmp_path):
    page = Page(write_report(write_run(tmp_path, metrics_of(["a", "b", "c"])), examples(["a", "b", "c"])).read_text())
    assert all("scope" in header for header in page.named("th"))
    charts = page.named("svg")
    assert len(charts) == 3  # loss and accuracy, and the loss of the fine-tuning; the only named loss is the loss
    assert all(chart["role"] == "img" and "ends at" in chart["aria-label"] for chart in charts)


def test_a_run_without_quantization_exports_or_pictures_still_has_a_page(tmp_path):
    metrics = metrics_of(["a", "b"])
    metrics |= {"exports": [], "training": {}, "environment": {}}
    metrics["metrics"] = {"split": "validation", "float": {"mAP": 0.5}}
    del metrics["classification"]
    text = "".join(Page(write_report(write_run(tmp_path, metrics)).read_text()).text)
    assert "Exported files" not in text and "Confusion matrix" not in text
    assert "There is no test split" in text
    assert "50.00 %" in text


@pytest.mark.parametrize(("content", "message"), [(None, "has no metrics.json"), ('{"a": ', "damaged")])
def test_no_finished_run(tmp_path, content, message):
    if content:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_headline_numbers_are_of_the_file_on_the_disk():
    metrics = metrics_of(["a", "b"])
    metrics["exports"][1]["metrics"]["accuracy"] = 0.875
    found = {card["title"]: (card["value"], card["note"]) for card in cards(metrics)}
    assert found["Accuracy, float"] == ("92.00 %", "359 test images")
    assert found["Accuracy, int8 file"] == ("87.50 %", "-4.50 points against float")
    assert found["int8 file"] == ("270 kB", "0.27 of the float file")
    assert found["Float ops in int8 file"] == ("0", "of 5 ops")
    assert found["int8 latency"] == ("500 µs", "median of 50 runs, 2 threads")


def test_warnings_say_what_is_doubtful():
    metrics = metrics_of(["a", "b"])
    metrics["data"]["test"] = 20
    metrics["exports"][1] |= {
        "samples_source": "synthetic",
        "float_ops": [{"op": "SOFTMAX", "tensor": "", "layer": ""}],
    }
    found = " ".join(warnings(metrics))
    assert "Only 20 test images: one image is 5.0 points" in found
    assert "1 unusable files" in found
    assert "Quantization cost 2.0 points" in found
    assert "synthetic images" in found and "runs 1 ops in float" in found


def test_class_rows_and_confusions():
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    rows = class_rows(matrix, ["a", "b", "never"])
    assert rows[0] == {"label": "a", "precision": 8 / 9, "recall": 0.8, "f1": 16 / 19, "images": 10}
    assert rows[2] == {"label": "never", "precision": None, "recall": None, "f1": None, "images": 0}
    assert confusion(matrix, ["a", "b", "never"])["pairs"] == [("a", "b", 2, 0.2), ("b", "a", 1, 0.1)]


def test_many_classes_become_an_image_with_the_worst_first():
    matrix = np.diag(np.full(50, 10))
    matrix[7, 7], matrix[7, 3] = 2, 8
    labels = [f"c{index}" for index in range(50)]
    found = confusion(matrix, labels)
    assert not found["rows"] and "data:image/png" in found["image"]
    assert found["pairs"][0] == ("c7", "c3", 8, 0.8)
    assert class_rows(matrix, labels)[0]["label"] == "c7"


def test_examples_are_spread_and_mistakes_are_the_most_confident():
    scores = np.tile([0.9, 0.1], (20, 1))
    scores[5], scores[11] = (0.2, 0.8), (0.05, 0.95)
    data = [{"image": np.zeros((4, 4), np.uint8), "label": 0} for _ in range(20)]
    chosen = make_examples(data, scores, count=3)
    assert [example.mistake for example in chosen] == [False, False, False, True, True]
    assert [float(example.scores[1]) for example in chosen if example.mistake] == [0.95, 0.8]


def test_examples_of_many_labels():
    scores = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.3]])
    data = [
        {"image": np.zeros((4, 4), np.uint8), "labels": [0, 1]},
        {"image": np.zeros((4, 4), np.uint8), "labels": [0]},
    ]
    chosen = make_examples(data, scores)
    assert [example.truth for example in chosen if not example.mistake] == [(0, 1), (0,)]
    assert [example.truth for example in chosen if example.mistake] == [(0,)]


def test_line_chart_escapes_and_survives_gaps():
    chart = str(line_chart(NASTY, {"training": [1.0, float("nan"), 2.0, 3.0], "validation": [1.0]}))
    assert "<script>" not in chart and "nan" not in re.sub(r'aria-label="[^"]*"', "", chart)
    assert line_chart("loss", {"training": [float("nan")]}) == ""
    assert line_chart("loss", {}) == ""
    assert "<circle" in line_chart("loss", {"training": [1.0]})


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_cover_the_values(a, b):
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    reach = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + reach and ticks[-1] >= high - reach
    assert 2 <= len(ticks) <= 12 and ticks == sorted(set(ticks))


def test_lines_can_be_told_apart_and_a_long_legend_takes_rows():
    names = [f"a class of some length {index}" for index in range(COLOURS)]
    chart = str(line_chart("AP", {name: [0.1, 0.2] for name in names}))
    assert len(set(re.findall(r'class="line (s\d)"', chart))) == COLOURS
    lows = {float(y) for y in re.findall(r'class="legend" x="\d+" y="(\d+)"', chart)}
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', chart)[1])
    assert len(lows) > 2 and max(lows) < height
    for left, name in re.findall(r'class="legend" x="(\d+)" y="\d+">([^<]+)<', chart):
        assert float(left) + 6 * len(name) < 420


def test_share_chart_marks_points_and_escapes():
    curves = {NASTY: ([0.0, 0.5, 1.0], [1.0, 1.0, 0.5]), "bee": ([1.0], [1.0])}
    chart = str(share_chart("Precision", curves, {"bee": (1.0, 1.0)}, ("recall", "precision")))
    assert "<script>" not in chart
    assert chart.count("<polyline") == 1 and chart.count("<circle") == 1
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x1 - x0 == pytest.approx(x2 - x1) and y0 == y1 < y2
    assert share_chart("Precision", {}, {}, ("recall", "precision")) == ""


def test_heat_image_has_an_alternative_text():
    assert 'alt="a &lt;b&gt;"' in heat_image(np.eye(30), "a <b>")


def test_metrics_have_lists_of_numbers_on_one_line(tmp_path):
    metrics = {"a": [1.5, -2e-7, 3], "b": [[1, 2], [3, 4]], "c": "[\n1,\n2\n]", "d": ["x", "y"], "e": []}
    write_metrics(tmp_path, metrics)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == metrics
    assert '"a": [1.5, -2e-07, 3]' in text and "[3, 4]" in text and len(text.splitlines()) == 13
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(tmp_path, {"a": float("nan")})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("macro_f1", "Macro F1"),
        ("AP", "AP"),
        ("AP_small", "AP, small"),
        ("AP/red cell", "AP, red cell"),
        ("AR100", "AR100"),
        ("mask_AP50", "Mask AP50"),
    ],
)
def test_names_of_metrics(key, text):
    assert metric_name(key) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "\N{EN DASH}"), (12, "12 B"), (56_789, "56.8 kB"), (999_600, "1 MB"), (9_250_000, "9.25 MB")],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0.0431, "43.1 µs"), (0.9999, "1 ms"), (5.214, "5.21 ms"), (1250, "1,250 ms")],
)
def test_latencies(value, text):
    assert milliseconds(value) == text


class TestCard:
    def card(self, tmp_path, **changes) -> str:
        metrics = {**metrics_of(["ant", "bee", "cow"]), "date": "2026-11-23T09:00+00:00", **changes}
        spec = {"shape": [1, 8, 8, 1], "dtype": "uint8"}
        for report in metrics["exports"]:
            report["signature"] = {"inputs": {"image": spec}, "outputs": {}}
        write_run(tmp_path, metrics)
        (tmp_path / "recipe.yaml").write_text("data: {source: digits}\nmodel: {name: small_cnn, weights: imagenet}\n")
        path = write_card(tmp_path)
        assert path == tmp_path / "model_card.md"
        return path.read_text()

    def test_it_tells_what_was_measured(self, tmp_path):
        text = self.card(tmp_path)
        assert f"# {tmp_path.name}\n" in text
        assert "1,259 images for training, 179 for validation, 359 for the test" in text
        assert "1 files were left out" in text
        assert "| Accuracy | 92.00 % | 90.00 % |" in text
        assert 'weights "imagenet"' in text
        assert "ant (F1 0.87)" in text  # 10 right of 13, none wrong: 20 / 23.
        assert "| model_int8.tflite | qat | 270 kB |" in text
        assert "kerasvision predict exports/model_int8.tflite" in text

    def test_a_run_without_exports_or_matrix(self, tmp_path):
        text = self.card(tmp_path, exports=[], classification={})
        assert "kerasvision predict model.keras" in text
        assert "hardest" not in text

    def test_markdown_is_not_broken_by_blank_lines(self, tmp_path):
        lines = self.card(tmp_path).splitlines()
        for index, line in enumerate(lines):
            if line.startswith("|") and not lines[index - 1].startswith("|"):
                assert lines[index - 1] == "" and lines[index + 1].startswith("|-")
