"""One XML file of Pascal VOC, read as a stream: what is not wanted is never kept."""

import math
from pathlib import Path
from xml.parsers import expat

import numpy as np

from kerasvision.data.objects import Objects, box_problem, first_bad_box

_CORNERS = {"xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3}
_TEXTS = frozenset(("name", "difficult", "filename", "width", "height", *_CORNERS))
_MAX_BYTES = 32 << 20


class VocError(Exception):
    """An annotation that cannot be used, and the line where that shows."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class AnnotationReader:
    """Reads annotations one after the other; classes are numbered as they come.

    A DOCTYPE is refused: entities, which could name other files or grow without end, are declared nowhere else.
    """

    def __init__(self) -> None:
        self.classes: dict[str, int] = {}

    def read(self, file: Path) -> tuple[tuple[int, int] | None, str, Objects]:
        """Reads one annotation.

        Returns:
            Size (H, W) where stated, name of the image, objects with classes as numbered in `classes`.

        Raises:
            VocError: it is not a sound annotation.
        """
        content = file.read_bytes()
        if len(content) > _MAX_BYTES:
            raise VocError(f"{len(content):,} bytes, more than the limit of {_MAX_BYTES:,}", 1)
        page = _Page()
        parser = page.parser
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise VocError(f"broken XML ({expat.ErrorString(error.code)})", error.lineno) from error
        except (LookupError, ValueError) as error:  # an encoding nobody knows
            raise VocError(f"broken XML ({error})", parser.CurrentLineNumber) from error
        corners, names, difficult, lines = zip(*page.objects, strict=True) if page.objects else ((),) * 4
        boxes = np.array(corners, np.float64).reshape(-1, 4) - (1, 1, 0, 0)
        wrong = first_bad_box(boxes)
        if wrong is not None:
            raise VocError(box_problem(boxes[wrong]), lines[wrong])
        if not all(names):
            raise VocError("an object without a name", lines[names.index("")])
        objects = Objects(
            boxes.astype(np.float32),
            np.array([self.classes.setdefault(name, len(self.classes)) for name in names], np.int32),
            np.zeros(len(boxes), bool),
            difficult=np.array(difficult, bool),
            file=str(file),
            places=np.array(lines, np.int32),
        )
        return page.size(), page.filename, objects


class _Page:
    """One annotation, as expat's handlers collect it. Nothing of it is kept but the texts that are wanted."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._refuse
        self.filename = ""
        self.objects: list[tuple[list[float], str, bool, int]] = []
        self._size: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []
        self._line = 0
        self._name, self._difficult = "", False
        self._corners = [math.nan] * 4

    def size(self) -> tuple[int, int] | None:
        """(H, W), or None where the file states none; some tools write zeros for "unknown"."""
        sides = [self._size.get(name, "0").strip() or "0" for name in ("height", "width")]
        try:
            height, width = (int(float(side)) for side in sides)
        except (ValueError, OverflowError):
            raise VocError(f"a size of {sides[1]!r} x {sides[0]!r}; expected numbers of pixels", 1) from None
        if height < 0 or width < 0:
            raise VocError(f"a size of {width} x {height}; expected numbers of pixels", 1)
        return (height, width) if height and width else None

    def _refuse(self, name: str, system: str | None, public: str | None, internal: bool) -> None:
        raise VocError("a DOCTYPE, which annotations have no use for; remove it", self.parser.CurrentLineNumber)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        path = self._path
        path.append(tag)
        if tag in _TEXTS:
            self._text.clear()
            self.parser.CharacterDataHandler = self._text.append
        elif tag == "object" and len(path) == 2:
            self._line = self.parser.CurrentLineNumber
            self._name, self._difficult = "", False
            self._corners = [math.nan] * 4
        elif len(path) == 1 and tag != "annotation":
            raise VocError(f"not an annotation: expected <annotation> at the top, got <{tag}>", 1)

    def _end(self, tag: str) -> None:
        path = self._path
        # The parts of an object have names and boxes, too: only what stands where it should counts.
        if tag in _TEXTS:
            self.parser.CharacterDataHandler = None
            depth = len(path)
            if depth == 4 and tag in _CORNERS and path[1] == "object" and path[2] == "bndbox":
                self._corners[_CORNERS[tag]] = self._number()
            elif depth == 3 and path[1] == "object" and tag == "name":
                self._name = "".join(self._text).strip()
            elif depth == 3 and path[1] == "object" and tag == "difficult":
                self._difficult = "".join(self._text).strip() not in ("0", "")
            elif depth == 3 and path[1] == "size":
                self._size[tag] = "".join(self._text)
            elif depth == 2 and tag == "filename":
                self.filename = "".join(self._text).strip()
        elif tag == "object" and len(path) == 2:
            self.objects.append((self._corners, self._name, self._difficult, self._line))
        path.pop()

    def _number(self) -> float:
        text = "".join(self._text)
        try:
            return float(text)
        except ValueError:
            line = self.parser.CurrentLineNumber
            raise VocError(f"{text.strip()[:30]!r} where a number of pixels was expected", line) from None
