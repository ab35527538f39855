"""Videos and folders of frames as sources."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kerasvision.data import load_data, load_image
from kerasvision.data.inspect import BadFile
from kerasvision.data.shards import write_shards
from kerasvision.data.storage import frame_reference, read_bytes
from kerasvision.data.video import inspect_video, read_frame
from kerasvision.errors import DataError


def write_video(path: Path, frames: int = 20, codec: str = "MJPG") -> Path:
    """Frame i is grey of 10 * i, with a bar that moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    for index in range(frames):
        frame = np.full((48, 64, 3), 10 * (index % 20), np.uint8)
        frame[:, index % 16 * 4 : index % 16 * 4 + 4] = (255, 0, 0)
        writer.write(frame)
    writer.release()
    return path


def in_order(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        sound, frame = capture.read()
        if not sound:
            return frames
        frames.append(frame[..., ::-1])


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v")])
def test_any_order_gives_the_same_frames(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"clip.{suffix}", 100, codec)
    expected = in_order(path)
    assert len(expected) == 100
    for index in [0, 1, 2, 5, 99, 98, 3, 80, 0, 70, 99, 50]:
        np.testing.assert_array_equal(read_frame(str(path), index), expected[index], err_msg=str(index))
    # The bar is blue; OpenCV's own order of channels would make it red.
    assert read_frame(str(path), 0)[10, 2].argmax() == 2
    with pytest.raises(DataError, match="frame 100 cannot be read"):
        read_frame(str(path), 100)
    np.testing.assert_array_equal(read_frame(str(path), 7), expected[7])


def test_frames_in_order_open_the_video_once(tmp_path, monkeypatch):
    path = str(write_video(tmp_path / "clip.avi"))
    opened = []
    original = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: opened.append(args) or original(*args))
    for index in range(0, 20, 3):
        read_frame(path, index)
    assert len(opened) == 1


def test_a_file_that_was_replaced_is_opened_again(tmp_path):
    path = write_video(tmp_path / "clip.avi", 5)
    read_frame(str(path), 0)
    write_video(path, 12)
    assert read_frame(str(path), 11).mean() > 90


def test_threads_have_videos_of_their_own(tmp_path):
    path = write_video(tmp_path / "clip.avi", 20)
    expected = in_order(path)
    wrong = []

    def read(start: int) -> None:
        for index in range(start, 20, 2):
            if not np.array_equal(read_frame(str(path), index), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_single_video(tmp_path):
    path = write_video(tmp_path / "my clip.avi")
    data = load_data(path, frame_step=6)
    assert data.labels == () and list(data.splits) == ["test"]
    keys = [example["key"] for example in data.splits["test"]]
    assert keys == [f"my clip.avi#frame={index}" for index in (0, 6, 12, 18)]
    assert all(example["labels"] == [] for example in data.splits["test"])
    expected = in_order(path)
    pixels = load_image(data.splits["test"][2]["image"], (48, 64))
    np.testing.assert_array_equal(pixels, expected[12])
    (batch,) = [images.numpy() for images, _ in data.batches("test", image_size=(48, 64))]
    np.testing.assert_array_equal(batch, [expected[index] for index in (0, 6, 12, 18)])


def test_class_folders_of_clips_never_divide_a_clip(tmp_path):
    for label in ("walk", "run"):
        for clip in range(4):
            write_video(tmp_path / "set" / label / f"{clip}.avi", 6)
    Image.new("RGB", (64, 48)).save(tmp_path / "set/walk/still.png")
    data = load_data(tmp_path / "set", validation_fraction=0.25, seed=3)
    assert data.labels == ("run", "walk")
    clips = {
        split: {example["group"] for example in examples if "#" in example["key"]}
        for split, examples in data.splits.items()
    }
    assert not clips["train"] & clips["validation"] and len(clips["train"] | clips["validation"]) == 8
    assert {example["label"] for example in data.splits["validation"]} == {0, 1}
    assert sum(map(len, data.splits.values())) == 8 * 6 + 1
    assert data.infos[data.splits["train"][0]["image"]].size == (48, 64)


def test_broken_videos_are_listed(tmp_path):
    root = tmp_path / "set"
    for label in ("a", "b"):
        write_video(root / label / "good.avi", 5)
        write_video(root / label / "other.avi", 5)
    content = write_video(root / "a/cut.avi").read_bytes()
    (root / "a/cut.avi").write_bytes(content[: len(content) // 2])
    (root / "a/text.mp4").write_text("no video")
    (root / "b/empty.mov").touch()
    with pytest.raises(DataError, match=r"(?s)3 entries .* cannot be used.*cut.avi: truncated or damaged: \d+ of 20 f"):
        load_data(root)
    data = load_data(root, on_bad_files="skip")
    assert {Path(file.path).name: file.reason for file in data.skipped}.keys() == {"cut.avi", "text.mp4", "empty.mov"}
    assert "cannot be opened as a video" in str(data.skipped[1])
    assert sum(map(len, data.splits.values())) == 20


def test_a_video_elsewhere_must_be_copied():
    found = inspect_video("memory://clip.avi")
    assert isinstance(found, BadFile) and "copy it there" in found.reason
    assert "No such file" in inspect_video("/nowhere/clip.avi").reason


def test_frame_steps_are_positive(tmp_path):
    with pytest.raises(DataError, match="frame_step must be at least 1, got 0"):
        load_data(write_video(tmp_path / "clip.avi"), frame_step=0)


def test_frames_are_encoded_without_loss(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    content = read_bytes(frame_reference(str(path), 4))
    (tmp_path / "frame.bmp").write_bytes(content)
    with Image.open(tmp_path / "frame.bmp") as image:
        np.testing.assert_array_equal(np.asarray(image), read_frame(str(path), 4))


def test_frames_go_into_shards(tmp_path):
    data = load_data(write_video(tmp_path / "clip.avi"), frame_step=5)
    write_shards(data, tmp_path / "shards")
    read = load_data(tmp_path / "shards")
    for ours, theirs in zip(data.splits["test"], read.splits["test"], strict=True):
        assert (ours["key"], ours["group"]) == (theirs["key"], theirs["group"])
        np.testing.assert_array_equal(load_image(ours["image"], (48, 64)), load_image(theirs["image"], (48, 64)))


def test_frames_in_folders_are_sorted_by_number(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label / "clip").mkdir(parents=True)
        for index in (1, 2, 10, 9):
            Image.new("RGB", (4, 4)).save(tmp_path / label / f"clip/frame{index}.png")
    data = load_data(tmp_path, validation_fraction=0)
    names = [Path(example["image"]).stem for example in data.splits["train"][:4]]
    assert names == ["frame1", "frame2", "frame9", "frame10"]
