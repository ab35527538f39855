"""Images that occur twice: equal ones by their digest, look-alikes by a perceptual hash."""

import dataclasses
from collections.abc import Sequence

import numpy as np

DISTANCE = 4
SIMILARITY = 0.98
# One band more than the distance allows: bits that differ cannot lie in all of them.
_BANDS = (13, 13, 13, 13, 12)
# An image with so many look-alikes has its place; to list the others, in the frames of a still camera, has no end.
_ENOUGH = 32
_WINDOW = 4096
_LOW = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
    """Images of a set that are the same, or look the same.

    Args:
        exact: groups of two or more indices whose images are equal, in rising order.
        near: int64 [P, 2], pairs of indices (smaller first) that look alike without being equal; of a group of
            equal images only the first one stands here.
        distances: int64 [P], bits of the hashes that differ.
    """

    exact: tuple[tuple[int, ...], ...]
    near: np.ndarray
    distances: np.ndarray

    def pairs(self) -> np.ndarray:
        """int64 [Q, 2]: the first image of every exact group with each of the others, then the near pairs."""
        exact = [(group[0], other) for group in self.exact for other in group[1:]]
        return np.concatenate([np.array(exact, np.int64).reshape(-1, 2), self.near])


def find_duplicates(digests: np.ndarray, thumbnails: np.ndarray, usable: np.ndarray | None = None) -> Duplicates:
    """Finds equal images, and images that look alike.

    Two images look alike where their hashes differ in at most four bits, and their thumbnails correlate by 0.98 or
    more. The second condition matters where all images of a set resemble each other, as products on white do.

    Args:
        digests: uint64 [N], equal for equal images.
        thumbnails: uint8 [N, S, S], grey.
        usable: bool [N]: images to look at; all where None.

    Returns:
        Groups and pairs, in rising order.
    """
    indices = np.arange(len(digests)) if usable is None else np.flatnonzero(usable)
    exact = exact_groups(digests[indices])
    single = np.ones(len(indices), bool)
    for group in exact:
        single[list(group[1:])] = False
    firsts = np.flatnonzero(single)
    hashes = perceptual_hash(thumbnails[indices[firsts]])
    near, distances = near_pairs(hashes, thumbnails[indices[firsts]])
    return Duplicates(
        exact=tuple(tuple(int(indices[index]) for index in group) for group in exact),
        near=indices[firsts[near]].astype(np.int64),
        distances=distances,
    )


def exact_groups(digests: np.ndarray) -> list[tuple[int, ...]]:
    """Groups of two or more indices with the same digest, each rising, in the order of their first index."""
    order = np.argsort(digests, kind="stable")
    starts = np.flatnonzero(np.diff(digests[order])) + 1
    groups = [tuple(int(index) for index in group) for group in np.split(order, starts) if len(group) > 1]
    return sorted(groups)


def perceptual_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Hash of 64 bits that hardly changes when an image is scaled, compressed or brightened.

    The signs of the 8x8 lowest frequencies of the discrete cosine transform, against their median (Zauner, 2010,
    "Implementation and benchmarking of perceptual image hash functions").

    Args:
        thumbnails: uint8 [N, S, S], grey, S >= 8.

    Returns:
        uint64 [N].
    """
    side = thumbnails.shape[-1]
    basis = np.cos(np.pi / side * (np.arange(side) + 0.5) * np.arange(_LOW)[:, None])  # [8, S]
    hashes = np.empty(len(thumbnails), np.uint64)
    for start in range(0, len(thumbnails), _WINDOW):
        part = thumbnails[start : start + _WINDOW].astype(np.float64)
        # Rounded, so that the frequencies an even picture does not have are all exactly 0.
        low = np.round(basis @ part @ basis.T, 6).reshape(len(part), -1)
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + _WINDOW] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return hashes


def near_pairs(
    hashes: np.ndarray, thumbnails: np.ndarray, distance: int = DISTANCE, similarity: float = SIMILARITY
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images whose hashes and thumbnails are close.

    Hashes with at most four different bits agree in at least one of five bands, so only images that share a band
    are compared: neighbours at a growing step in the order of that band, all of them at once. Every pair is found,
    except that an image with 32 look-alikes looks for no more, and in a band that more than 4,096 images share
    only that many neighbours are seen.

    Args:
        hashes: uint64 [N].
        thumbnails: uint8 [N, S, S].
        distance: bits that may differ, at most 4.
        similarity: least correlation of the thumbnails, -1..1.

    Returns:
        int64 [P, 2], smaller index first, rising; and int64 [P], the bits that differ.

    Raises:
        ValueError: a distance that the bands cannot promise.
    """
    if not 0 <= distance < len(_BANDS):
        raise ValueError(f"Expected a distance of 0 to {len(_BANDS) - 1} bits, got {distance}.")
    found = [np.zeros(0, np.int64)]
    neighbours = np.zeros(len(hashes), np.int64)
    shift = 0
    for bits in _BANDS:
        keys = (hashes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        shift += bits
        order = np.lexsort((hashes, keys))
        keys = keys[order]
        active = np.arange(len(order))
        for step in range(1, _WINDOW + 1):
            active = active[active + step < len(order)]
            active = active[keys[active] == keys[active + step]]
            if step > 1:  # Next neighbours always count: they keep a crowd of look-alikes in one piece.
                active = active[neighbours[order[active]] < _ENOUGH]
            if not len(active):
                break
            first, second = order[active], order[active + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            first, second = first[close], second[close]
            alike = correlation(thumbnails, first, second) >= similarity
            first, second = first[alike], second[alike]
            found.append(np.minimum(first, second) * len(hashes) + np.maximum(first, second))
            # A pair that shares an earlier band, too, was counted there.
            new = ~_share_a_band(hashes[first] ^ hashes[second], shift - bits)
            np.add.at(neighbours, np.concatenate([first[new], second[new]]), 1)
    codes = np.unique(np.concatenate(found))
    pairs = np.stack([codes // max(len(hashes), 1), codes % max(len(hashes), 1)], axis=1)
    return pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)


def _share_a_band(different: np.ndarray, end: int) -> np.ndarray:
    """bool [P]: no bit differs in one of the bands below bit `end`."""
    shared, shift = np.zeros(len(different), bool), 0
    for bits in _BANDS:
        if shift < end:
            shared |= (different >> np.uint64(shift)) & np.uint64((1 << bits) - 1) == 0
        shift += bits
    return shared


def correlation(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of pairs of pictures; 0 where one is of a single colour, which says nothing.

    Args:
        thumbnails: uint8 [N, S, S].
        first: int [P], indices.
        second: int [P], indices.

    Returns:
        float64 [P] in -1..1.
    """
    result = np.empty(len(first))
    for start in range(0, len(first), _WINDOW):
        part = slice(start, start + _WINDOW)
        a, b = (_centred(thumbnails[index[part]]) for index in (first, second))
        lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        result[part] = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return result


def _centred(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    return flat - flat.mean(axis=1, keepdims=True)


def connected(pairs: np.ndarray, count: int) -> list[tuple[int, ...]]:
    """Groups of indices that hang together through pairs.

    Args:
        pairs: int [P, 2], indices below `count`.
        count: number of indices.

    Returns:
        Groups of two or more, each rising, in the order of their first index.
    """
    first, second = pairs.T
    names = np.arange(count)
    # Each group takes the name of its smallest index: names pass along the pairs, then along themselves.
    while (names[first] != names[second]).any():
        low = np.minimum(names[first], names[second])
        np.minimum.at(names, names[first], low)
        np.minimum.at(names, names[second], low)
        while (names[names] != names).any():
            names = names[names]
    return exact_groups(names)


def leaks(duplicates: Duplicates, splits: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
    """Images of one split that have an equal or similar image in another.

    Args:
        duplicates: of the whole set.
        splits: name of each image's split.

    Returns:
        (split, other split), in the order the splits first occur -> int64 [M, 2], pairs with the image of `split`
        first. An image of the other split that equals several of `split` stands in one pair with them.
    """
    order = {name: rank for rank, name in enumerate(dict.fromkeys(splits))}
    names, ranks = list(order), np.array([order[name] for name in splits], np.int64)
    exact = []
    for group in duplicates.exact:
        first: dict[int, int] = {}
        for index in group:
            first.setdefault(int(ranks[index]), index)
        exact += [(first[rank], index) for index in group for rank in first if rank < ranks[index]]
    pairs = np.concatenate([np.array(exact, np.int64).reshape(-1, 2), duplicates.near])
    pairs = pairs[ranks[pairs[:, 0]] != ranks[pairs[:, 1]]]
    swapped = ranks[pairs[:, 0]] > ranks[pairs[:, 1]]
    pairs[swapped] = pairs[swapped, ::-1]
    both = ranks[pairs]
    return {
        (names[low], names[high]): pairs[(both == (low, high)).all(axis=1)]
        for low, high in sorted({(int(low), int(high)) for low, high in both})
    }
