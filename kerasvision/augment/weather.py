"""Weather and optics: clouds, snow, frost, shadows, and the kernels of lenses and motion."""

import math

import cv2
import numpy as np


def disk_kernel(radius: float, blur: float = 0.0) -> np.ndarray:
    """Picture of a point out of focus: an even disk.

    Args:
        radius: pixels; 0 gives a single point.
        blur: sigma in pixels of the disk's soft edge.

    Returns:
        float32 [K, K] with sum 1.
    """
    reach = math.ceil(radius + 3 * blur)
    places = np.arange(-reach, reach + 1, dtype=np.float32)
    # Pixels on the edge count by the share of the disk they hold.
    kernel = np.clip(radius + 0.5 - np.hypot(places, places[:, None]), 0, 1) if radius else _point(reach)
    if blur:
        kernel = cv2.GaussianBlur(kernel, (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
    return (kernel / kernel.sum()).astype(np.float32)


def _point(reach: int) -> np.ndarray:
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    kernel[reach, reach] = 1
    return kernel


def line_kernel(places: np.ndarray, weights: np.ndarray, degrees: float) -> np.ndarray:
    """Picture of a moving point.

    Args:
        places: where the point was, in pixels along the line, [N]; 0 is the kernel's centre.
        weights: how long it was there, [N].
        degrees: direction of the line, counter-clockwise from the x axis.

    Returns:
        float32 [K, K] with sum 1.
    """
    angle = math.radians(degrees)
    # Rounded, so that a line along an axis stays within its row or column.
    x, y = np.round(places * math.cos(angle), 6), np.round(-places * math.sin(angle), 6)
    reach = math.ceil(max(np.abs(x).max(), np.abs(y).max()))
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    # Each place is shared among its four nearest pixels.
    left, top = np.floor(x), np.floor(y)
    for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            np.add.at(kernel, ((row + reach).astype(int), (column + reach).astype(int)), weights * share_x * share_y)
    kernel = kernel[: 2 * reach + 1, : 2 * reach + 1]
    return (kernel / kernel.sum()).astype(np.float32)


def plasma(size: tuple[int, int], decay: float, rng: np.random.Generator) -> np.ndarray:
    """Clouds by the diamond-square algorithm (Fournier et al., 1982, doi:10.1145/358523.358553).

    Args:
        size: (H, W).
        decay: factor between the randomness of one octave and the next finer one; larger is smoother.
        rng: source of every random number.

    Returns:
        float32 [H, W] from 0 to 1.
    """
    side = max(2, 2 ** math.ceil(math.log2(max(size))))
    # The grid wraps around; each octave puts in the middles of its squares, then those of their sides.
    heights = np.zeros((1, 1), np.float32)
    amplitude = np.float32(1.0)
    while len(heights) < side:
        count = len(heights)
        noise = rng.random((3, count, count), np.float32) * (2 * amplitude) - amplitude
        below, right = np.roll(heights, -1, axis=0), np.roll(heights, -1, axis=1)
        centres = (heights + below + right + np.roll(below, -1, axis=1)) / 4 + noise[0]
        grid = np.empty((2 * count, 2 * count), np.float32)
        grid[::2, ::2] = heights
        grid[1::2, 1::2] = centres
        grid[::2, 1::2] = (heights + right + centres + np.roll(centres, 1, axis=0)) / 4 + noise[1]
        grid[1::2, ::2] = (heights + below + centres + np.roll(centres, 1, axis=1)) / 4 + noise[2]
        heights = grid
        amplitude = np.float32(amplitude / decay)
    heights = heights[: size[0], : size[1]]
    low, high = float(heights.min()), float(heights.max())
    return (heights - low) / (high - low) if high > low else np.zeros(size, np.float32)


def snow_layer(
    size: tuple[int, int], mean: float, spread: float, zoom: float, threshold: float, rng: np.random.Generator
) -> np.ndarray:
    """Flakes of snow: the peaks of enlarged normal noise.

    Args:
        size: (H, W).
        mean: of the noise.
        spread: standard deviation of the noise.
        zoom: enlargement of the noise, >= 1: the size of the flakes in pixels.
        threshold: what lies below becomes 0.
        rng: source of every random number.

    Returns:
        float32 [H, W] from 0 to 1.
    """
    height, width = size
    small = (math.ceil(height / zoom), math.ceil(width / zoom))
    noise = mean + spread * rng.standard_normal(small, np.float32)
    layer = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(layer < threshold, np.float32(0), np.minimum(layer, 1))


def frost_texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ice on a window: bent feathers of needles over a bluish film, thicker here and there.

    A procedural stand-in for the photographs of frost that the paper of ImageNet-C used.

    Args:
        size: (H, W).
        rng: source of every random number.

    Returns:
        uint8 [H, W, 3].
    """
    film = np.clip(1.8 * plasma(size, 1.8, rng) - 0.35, 0, 1)
    needles = _ice_needles(size, rng)
    # Ice is grainy: the light of needles and film flickers from pixel to pixel.
    grain = 0.6 + 0.8 * plasma(size, 1.1, rng)
    glow = cv2.GaussianBlur(needles, (0, 0), max(min(size) / 50, 0.5))
    light = (0.3 + 0.7 * film) * (0.75 * needles + 0.6 * glow) * grain + 0.45 * film * grain
    return np.clip(light[..., None] * np.array([215, 232, 250], np.float32), 0, 255).astype(np.uint8)


def _ice_needles(size: tuple[int, int], rng: np.random.Generator, stems: int = 14, steps: int = 14) -> np.ndarray:
    """Needles alone: float32 [H, W] from 0 to 1."""
    side = min(size)
    # A stem bends a little with every step; side needles leave it at sixty degrees, as in crystals of ice, in pairs.
    angles = rng.uniform(0, 2 * math.pi, (stems, 1)) + rng.normal(0, 0.12, (stems, steps)).cumsum(axis=1)
    length = side * rng.uniform(0.25, 0.7, (stems, 1, 1)) / steps
    starts = rng.random((stems, 1, 2)) * (size[1], size[0])
    path = starts + (length * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).cumsum(axis=1)
    ice = np.zeros(size, np.uint8)
    _draw_lines(ice, path, 210)
    shrink = np.linspace(1, 0.2, steps)
    starts, angles, lengths = path.reshape(-1, 2), angles.ravel(), (length[..., 0] * steps * 0.35 * shrink).ravel()
    for light, branches in ((180, 5), (140, 0)):
        starts, lengths = np.repeat(starts, 2, axis=0), np.repeat(lengths, 2) * rng.uniform(0.5, 1.2, 2 * len(lengths))
        angles = np.repeat(angles, 2) + np.tile([1, -1], len(angles)) * math.pi / 3
        angles += rng.normal(0, 0.08, len(angles))
        ends = starts + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        _draw_lines(ice, np.stack([starts, ends], axis=1), light)
        if branches:
            shares = (np.arange(branches) + 0.5) / branches
            starts = (starts[:, None] + shares[:, None] * (ends - starts)[:, None]).reshape(-1, 2)
            angles = np.repeat(angles, branches)
            lengths = (lengths[:, None] * 0.4 * (1.1 - shares)).ravel()
    return ice.astype(np.float32) / 255


def _draw_lines(image: np.ndarray, lines: np.ndarray, value: int) -> None:
    """Draws lines [N, K, 2] of corners (x, y) with soft edges."""
    cv2.polylines(image, list(np.rint(16 * lines).astype(np.int32)), False, value, 1, cv2.LINE_AA, shift=4)


def fog(image: np.ndarray, density: float, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Puts clouds of white light over an image, and darkens it to the old maximum.

    Args:
        image: uint8 [H, W, C].
        density: of the thickest fog, in multiples of white; 0 changes nothing.
        decay: see `plasma`; larger gives softer clouds.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.
    """
    brightest = float(image.max())
    if density == 0 or brightest == 0:
        return image
    scale = brightest / (brightest + 255 * density)
    clouds = plasma(image.shape[:2], decay, rng) * np.float32(255 * density * scale)
    if image.shape[-1] == 3:
        clouds = cv2.cvtColor(clouds, cv2.COLOR_GRAY2RGB)
    return cv2.convertScaleAbs(image * np.float32(scale) + clouds.reshape(image.shape)).reshape(image.shape)


def shadow(image: np.ndarray, polygons: np.ndarray, darkness: float) -> np.ndarray:
    """Darkens the inside of polygons.

    Args:
        image: uint8 [H, W, C].
        polygons: float [N, K, 2], corners (x, y) in pixels.
        darkness: share of the light that is lost; 0 changes nothing.

    Returns:
        uint8 of the same shape.
    """
    inside = np.zeros(image.shape[:2], np.uint8)
    for polygon in polygons:
        cv2.fillPoly(inside, [np.rint(polygon - 0.5).astype(np.int32)], 255)
    dark = cv2.convertScaleAbs(image, alpha=1 - darkness).reshape(image.shape)
    return cv2.copyTo(dark, inside, image.copy()).reshape(image.shape)
