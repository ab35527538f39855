"""Feature extractors, one file per family; importing this room registers them all.

A builder takes the normalized image tensor and returns its feature maps by name: "P1" at half the image's
resolution, "P2" at a quarter, up to "P5" at 1/32, and "top" where a classifier pools something else than "P5".
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
