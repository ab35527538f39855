"""Imputation of tables and images against scikit-learn and OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from kerasvision.data.imputation import ImageImputer, Imputer, MaskChannel, mask_channel
from kerasvision.errors import ArtifactError, DataError

RNG = np.random.default_rng(0)
METHODS = ("mean", "median", "nearest", "bayesian")


def correlated(rows, seed):
    """Columns that tell of each other."""
    random = np.random.default_rng(seed)
    base = random.normal(size=(rows, 2))
    return (base @ np.random.default_rng(9).normal(size=(2, 6)) * 10 + random.normal(size=(rows, 6))).astype("float32")


def with_gaps(table, share=0.25, seed=1):
    return np.where(np.random.default_rng(seed).random(table.shape) < share, np.nan, table).astype("float32")


TRAIN, TEST = with_gaps(correlated(150, 0)), with_gaps(correlated(40, 2), seed=3)


def of_sklearn(method):
    if method == "nearest":
        return KNNImputer(n_neighbors=5)
    if method == "bayesian":
        return IterativeImputer(
            max_iter=3,
            n_nearest_features=4,
            tol=0.0,
            min_value=np.nanmin(TRAIN),
            max_value=np.nanmax(TRAIN),
            random_state=0,
        )
    return SimpleImputer(strategy=method)


@pytest.mark.filterwarnings("ignore:.*Early stopping criterion:UserWarning")
@pytest.mark.parametrize("method", METHODS)
def test_tables_are_filled_as_scikit_learn_does(method):
    ours = Imputer(method, predictors=4).fit(TRAIN).transform(TEST)
    expected = of_sklearn(method).fit(TRAIN.astype("float64")).transform(TEST.astype("float64"))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(ours[~np.isnan(TEST)], TEST[~np.isnan(TEST)])
    assert np.isnan(TEST).any()


def test_columns_that_tell_of_each_other_are_used():
    truth, gaps = correlated(40, 2), np.isnan(TEST)
    error = {method: np.abs(Imputer(method).fit(TRAIN).transform(TEST) - truth)[gaps].mean() for method in METHODS}
    assert error["bayesian"] < error["nearest"] < error["mean"] / 2


def test_bayesian_learns_from_a_table_without_gaps():
    error = np.abs(Imputer("bayesian").fit(correlated(150, 0)).transform(TEST) - correlated(40, 2))
    assert error.mean() < np.abs(Imputer().fit(TRAIN).transform(TEST) - correlated(40, 2)).mean() / 2


@pytest.mark.parametrize("method", METHODS)
def test_test_rows_teach_nothing(method):
    imputer = Imputer(method).fit(TRAIN)
    together = imputer.transform(TEST)
    np.testing.assert_allclose(np.concatenate([imputer.transform(TEST[i : i + 1]) for i in range(40)]), together, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_tables(method, tmp_path):
    imputer = Imputer(method, neighbors=3, predictors=4, rounds=2, seed=5).fit(TRAIN)
    imputer.save(tmp_path / "imputer.npz")
    again = Imputer.load(tmp_path / "imputer.npz")
    assert again == imputer
    np.testing.assert_array_equal(again.transform(TEST), imputer.transform(TEST))


@pytest.mark.parametrize("method", METHODS)
def test_empty_columns_and_rows_are_filled(method):
    train = TRAIN.copy()
    train[:, 2] = np.nan
    filled = Imputer(method).fit(train).transform(np.full((2, 6), np.nan))
    assert np.isfinite(filled).all()
    assert (filled[:, 2] == 0).all()


def smooth(count, channels, seed):
    """Images whose pixels resemble their neighbours and the other images."""
    random = np.random.default_rng(seed)
    row, column = np.mgrid[:6, :5]
    slope = random.uniform(5, 20, (count, 1, 1, channels))
    return np.rint(slope * row[..., None] + random.uniform(5, 20, slope.shape) * column[..., None]).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", [*METHODS, "inpaint"])
def test_missing_pixels_are_filled_and_others_kept(method, channels):
    train, images = smooth(60, channels, 0), smooth(8, channels, 1)
    missing = RNG.random((8, 6, 5)) < 0.3
    damaged = np.where(missing[..., None], RNG.integers(0, 256, images.shape), images).astype(np.uint8)
    filled = ImageImputer(method).fit(train).transform(damaged, missing)
    assert filled.dtype == np.uint8 and filled.shape == images.shape
    np.testing.assert_array_equal(filled[~missing], images[~missing])
    error = np.abs(filled.astype(int) - images)[missing].mean()
    spread = np.abs(train.mean(axis=0) - images)[missing].mean()
    assert error < (0.5 if method in ("nearest", "bayesian") else 1.3) * spread
    # What stood in the gaps has no influence.
    np.testing.assert_array_equal(ImageImputer(method).fit(train).transform(images, missing), filled)


def test_mean_is_of_the_observed_training_pixels():
    train = smooth(20, 1, 0)
    missing = RNG.random((20, 6, 5)) < 0.5
    filled = ImageImputer("mean").fit(train, missing).transform(train[:1], np.ones((1, 6, 5), bool))
    expected = np.rint(np.nanmean(np.where(missing[..., None], np.nan, train), axis=0))
    np.testing.assert_array_equal(filled[0], expected)


@pytest.mark.parametrize(("algorithm", "flag"), [("telea", cv2.INPAINT_TELEA), ("navier_stokes", cv2.INPAINT_NS)])
def test_inpainting_is_that_of_opencv(algorithm, flag):
    row, column = np.mgrid[:20, :16]
    image = np.stack([5 * row + 3 * column, 2 * row, 7 * column], -1).astype(np.uint8)
    missing = np.zeros((20, 16), bool)
    missing[8:12, 5:10] = True
    received = ImageImputer("inpaint", algorithm=algorithm, radius=2.0).transform(image[None], missing[None])[0]
    assert np.abs(received.astype(int) - image).max() < 12
    around = np.where(missing[..., None], np.rint(image[~missing].mean(axis=0)), image).astype(np.uint8)
    expected = cv2.inpaint(around, missing.astype(np.uint8), 2.0, flag)
    np.testing.assert_array_equal(received[missing], expected[missing])


@pytest.mark.parametrize("method", ["mean", "nearest", "bayesian"])
def test_a_missing_channel_is_filled_from_the_others(method):
    train, images = smooth(60, 3, 0), smooth(4, 3, 1)
    train[..., 2], images[..., 2] = train[..., 0], images[..., 0]
    missing = np.zeros(images.shape, bool)
    missing[..., 2] = True
    filled = ImageImputer(method).fit(train).transform(images, missing)
    np.testing.assert_array_equal(filled[..., :2], images[..., :2])
    error = np.abs(filled[..., 2].astype(int) - images[..., 2]).mean()
    assert error < {"mean": 30, "nearest": 12, "bayesian": 12}[method]


def test_inpainting_by_channels():
    images, missing = smooth(2, 3, 1), np.zeros((2, 6, 5, 3), bool)
    missing[:, 2:4, 2:4, 1] = True
    filled = ImageImputer("inpaint").transform(images, missing)
    alone = ImageImputer("inpaint").transform(images[..., 1:2], missing[..., 1:2])
    np.testing.assert_array_equal(filled[..., 1:2], alone)
    missing[1, ..., 1] = True
    with pytest.raises(DataError, match="Image 1 has no pixel to inpaint from"):
        ImageImputer("inpaint").transform(images, missing)


@pytest.mark.parametrize("method", [*METHODS, "inpaint"])
def test_saved_and_loaded_images(method, tmp_path):
    train, images, missing = smooth(30, 1, 0), smooth(4, 1, 1), RNG.random((4, 6, 5)) < 0.3
    imputer = ImageImputer(method, algorithm="navier_stokes", radius=2.0).fit(train)
    imputer.save(tmp_path / "imputer.npz")
    again = ImageImputer.load(tmp_path / "imputer.npz")
    assert again == imputer
    np.testing.assert_array_equal(again.transform(images, missing), imputer.transform(images, missing))


def test_files_that_are_no_imputation(tmp_path):
    Imputer().fit(TRAIN).save(tmp_path / "table.npz")
    with pytest.raises(ArtifactError, match=r"table\.npz is not a saved imputation of images"):
        ImageImputer.load(tmp_path / "table.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04nonsense")
    with pytest.raises(ArtifactError, match="broken"):
        Imputer.load(tmp_path / "broken.npz")
    with pytest.raises(ArtifactError, match="absent"):
        Imputer.load(tmp_path / "absent.npz")
    with pytest.raises(DataError, match=r"\.npz"):
        Imputer().fit(TRAIN).save(tmp_path / "table.pkl")


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(0, 2**31 - 1))
def test_mask_channel(count, height, width, channels, seed):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, height, width, channels), np.uint8)
    missing = random.random((count, height, width)) < 0.5
    result = mask_channel(images, missing)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[..., -1] == 0, missing)
    np.testing.assert_array_equal(result[~missing][:, :-1], images[~missing])
    assert not result[missing].any()
    example = {"image": images[0], "missing": missing[0], "label": 3}
    changed = MaskChannel()(example, random)
    np.testing.assert_array_equal(changed["image"], result[0])
    assert changed.keys() == {"image", "label"} and example["image"].shape[-1] == channels


IMAGES, MISSING = smooth(2, 1, 0), np.zeros((2, 6, 5), bool)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: Imputer("avg"), 'no imputation "avg" of a table'),
        (lambda: ImageImputer("inpait"), 'Did you mean "inpaint"'),
        (lambda: ImageImputer("inpaint", algorithm="tela"), 'Did you mean "telea"'),
        (lambda: ImageImputer("mean", table=Imputer("median")), 'that of the table is "median"'),
        (lambda: Imputer().transform(TEST), "Call fit"),
        (lambda: Imputer().fit(TRAIN).transform(TEST[:, :5]), "Expected 6 columns, as in fit, got 5"),
        (lambda: Imputer().fit(TRAIN[0]), r"table \[N, D\]"),
        (lambda: Imputer().fit(TRAIN[:0]), "no rows"),
        (lambda: Imputer().fit(TRAIN / 0), "finite numbers"),
        (lambda: ImageImputer().fit(IMAGES).transform(IMAGES, MISSING[:1]), r"got bool \(1, 6, 5\)"),
        (lambda: ImageImputer().fit(IMAGES).transform(IMAGES / 255, MISSING), "uint8"),
        (lambda: ImageImputer().transform(IMAGES, MISSING.astype(int)), "missing bool"),
        (lambda: mask_channel(IMAGES, MISSING[0]), r"Expected missing \(2, 6, 5\)"),
        (lambda: MaskChannel()({"image": IMAGES[0]}, RNG), 'needs "missing"'),
    ],
)
def test_wrong_use(function, message):
    with pytest.raises(DataError, match=message), np.errstate(all="ignore"):
        function()
