"""Duplicates: the index against brute force, and pictures that a person would call the same."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.data.duplicates import (
    connected,
    correlation,
    exact_groups,
    find_duplicates,
    leaks,
    near_pairs,
    perceptual_hash,
)
from kerasvision.data.scan import misnamed, scan_images

SAME = np.tile(np.arange(64, dtype=np.uint8).reshape(8, 8), (1, 1, 1))


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A smooth picture with some detail, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (*size, 3)), 0, 255).astype(np.uint8)


def brute_force(hashes, distance):
    return {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if int(hashes[i] ^ hashes[j]).bit_count() <= distance
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_every_close_pair_is_found(seed, distance):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, 12, np.uint64)
    hashes = base[rng.integers(0, 12, 60)]
    for _ in range(5):
        hashes ^= (rng.random(60) < 0.5).astype(np.uint64) << rng.integers(0, 64, 60, np.uint64)
    thumbnails = np.repeat(SAME, 60, axis=0)
    pairs, distances = near_pairs(hashes, thumbnails, distance)
    assert {tuple(map(int, pair)) for pair in pairs} == brute_force(hashes, distance)
    assert all(int(hashes[i] ^ hashes[j]).bit_count() == d for (i, j), d in zip(pairs, distances, strict=True))


def test_a_distance_the_bands_cannot_promise_is_refused():
    with pytest.raises(ValueError, match="0 to 4 bits"):
        near_pairs(np.zeros(2, np.uint64), np.repeat(SAME, 2, axis=0), distance=5)


def test_a_crowd_of_look_alikes_is_bounded_and_stays_connected():
    count = 3000
    thumbnails = np.repeat(SAME, count, axis=0)
    pairs, _ = near_pairs(np.arange(count, dtype=np.uint64) % 4, thumbnails)
    assert len(pairs) < 70 * count
    assert connected(pairs, count) == [tuple(range(count))]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_exact_groups(digests):
    wanted = [tuple(i for i, d in enumerate(digests) if d == value) for value in set(digests)]
    assert exact_groups(np.array(digests, np.uint64)) == sorted(group for group in wanted if len(group) > 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_connected_is_reachability(pairs):
    reach = {i: {i} for i in range(10)}
    for _ in range(10):
        for a, b in pairs:
            reach[a] |= reach[b]
            reach[b] |= reach[a]
    wanted = sorted({tuple(sorted(group)) for group in reach.values() if len(group) > 1})
    assert connected(np.array(pairs, np.int64).reshape(-1, 2), 10) == wanted


def test_correlation_is_pearsons():
    thumbnails = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    thumbnails[4:] = 7  # Two even pictures.
    first, second = np.array([0, 1, 0, 4, 4]), np.array([1, 2, 0, 5, 0])
    wanted = [np.corrcoef(thumbnails[a].ravel(), thumbnails[b].ravel())[0, 1] for a, b in ((0, 1), (1, 2), (0, 0))]
    assert correlation(thumbnails, first, second) == pytest.approx([*wanted, 0.0, 0.0])


def test_hash_is_the_sign_of_the_low_frequencies():
    from scipy.fft import dctn

    thumbnails = np.random.default_rng(1).integers(0, 256, (5, 32, 32), np.uint8)
    for picture, value in zip(thumbnails, perceptual_hash(thumbnails), strict=True):
        low = dctn(picture.astype(float), type=2)[:8, :8]
        bits = "".join("1" if bit else "0" for bit in (low > np.median(low)).ravel())
        assert int(value) == int(bits, 2)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def test_pictures_that_are_the_same(tmp_path):
    first, other = scene(0), scene(1)
    paths = [
        save(tmp_path / "a.png", first),
        save(tmp_path / "b.jpg", first, quality=40),
        save(tmp_path / "small.png", np.asarray(Image.fromarray(first).resize((80, 60)))),
        save(tmp_path / "bright.png", np.clip(first * 1.1 + 5, 0, 255).astype(np.uint8)),
        save(tmp_path / "other.png", other),
        save(tmp_path / "a again.png", first),
    ]
    turned = Image.fromarray(np.rot90(first))  # Stored lying down; the tag says how to set it upright.
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    paths.append(str(tmp_path / "turned.png"))
    found = scan_images({"train": [{"image": path} for path in paths]})
    assert found.sizes.tolist() == [[120, 160]] * 2 + [[60, 80]] + [[120, 160]] * 4
    assert found.orientations[-1] == 6 and found.formats[1] == "JPEG" and found.modes[0] == "RGB"
    duplicates = find_duplicates(found.digests, found.thumbnails)
    assert duplicates.exact == ((0, 5),)
    assert connected(duplicates.pairs(), len(found)) == [(0, 1, 2, 3, 5, 6)]
    assert {tuple(pair) for pair in duplicates.near.tolist()} >= {(0, 1), (0, 2), (0, 3), (0, 6)}


def test_even_pictures_do_not_look_like_one_another():
    images = [np.full((9, 9), value, np.uint8) for value in (0, 90, 255, 90)] + [scene(3)]
    found = scan_images({"train": [{"image": image} for image in images]})
    duplicates = find_duplicates(found.digests, found.thumbnails)
    assert duplicates.near.tolist() == [] and duplicates.exact == ((1, 3),)


def test_leaks_count_each_image_once_for_every_split():
    splits = ["train", "train", "train", "test", "test", "validation"]
    digests = np.array([1, 1, 2, 1, 1, 3], np.uint64)
    thumbnails = np.random.default_rng(0).integers(0, 256, (6, 32, 32), np.uint8)
    thumbnails[5] = thumbnails[2]  # Looks like image 2 of the training split.
    found = leaks(find_duplicates(digests, thumbnails), splits)
    assert {key: pairs.tolist() for key, pairs in found.items()} == {
        ("train", "test"): [[0, 3], [0, 4]],
        ("train", "validation"): [[2, 5]],
    }
    assert leaks(find_duplicates(digests[:2], thumbnails[:2]), splits[:2]) == {}


def test_no_images():
    found = scan_images({"test": []})
    duplicates = find_duplicates(found.digests, found.thumbnails)
    assert len(found) == 0 and duplicates.pairs().shape == (0, 2) and leaks(duplicates, ()) == {}
    assert connected(duplicates.pairs(), 0) == []


def test_broken_files_are_listed_and_do_not_stop_the_scan(tmp_path):
    good = save(tmp_path / "good.png", scene(0))
    content = io.BytesIO()
    Image.fromarray(scene(1)).save(content, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content.getvalue()[:900])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "wrong.png").write_bytes(content.getvalue())
    paths = [good, *(str(tmp_path / name) for name in ("cut.jpg", "text.jpg", "none.jpg", "wrong.png"))]
    found = scan_images({"train": [{"image": path} for path in paths]})
    assert sorted(found.broken) == [1, 2, 3]
    assert "truncated" in found.broken[1].reason and "text" in found.broken[2].reason
    assert found.broken[3].reason == "file not found"
    assert misnamed(found) == [4]
    assert found.names[0] == good and found.sizes[1].tolist() == [0, 0]


@pytest.mark.parametrize("image", [np.zeros((1, 1), np.uint8), np.zeros((5, 7, 4), np.uint8), np.ones((3, 2, 1))])
def test_arrays_of_any_kind(image):
    found = scan_images({"train": [{"image": image}, {"image": image}]})
    assert found.sizes.tolist() == [list(image.shape[:2])] * 2 and found.names == ("train/0", "train/1")
    assert find_duplicates(found.digests, found.thumbnails).exact == ((0, 1),)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_every_colour_mode_can_be_looked_at(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture = Image.fromarray(scene(0))
    picture = Image.fromarray(np.full((40, 30), 700, np.uint16)) if mode == "I;16" else picture.convert(mode)
    picture.save(path)
    found = scan_images({"train": [{"image": str(path)}]})
    assert not found.broken and found.modes == (mode,) and tuple(found.sizes[0]) == picture.size[::-1]


def test_real_photographs(real_data):
    paths = sorted(str(path) for path in (real_data / "imagenet_sample").glob("*.jpg"))[:60]
    found = scan_images({"train": [{"image": path} for path in paths]})
    duplicates = find_duplicates(found.digests, found.thumbnails)
    assert not duplicates.exact and not len(duplicates.near)
    # Compressed anew and halved, each is recognised.
    copies = []
    for path in paths[:20]:
        with Image.open(path) as picture:
            copies.append(np.asarray(picture.convert("RGB").resize((picture.width // 2, picture.height // 2))))
    examples = [{"image": path} for path in paths[:20]] + [{"image": copy} for copy in copies]
    found = scan_images({"train": examples})
    near = find_duplicates(found.digests, found.thumbnails).near
    assert near.tolist() == [[index, index + 20] for index in range(20)]
