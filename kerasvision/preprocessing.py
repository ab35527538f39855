"""What happens to an image between the file and the net; it belongs to the weights and travels with them."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How pixels become a net's input.

    `fit`, `crop_fraction` and `interpolation` turn a decoded image of any size into [H, W, C] pixels of 0..255
    (the work of `kerasvision.data`). `scale` and `offset` turn those pixels into what the first convolution
    sees, `pixel * scale + offset`; they are the net's first layer, so a net takes raw pixels everywhere.

    Args:
        scale: factor, one for all channels or one for each (R, G, B).
        offset: addend, one for all channels or one for each.
        fit: "stretch" ignores the aspect ratio, "crop" resizes the shorter side and cuts out the centre,
            "letterbox" resizes the longer side and fills the rest with grey 114.
        crop_fraction: side of the centre crop as a share of the resized shorter side, in (0, 1].
        interpolation: "bilinear" or "bicubic", with an antialiasing filter where the image shrinks.
    """

    scale: tuple[float, ...] = (1 / 255,)
    offset: tuple[float, ...] = (0.0,)
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    crop_fraction: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(float(value) for value in self.scale))
        object.__setattr__(self, "offset", tuple(float(value) for value in self.offset))
        if not self.scale or not self.offset or min(self.scale) <= 0:
            raise ValueError(f"scale must be positive numbers and offset numbers, got {self.scale}, {self.offset}.")
        if self.fit not in ("stretch", "crop", "letterbox"):
            raise ValueError(f'fit must be "stretch", "crop" or "letterbox", got {self.fit!r}.')
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f'interpolation must be "bilinear" or "bicubic", got {self.interpolation!r}.')
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1], got {self.crop_fraction}.")

    @property
    def uniform(self) -> bool:
        """Whether one scale and one offset serve all channels, so a uint8 tensor can carry them for free."""
        return len(set(self.scale)) == 1 and len(set(self.offset)) == 1

    def zero_pixel(self) -> int | None:
        """The pixel that becomes 0, rounded; None where channels differ or no pixel does."""
        if not self.uniform:
            return None
        pixel = round(-self.offset[0] / self.scale[0])
        return pixel if 0 <= pixel <= 255 else None

    def get_config(self) -> dict[str, Any]:
        """The arguments, in types that JSON knows."""
        return {**dataclasses.asdict(self), "scale": list(self.scale), "offset": list(self.offset)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocessing":
        """The inverse of `get_config`."""
        return cls(**config)
