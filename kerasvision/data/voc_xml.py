"""XML files of Pascal VOC, read as streams: what is not wanted is never kept."""

from array import array
from pathlib import Path
from xml.parsers import expat

import numpy as np

from kerasvision.data.objects import Objects

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TEXTS = frozenset(("name", "difficult", "filename", "width", "height", *_CORNERS))
_MAX_BYTES = 32 << 20

Size = tuple[int, int]


class VocError(Exception):
    """An annotation that cannot be used, and the line where that shows."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class AnnotationReader:
    """Reads annotations one after the other; classes are numbered as they come.

    Numbers of all files are gathered in flat arrays: arrays for each file would take longer than reading them.
    """

    def __init__(self) -> None:
        self.classes: dict[str, int] = {}
        self._corners = array("d")
        self._classes = array("i")
        self._difficult = array("b")
        self._lines = array("i")

    def read(self, file: Path) -> tuple[Size | None, str, slice]:
        """Reads one annotation.

        Returns:
            Size (H, W) where stated, name of the image, and which objects are its own.

        Raises:
            VocError: it is not a sound annotation.
        """
        content = file.read_bytes()
        if len(content) > _MAX_BYTES:
            raise VocError(f"{len(content):,} bytes, more than the limit of {_MAX_BYTES:,}")
        page, objects = _parse(content)
        size = _size(page)
        rows = []
        for line, fields in objects:
            name = fields.get("name", "").strip()
            if not name:
                raise VocError("an object without a name", line)
            try:
                rows.append((name, [float(fields.get(corner, "nan")) for corner in _CORNERS]))
            except ValueError:
                texts = ", ".join(fields.get(corner, "").strip()[:20] for corner in _CORNERS)
                raise VocError(f"a box of {texts!r} where numbers of pixels were expected", line) from None
        start = len(self._lines)
        for (name, corners), (line, fields) in zip(rows, objects, strict=True):
            self._corners.extend(corners)
            self._classes.append(self.classes.setdefault(name, len(self.classes)))
            self._difficult.append(fields.get("difficult", "").strip() not in ("", "0"))
            self._lines.append(line)
        return size, page.get("filename", "").strip(), slice(start, len(self._lines))

    def finish(self) -> Objects:
        """All objects that were read; classes in the order of their names."""
        # VOC counts pixels from 1 and includes the last.
        boxes = np.array(self._corners).reshape(-1, 4) - (1, 1, 0, 0)
        position = {name: index for index, name in enumerate(sorted(self.classes))}
        numbers = np.array([position[name] for name in self.classes], np.int32)
        difficult = np.array(self._difficult, bool)
        return Objects(
            boxes,
            numbers[np.array(self._classes, np.int64)],
            np.zeros(len(boxes), bool),
            difficult=difficult if difficult.any() else None,
            places=np.array(self._lines),
        )


def _size(page: dict[str, str]) -> Size | None:
    """(H, W), or None where the file states none; some tools write zeros for "unknown"."""
    sides = [page.get(name, "").strip() or "0" for name in ("height", "width")]
    try:
        height, width = (int(float(side)) for side in sides)
    except (ValueError, OverflowError):
        height = width = -1
    if height < 0 or width < 0:
        raise VocError(f"a size of {sides[1][:20]} x {sides[0][:20]}; expected numbers of pixels")
    return (height, width) if height and width else None


def _parse(content: bytes) -> tuple[dict[str, str], list[tuple[int, dict[str, str]]]]:
    """Texts of the page, and line and texts of each object.

    A DOCTYPE is refused: entities, which could name other files or grow without end, are declared nowhere else.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    page: dict[str, str] = {}
    objects: list[tuple[int, dict[str, str]]] = []
    text: list[str] = []
    add_text = text.append
    fields: dict[str, str] = {}
    depth = 0
    second = third = ""  # names of the open elements two and three levels down

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, second, third, fields
        depth += 1
        if tag in _TEXTS:
            text.clear()
            parser.CharacterDataHandler = add_text
        if depth == 3:
            third = tag
        elif depth == 2:
            second = tag
            if tag == "object":
                fields = {}
                objects.append((parser.CurrentLineNumber, fields))
        elif depth == 1 and tag != "annotation":
            raise VocError(f"not an annotation: expected <annotation> at the top, got <{tag[:30]}>")

    def end(tag: str) -> None:
        nonlocal depth
        if tag in _TEXTS:
            parser.CharacterDataHandler = None
            # The parts of an object have names and boxes, too: only what stands where it should counts.
            if depth == 4:
                if third == "bndbox" and second == "object":
                    fields[tag] = "".join(text)
            elif depth == 3:
                if second == "object":
                    fields[tag] = "".join(text)
                elif second == "size":
                    page[tag] = "".join(text)
            elif depth == 2 and tag == "filename":
                page[tag] = "".join(text)
        depth -= 1

    def refuse(name: str, system: str | None, public: str | None, internal: bool) -> None:
        raise VocError("a DOCTYPE, which annotations have no use for; remove it", parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise VocError(f"broken XML ({expat.ErrorString(error.code)})", error.lineno) from error
    except (LookupError, ValueError) as error:  # an encoding nobody knows
        raise VocError(f"broken XML ({error})", parser.CurrentLineNumber) from error
    return page, objects
