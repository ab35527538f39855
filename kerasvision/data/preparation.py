"""From a listing to `Data`: videos become frames, files are verified, and missing splits are taken out."""

from kerasvision.data.dataset import Data, Example
from kerasvision.data.listing import Item, Listing, check_classes, check_splits, spread
from kerasvision.data.splits import Division
from kerasvision.data.verification import check_entries, verify
from kerasvision.data.video import expand_videos


def prepare(
    listing: Listing,
    source: str,
    division: Division,
    *,
    on_bad_files: str = "stop",
    limit: int | None = None,
    frame_step: int = 1,
) -> Data:
    """Makes a verified, divided set of what a source lists.

    Args:
        listing: changed in place.
        source: where it came from, for messages.
        division: how missing splits are made.
        on_bad_files: "stop" or "skip".
        limit: at most so many images of each split of the source.
        frame_step: of videos: every so many frames one is taken.

    Returns:
        The set.

    Raises:
        DataError: files, labels or splits cannot be used.
    """
    expand_videos(listing, frame_step)
    check_entries(listing, source, on_bad_files)
    check_classes(listing, source)
    listing.splits = {
        name: [items[index] for index in spread(len(items), limit)] for name, items in listing.splits.items()
    }
    infos, skipped = verify(listing, on_bad_files)
    check_splits(listing, source)
    division.apply(listing, whole=limit is None)
    if limit is None:
        check_classes(listing, source)
    return Data(
        labels=listing.labels,
        splits=_examples(listing),
        multi_label=listing.multi_label,
        source=source,
        skipped=skipped,
        infos=infos,
        keypoint_names=listing.keypoint_names,
    )


def _examples(listing: Listing) -> dict[str, list[Example]]:
    position = {label: index for index, label in enumerate(listing.labels)}
    grouped = any(item.group is not None for items in listing.splits.values() for item in items)

    def example(item: Item) -> Example:
        fields: Example = {"image": item.image, "key": item.key}
        if grouped:
            fields["group"] = item.group or item.key
        if item.objects:
            fields |= item.objects.example()
        if item.segmentation is not None:
            fields["segmentation"] = item.segmentation
        if listing.kind == "labels":
            labels = [position[label] for label in item.labels]
            fields |= {"labels": labels} if listing.multi_label else {"label": labels[0]}
        return fields

    return {name: [example(item) for item in items] for name, items in listing.splits.items()}
