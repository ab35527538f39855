"""The policies: every operation, what moves with the image, and how often things are drawn."""

import collections

import numpy as np
import pytest

from kerasvision.augment import policies
from kerasvision.augment.autoaugment import POLICIES, AutoAugment
from kerasvision.augment.color import brightness
from kerasvision.augment.policies import AUGMIX_KINDS, KINDS, AugMix, RandAugment, TrivialAugment, operate
from kerasvision.errors import RecipeError, UnknownNameError
from kerasvision.masks import PackedMasks

EVERY = [RandAugment(), RandAugment(3, 30), TrivialAugment(), *(AutoAugment(name) for name in POLICIES), AugMix()]
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OTHERS = ("invert", "solarize_add")


def picture(channels=3, height=48, width=64):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5 + k) + np.cos(y / 7) for k in range(channels)], axis=-1)
    return np.clip(120 + 45 * waves + rng.normal(0, 9, waves.shape), 0, 255).astype(np.uint8)


def scene():
    """A white square on black, with everything that describes it."""
    mask = np.zeros((60, 80), np.uint8)
    mask[20:36, 30:50] = 1
    return {
        "image": np.repeat(255 * mask[..., None], 3, axis=-1),
        "label": 1,
        "boxes": np.array([[30, 20, 50, 36]], np.float32),
        "classes": np.zeros(1, np.int32),
        "crowd": np.zeros(1, bool),
        "masks": PackedMasks.pack(mask[None]),
        "keypoints": np.array([[[40, 28, 2]]], np.float32),
        "segmentation": mask,
    }


@pytest.mark.parametrize("policy", EVERY, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_contract(policy, channels):
    example = {"image": picture(channels), "label": 2}
    before = example["image"].copy()
    results = []
    for seed in range(40):
        result, again = (policy(example, np.random.default_rng(seed)) for _ in range(2))
        assert result["image"].shape == before.shape and result["image"].dtype == np.uint8 and result["label"] == 2
        np.testing.assert_array_equal(result["image"], again["image"])
        results.append(result["image"])
    np.testing.assert_array_equal(example["image"], before)
    assert sum((result != before).any() for result in results) > 20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "policy",
    [
        RandAugment(magnitude=0),
        RandAugment(operations=0),
        AugMix(severity=0),
        *(type(each)(probability=0.0) for each in EVERY),
    ],
    ids=repr,
)
def test_identity_is_exact(policy, channels):
    image = picture(channels)
    for seed in range(20):
        np.testing.assert_array_equal(policy({"image": image}, np.random.default_rng(seed))["image"], image)


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_grow_from_nothing(kind, channels):
    image = picture(channels)

    def change(share):
        return np.abs(operate({"image": image}, kind, share)["image"].astype(int) - image).mean()

    if kind in ("autocontrast", "equalize", "invert"):
        assert change(0.0) == change(1.0) > 0
        return
    assert change(0.0) == 0
    if kind == "identity" or (kind == "color" and channels == 1):
        assert change(1.0) == 0
        return
    assert change(1.0) > change(0.05) >= 0 and change(-1.0) > 0


def test_operations_at_full_magnitude_are_the_papers():
    example = scene()
    moved = operate(example, "translate_x", 1.0)
    np.testing.assert_allclose(moved["boxes"] - example["boxes"], [[36, 0, 36, 0]])  # 150 / 331 of 80
    np.testing.assert_allclose(operate(example, "translate_y", -1.0, policies.WIDE)["boxes"], [[30, -12, 50, 4]])
    np.testing.assert_array_equal(operate(example, "brightness", -1.0)["image"], brightness(example["image"], 0.1))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert len(np.unique(operate({"image": values}, "posterize", 1.0)["image"])) == 16
    assert len(np.unique(operate({"image": values}, "posterize", 1.0, policies.WIDE)["image"])) == 4
    np.testing.assert_array_equal(operate({"image": values}, "solarize", 1.0)["image"], 255 - values)


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("share", [-0.5, 0.4])
def test_everything_moves_with_the_image(kind, share):
    moved = operate(scene(), kind, share, fill=0)
    rows, columns = np.nonzero(moved["image"][..., 0] > 127)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (seen != [30, 20, 50, 36]).any()
    # The box is around the moved corners; the mask and the segmentation are the square itself.
    np.testing.assert_allclose(moved["boxes"][0], seen, atol=1.1)
    np.testing.assert_allclose(moved["masks"].extents()[0], seen, atol=1.1)
    assert (moved["segmentation"][moved["image"][..., 0] > 250] == 1).mean() > 0.97
    np.testing.assert_allclose(moved["keypoints"][0, 0, :2], [columns.mean() + 0.5, rows.mean() + 0.5], atol=0.6)


def test_boxes_stay_inside_and_objects_out_of_sight_are_dropped():
    lost = 0
    for seed in range(60):
        moved = RandAugment(magnitude=30, kinds=MOVES, min_visible=0.5)(scene(), np.random.default_rng(seed))
        boxes = moved["boxes"]
        assert len(moved["classes"]) == len(moved["crowd"]) == len(moved["masks"]) == len(boxes)
        assert len(moved["keypoints"]) == len(boxes) and np.isfinite(boxes).all()
        assert (boxes >= 0).all() and (boxes <= [80, 60, 80, 60]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        lost += len(boxes) == 0
    assert 0 < lost < 60


def test_augmix_leaves_objects_where_they_are():
    example = scene()
    for seed in range(20):
        mixed = AugMix(severity=10)(example, np.random.default_rng(seed))
        assert all(mixed[key] is example[key] for key in example if key != "image")
        outside = mixed["image"][example["segmentation"] == 0]
        assert (outside == outside[0]).all()


def test_augmix_is_a_mean_of_the_image_and_its_chains(monkeypatch):
    monkeypatch.setattr(policies, "operate", lambda example, *rest: {"image": np.full_like(example["image"], 200)})
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [int(AugMix()({"image": image}, np.random.default_rng(seed))["image"][0, 0, 0]) for seed in range(300)]
    # The chains agree, so the image's own share alone counts: Beta(1, 1), even from 0 to 1.
    assert min(values) < 105 and max(values) > 195 and np.mean(values) == pytest.approx(150, abs=6)


def test_operations_are_drawn_evenly(monkeypatch):
    drawn = collections.Counter()
    shares = []

    def record(example, kind, share, *rest):
        drawn[kind] += 1
        shares.append(share)
        return example

    monkeypatch.setattr(policies, "operate", record)
    rng = np.random.default_rng(0)
    example = {"image": picture(1, 2, 2)}
    for _ in range(1400):
        RandAugment(operations=2, magnitude=12, levels=30)(example, rng)
    assert set(drawn) == set(KINDS) and all(150 < count < 250 for count in drawn.values())
    assert set(np.abs(shares)) == {0.4} and abs(np.mean(shares)) < 0.04
    shares.clear()
    for _ in range(1400):
        TrivialAugment()(example, rng)
    assert len(set(shares)) == 61 and np.mean(np.abs(shares)) == pytest.approx(0.5, abs=0.03)


def test_autoaugment_has_25_pairs_of_known_operations():
    for pairs in POLICIES.values():
        assert len(pairs) == 25
        for pair in pairs:
            for kind, probability, level in pair:
                assert kind in (*KINDS, *OTHERS) and 0 <= probability <= 1 and level in range(10)
    assert POLICIES["imagenet"][0] == (("posterize", 0.4, 8), ("rotate", 0.6, 9))


def test_autoaugment_draws_pairs_evenly_and_steps_by_their_probability(monkeypatch):
    monkeypatch.setitem(POLICIES, "svhn", ((("invert", 0.8, 0), ("solarize_add", 0.1, 9)), (("rotate", 1.0, 3),) * 2))
    done = collections.Counter()

    def record(example, kind, share, *rest):
        done[kind, round(abs(share), 3)] += 1
        return example

    monkeypatch.setattr(policies, "operate", record)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        AutoAugment("svhn")({"image": picture(1, 2, 2)}, rng)
    assert done["invert", 0.0] == pytest.approx(800, abs=80) and done["solarize_add", 1.0] == pytest.approx(100, abs=40)
    assert done["rotate", 0.333] == pytest.approx(2000, abs=140)


def test_wrong_parameters_are_refused():
    for make in (
        lambda: RandAugment(magnitude=31),
        lambda: RandAugment(operations=-1),
        lambda: RandAugment(kinds=()),
        lambda: RandAugment(interpolation="cubic"),
        lambda: TrivialAugment(levels=0),
        lambda: AugMix(depth=0),
        lambda: AugMix(kinds=("rotate",)),
        lambda: AugMix(fill=300),
        lambda: AutoAugment(probability=2.0),
        lambda: TrivialAugment(min_visible=-0.1),
    ):
        with pytest.raises(RecipeError, match="Expected"):
            make()
    with pytest.raises(UnknownNameError, match='"rotate"'):
        RandAugment(kinds=("rotat",))
    with pytest.raises(UnknownNameError, match='"imagenet"'):
        AutoAugment("imagent")
    assert set(AUGMIX_KINDS) < set(KINDS)
