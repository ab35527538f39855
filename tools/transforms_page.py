"""Write docs/transforms.md and its pictures: every transform and every corruption, on a drawn scene.

python tools/transforms_page.py
"""

import dataclasses
import inspect
import itertools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from kerasvision.augment import TRANSFORMS, Example, apply, bind
from kerasvision.augment.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from kerasvision.draw import font
from kerasvision.masks import PackedMasks
from kerasvision.overlay import Objects, paint

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "transforms.md"
PICTURES = ROOT / "docs" / "transforms"

SIDE = 160
DRAWS = 4
MOST_BYTES = 25_000
_FINE = 4
_LABELS = ("house", "tree", "person")
_LIMBS = ((0, 1), (0, 2), (0, 3), (0, 4))
# Heading -> modules of kerasvision.augment; transforms of the first three move or hide objects, which are drawn.
GROUPS = {
    "Geometry": ("geometry", "crops"),
    "Occlusion": ("occlusion",),
    "Mixing": ("mixing", "mosaic"),
    "Colour": ("color", "tone"),
    "Degradation": ("degrade", "corruptions"),
    "Illumination": ("illumination",),
    "Policies": ("policies", "autoaugment"),
}
_WITH_OBJECTS = ("Geometry", "Occlusion", "Mixing", "Policies")
# What pictures are made with, where the defaults do not show on this scene.
SHOWN: dict[str, dict[str, Any]] = {
    "letterbox": {"size": (160, 240)},
    "pad": {"size": (160, 240)},
    "crop": {"padding": 24},
    "flip": {"probability": 0.5, "vertical": True},
    "mixup": {"alpha": 4.0},
    "copy_paste": {"share": 0.8},
    "corrupt": {"kind": "glass_blur", "severity": 3},
    "jpeg_quality": {"quality": (5, 30)},
    "posterize": {"bits": (2, 4)},
    "sharpness": {"factor": (0.0, 6.0)},
}
INTRODUCTION = """# Transforms

What `Data.batches(augment=[...])`, a recipe's `data.augment` and `kerasvision.augment.augment` know by name: a name
alone, or a name with parameters, such as `{name: rotate, degrees: 30}`. The left picture is the image as it was; the
others are draws, each with a probability of 1. Boxes, masks and keypoints are drawn where a transform moves or hides
them. Written by `make transforms`.
"""


def main() -> None:
    """Write the page and all pictures, and remove pictures of transforms that are gone."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in TRANSFORMS:
        write_picture(name, strip(draws(name), overlaid=group_of(TRANSFORMS[name]) in _WITH_OBJECTS))
    for name in CORRUPTIONS:
        write_picture(f"corruption_{name}", strip(severities(name), overlaid=False))
    known = {*TRANSFORMS, *(f"corruption_{name}" for name in CORRUPTIONS)}
    for file in PICTURES.glob("*.jpg"):
        if file.stem not in known:
            file.unlink()
    PAGE.write_text(page())


def page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION]
    for heading in GROUPS:
        names = [name for name, kind in TRANSFORMS.items() if group_of(kind) == heading]
        if names:
            parts += [f"## {heading}\n", *(section(name) for name in names)]
    parts.append(
        "## Corruptions\n\nThe fifteen of ImageNet-C (Hendrycks and Dietterich, 2019, arXiv:1903.12261), for tests of "
        "robustness:\n`kerasvision.augment.corruptions.corrupt(image, name, severity, rng)`, or "
        f"`{{name: corrupt, kind: ...}}`.\nThe pictures show severities 1 to {SEVERITIES}.\n"
    )
    parts += [f"### {name}\n\n![{name}](transforms/corruption_{name}.jpg)\n" for name in CORRUPTIONS]
    return "\n".join(parts)


def group_of(kind: type) -> str:
    """Heading under which a class stands.

    Raises:
        ValueError: its module stands under no heading.
    """
    module = kind.__module__.rpartition(".")[2]
    for heading, modules in GROUPS.items():
        if module in modules:
            return heading
    raise ValueError(f"Expected {kind.__module__} in GROUPS of tools/transforms_page.py: add it under a heading.")


def section(name: str) -> str:
    """One transform: what it does, its parameters with their defaults, its picture."""
    kind = TRANSFORMS[name]
    sentence = " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
    told = descriptions(kind)
    # Those of all transforms of a kind stand last.
    own = vars(kind).get("__annotations__", {})
    fields = sorted(dataclasses.fields(kind), key=lambda field: field.name not in own)
    rows = [f"| `{field.name}` | `{default(field)}` | {told.get(field.name, '')} |\n" for field in fields]
    table = "| parameter | default | |\n|---|---|---|\n" + "".join(rows) + "\n" if rows else ""
    return f"### {name}\n\n{sentence}\n\n{table}![{name}](transforms/{name}.jpg)\n"


def default(field: "dataclasses.Field[Any]") -> str:
    """A field's default as it is written in Python."""
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4g}", repr(value))


def descriptions(kind: type) -> dict[str, str]:
    """Parameter -> what "Args:" of the class, or else of its bases, says about it."""
    told: dict[str, str] = {}
    for each in kind.__mro__:
        arguments = inspect.cleandoc(each.__dict__.get("__doc__") or "").partition("\nArgs:\n")[2]
        for match in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
            told.setdefault(match[1], " ".join(match[2].split()).replace("|", "\\|"))
    return told


def draws(name: str) -> list[Example]:
    """The scene, and what a transform makes of it in some draws; without repetitions."""
    kind = TRANSFORMS[name]
    parameters = {"probability": 1.0} if "probability" in {field.name for field in dataclasses.fields(kind)} else {}
    transforms = bind([kind(**{**parameters, **SHOWN.get(name, {})})], (SIDE, SIDE), len(_LABELS))
    others = itertools.cycle(range(1, 7))
    results = [scene()]
    seen = {results[0]["image"].tobytes()}
    for draw in range(3 * DRAWS):
        rng = np.random.default_rng([zlib.crc32(name.encode()), draw])
        result = apply(transforms, scene(), rng, lambda _: scene(next(others)))
        pixels = result["image"].tobytes()
        if pixels not in seen and len(results) <= DRAWS:
            results.append(result)
        seen.add(pixels)
    return results


def severities(name: str) -> list[Example]:
    """The scene, and a corruption of it at every severity."""
    image = scene()["image"]
    return [{"image": corrupt(image, name, level, np.random.default_rng(level))} for level in range(SEVERITIES + 1)]


def strip(examples: list[Example], overlaid: bool) -> Image.Image:
    """Pictures of examples side by side, each fitted into a square."""
    whole = Image.new("RGB", (len(examples) * (SIDE + 4) - 4, SIDE), "white")
    for place, example in enumerate(examples):
        height, width = example["image"].shape[:2]
        factor = SIDE / max(height, width)
        image = Image.fromarray(example["image"])
        small = image.resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS)
        if overlaid:
            parts = {key: example[key] for key in ("boxes", "classes", "masks", "keypoints")}
            small = paint(small, (height, width), Objects(_LABELS, edges=_LIMBS, **parts), font(7))
        whole.paste(small, (place * (SIDE + 4) + (SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return whole


def write_picture(name: str, picture: Image.Image) -> None:
    """Writes a JPEG of at most 25 kB."""
    for quality in range(90, 20, -5):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        encoded = cv2.imencode(".jpg", np.asarray(picture)[..., ::-1], options)[1].tobytes()
        if len(encoded) <= MOST_BYTES:
            break
    (PICTURES / f"{name}.jpg").write_bytes(encoded)


def scene(seed: int = 0) -> Example:
    """A drawn landscape with a house, trees and a person; each seed has another one.

    Returns:
        "image" uint8 [160, 160, 3], "boxes", "classes", "crowd", "masks", and "keypoints" of the person: head, hands,
        feet.
    """
    rng = np.random.default_rng(seed)
    canvas = background(rng)
    objects = [
        (0, _house(rng, (22 + rng.integers(0, 60), 112 + rng.integers(0, 14)))),
        (1, _tree(rng, (112 + rng.integers(0, 34), 116 + rng.integers(0, 16)))),
        (2, _person(rng, (70 + rng.integers(0, 60), 146 + rng.integers(0, 6)))),
    ]
    masks, keypoints = [], []
    for _, (paint_on, points) in objects:
        mask = np.zeros(canvas.shape, np.uint8)
        paint_on(canvas, None)
        paint_on(mask, (255, 255, 255))
        masks.append(cv2.resize(mask[..., 0], (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127)
        keypoints.append(points)
    image = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    image += rng.normal(0, 3, image.shape).astype(np.int16)
    # Whoever stands in front hides what is behind.
    visible = [mask & ~np.any([np.zeros_like(mask), *masks[index + 1 :]], axis=0) for index, mask in enumerate(masks)]
    packed = PackedMasks.pack(np.stack(visible))
    return {
        "image": np.clip(image, 0, 255).astype(np.uint8),
        "boxes": packed.extents(),
        "classes": np.array([number for number, _ in objects], np.int32),
        "crowd": np.zeros(len(objects), bool),
        "masks": packed,
        "keypoints": np.array(keypoints, np.float32),
    }


def background(rng: np.random.Generator) -> np.ndarray:
    """Sky with a sun, mountains and a meadow: uint8 [640, 640, 3]."""
    side = SIDE * _FINE
    skies = ((70, 130, 200), (225, 170, 120)), ((95, 85, 150), (250, 160, 90)), ((90, 160, 225), (215, 235, 245))
    top, bottom = np.array(skies[rng.integers(3)], float)
    fade = np.linspace(0, 1, side)[:, None, None]
    canvas = np.ascontiguousarray(np.broadcast_to(top * (1 - fade) + bottom * fade, (side, side, 3)).astype(np.uint8))
    _disc(canvas, (rng.integers(20, 140), rng.integers(16, 40)), 9, (255, 240, 190))
    for level, shade in ((66, (110, 120, 150)), (84, (80, 110, 100))):
        x = np.arange(side) / _FINE
        waves = [rng.uniform(3, 9) * np.sin(x / rng.uniform(9, 30) + rng.uniform(0, 6)) for _ in range(3)]
        heights = (level + np.sum(waves, axis=0)) * _FINE
        canvas[np.arange(side)[:, None] > heights] = shade
    meadow = np.array(((106, 160, 70), (150, 165, 80), (90, 145, 90))[rng.integers(3)])
    canvas[104 * _FINE :] = meadow
    for _ in range(260):
        x, y = rng.integers(0, SIDE), rng.integers(105, SIDE)
        shade = np.clip(meadow + rng.integers(-35, 35), 0, 255)
        _line(canvas, (x, y), (x + rng.integers(-1, 2), y - rng.integers(2, 6)), 0.8, shade)
    return canvas


Paint = Callable[[np.ndarray, tuple[int, int, int] | None], None]
_NO_POINTS = [(0, 0, 0)] * 5


def _house(rng: np.random.Generator, corner: tuple[int, int]) -> tuple[Paint, Any]:
    x, y = corner
    houses = ((235, 220, 190), (170, 70, 55)), ((200, 205, 225), (90, 80, 110)), ((240, 200, 120), (120, 80, 60))
    wall, roof = houses[rng.integers(3)]

    def paint_on(canvas: np.ndarray, flat: tuple[int, int, int] | None) -> None:
        _polygon(canvas, [(x, y - 34), (x + 46, y - 34), (x + 46, y), (x, y)], flat or wall)
        _polygon(canvas, [(x - 5, y - 33), (x + 23, y - 58), (x + 51, y - 33)], flat or roof)
        for left in (x + 6, x + 31):
            _polygon(
                canvas, [(left, y - 26), (left + 9, y - 26), (left + 9, y - 15), (left, y - 15)], flat or (90, 140, 180)
            )
        _polygon(canvas, [(x + 19, y - 20), (x + 28, y - 20), (x + 28, y), (x + 19, y)], flat or (110, 70, 45))

    return paint_on, _NO_POINTS


def _tree(rng: np.random.Generator, foot: tuple[int, int]) -> tuple[Paint, Any]:
    x, y = foot
    green = np.array(((50, 120, 60), (190, 120, 40), (80, 140, 50))[rng.integers(3)])
    leaves = [(rng.normal(0, 7), rng.normal(-40, 8), rng.uniform(6, 11), rng.integers(-25, 25)) for _ in range(16)]

    def paint_on(canvas: np.ndarray, flat: tuple[int, int, int] | None) -> None:
        _line(canvas, (x, y), (x, y - 34), 5, flat or (95, 65, 45))
        for dx, dy, radius, shade in leaves:
            _disc(canvas, (x + dx, y + dy), radius, flat or np.clip(green + shade, 0, 255))

    return paint_on, _NO_POINTS


def _person(rng: np.random.Generator, foot: tuple[int, int]) -> tuple[Paint, Any]:
    x, y = foot
    shirt = ((200, 50, 60), (50, 90, 190), (240, 190, 40))[rng.integers(3)]
    left, right = ((side * rng.integers(8, 12), -rng.integers(16, 36)) for side in (-1, 1))
    points = [(x, y - 36), (x + left[0], y + left[1]), (x + right[0], y + right[1]), (x - 5, y), (x + 5, y)]

    def paint_on(canvas: np.ndarray, flat: tuple[int, int, int] | None) -> None:
        for hand in points[1:3]:
            _line(canvas, (x, y - 27), hand, 3, flat or (230, 185, 150))
        for each in points[3:]:
            _line(canvas, (x, y - 14), each, 4, flat or (50, 55, 80))
        _line(canvas, (x, y - 27), (x, y - 15), 9, flat or shirt)
        _disc(canvas, points[0], 5, flat or (230, 185, 150))

    return paint_on, [(px, py, 2) for px, py in points]


def _fine(point: Any) -> tuple[int, int]:
    return round(float(point[0]) * _FINE), round(float(point[1]) * _FINE)


def _polygon(canvas: np.ndarray, points: list[Any], shade: Any) -> None:
    cv2.fillPoly(canvas, [np.array([_fine(point) for point in points])], tuple(map(int, shade)))


def _disc(canvas: np.ndarray, center: Any, radius: float, shade: Any) -> None:
    cv2.circle(canvas, _fine(center), round(radius * _FINE), tuple(map(int, shade)), -1)


def _line(canvas: np.ndarray, start: Any, end: Any, width: float, shade: Any) -> None:
    cv2.line(canvas, _fine(start), _fine(end), tuple(map(int, shade)), max(round(width * _FINE), 1))


if __name__ == "__main__":
    main()
