"""Videos: every frame is an image, and the frames of one video are one group."""

import dataclasses
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from kerasvision.data.inspect import MAX_PIXELS, BadFile, Decoder, ImageInfo
from kerasvision.data.listing import Item, Listing
from kerasvision.data.storage import frame_reference, is_remote
from kerasvision.errors import DataError
from kerasvision.progress import track

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
# Reading on is faster than looking for a frame that is no further away than this.
_NEAR = 64
# Headers state the number of frames; some containers only estimate it.
_ENOUGH = 0.95


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """A sound video.

    Args:
        frames: how many there are.
        size: (H, W) of the upright frames.
        steady: frames follow each other at equal times, so that one can be found by its number.
    """

    frames: int
    size: tuple[int, int]
    steady: bool


def is_video(path: str) -> bool:
    """Whether a file's suffix is that of a video."""
    return path.lower().endswith(SUFFIXES)


def inspect_video(path: str) -> VideoInfo | BadFile:
    """Reads a video to its end.

    Args:
        path: a local file.

    Returns:
        What it is, or why it cannot be used.
    """
    if is_remote(path):
        return BadFile(path, "a video must lie on a local disk: copy it there")
    try:
        return _inspect(path, Path(path).stat().st_mtime_ns)
    except OSError as error:
        return BadFile(path, error.strerror or str(error))


@functools.lru_cache(maxsize=4096)
def _inspect(path: str, changed: int) -> VideoInfo | BadFile:
    capture = _open(path)
    if not capture.isOpened():
        return BadFile(path, "cannot be opened as a video")
    if capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT) > MAX_PIXELS:
        return BadFile(path, f"frames of more than {MAX_PIXELS:,} pixels")
    sound, frame = capture.read()
    if not sound:
        return BadFile(path, "no frame of the video can be read")
    step = 1000 / (capture.get(cv2.CAP_PROP_FPS) or 25)
    start, frames, steady = capture.get(cv2.CAP_PROP_POS_MSEC), 1, True
    while capture.grab():
        steady = steady and abs(capture.get(cv2.CAP_PROP_POS_MSEC) - start - frames * step) < step / 2
        frames += 1
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if frames < _ENOUGH * stated:
        return BadFile(path, f"truncated or damaged: {frames} of {stated:.0f} frames can be read")
    return VideoInfo(frames, frame.shape[:2], steady)


def _open(path: str) -> cv2.VideoCapture:
    # One thread for each video: the pipeline reads several at once.
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


@dataclasses.dataclass
class _Reading:
    """A video that is open, and the number of the frame that comes next."""

    path: str
    changed: int
    capture: cv2.VideoCapture
    next: int = 0

    def skip_to(self, index: int) -> None:
        while self.next < index and self.capture.grab():
            self.next += 1


_reading = threading.local()


def read_frame(path: str, index: int) -> np.ndarray:
    """Reads one frame; frames in order, or a few apart, are read on from the one before.

    Args:
        path: a local video.
        index: number of the frame, from 0.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: the video cannot be opened or has no such frame.
        OSError: there is no such file.
    """
    changed = Path(path).stat().st_mtime_ns
    reading: _Reading | None = getattr(_reading, "last", None)
    if reading is None or (reading.path, reading.changed) != (path, changed):
        reading = _start(path, changed)
    if not reading.next <= index <= reading.next + _NEAR:
        info = inspect_video(path)
        if isinstance(info, VideoInfo) and info.steady and index:
            reading.capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            reading.next = index
        elif index < reading.next:
            reading = _start(path, changed)
    reading.skip_to(index)
    sound, frame = reading.capture.read()
    if reading.next != index or not sound:
        _reading.last = None
        raise DataError(f"{path}: frame {index} cannot be read.")
    reading.next += 1
    return np.ascontiguousarray(frame[..., ::-1])


def _start(path: str, changed: int) -> _Reading:
    capture = _open(path)
    if not capture.isOpened():
        raise DataError(f"{path}: cannot be opened as a video.")
    _reading.last = _Reading(path, changed, capture)
    return _reading.last


def encode_frame(frame: np.ndarray, suffix: str) -> bytes:
    """An image file of a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        suffix: ".bmp" or ".png": formats without loss.

    Returns:
        The file's content.
    """
    return cv2.imencode(suffix, frame[..., ::-1])[1].tobytes()


def list_video(path: Path) -> Listing:
    """A single video, without labels: its frames are in "test"."""
    return Listing({"test": [Item(str(path), (), path.name)]}, (), multi_label=True, divide=False)


def expand_videos(listing: Listing, frame_step: int = 1) -> None:
    """Puts the frames of videos in the place of the videos, with their labels, as one group each.

    Args:
        listing: changed in place; videos that cannot be read to their end are listed in its problems.
        frame_step: every so many frames one is taken, beginning with the first.

    Raises:
        DataError: frame_step is less than 1.
    """
    if frame_step < 1:
        raise DataError(f"frame_step must be at least 1, got {frame_step}.")
    items = [item for split in listing.splits.values() for item in split]
    videos = sorted({item.image for item in items if isinstance(item.image, str) and is_video(item.image)})
    if not videos:
        return
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        infos = dict(zip(videos, track(pool.map(inspect_video, videos), "Checking videos", len(videos)), strict=True))

    def frames(item: Item) -> Iterator[Item]:
        info = infos.get(item.image) if isinstance(item.image, str) else None
        if info is None:
            yield item
        elif isinstance(info, BadFile):
            listing.problems.append(dataclasses.replace(info, origin=item.origin))
        else:
            image_info = ImageInfo("BMP", info.size, Decoder.PILLOW)
            for index in range(0, info.frames, frame_step):
                image = frame_reference(str(item.image), index)
                listing.infos[image] = image_info
                key = frame_reference(item.key, index)
                yield dataclasses.replace(item, image=image, key=key, group=item.group or item.key)

    listing.splits = {
        name: [frame for item in split for frame in frames(item)] for name, split in listing.splits.items()
    }
