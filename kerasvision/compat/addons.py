"""Loads tensorflow-addons 0.23, whose development ended in May 2024, beside Keras 3.

Its pure-Python parts (losses, optimizers, image operations, metrics) work on tf_keras and serve as an oracle
for what replaced them. Its compiled operations were built for TensorFlow 2.15 and do not load.
"""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "tensorflow_addons"


def load() -> types.ModuleType:
    """Imports tensorflow-addons so that every `keras` and `tf.keras` inside it means tf_keras, now and later.

    For everybody else `keras`, `tensorflow` and `tf.keras` stay what they were. Not for use while another
    thread imports Keras.

    Returns:
        The module `tensorflow_addons`.

    Raises:
        ImportError: it is not installed; the message names the extra and the Pythons that have a wheel.
    """
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ImportError(_remedy(sys.version_info[:2]))
    with _keras_is_tf_keras(), warnings.catch_warnings():
        # It warns of its end of life and of this TensorFlow, which the caller knows.
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(_PACKAGE)
        except BaseException:
            for name in [name for name in sys.modules if _is_in(name, _PACKAGE)]:
                del sys.modules[name]
            raise


def _remedy(python: tuple[int, ...]) -> str:
    """What to do about a missing package on that version of Python."""
    if python >= (3, 12):
        return (
            f"tensorflow-addons has wheels up to Python 3.11 only, this is Python {python[0]}.{python[1]}. "
            'In an environment of Python 3.10 or 3.11: pip install "kerasvision[addons]".'
        )
    return 'tensorflow-addons is not installed: pip install "kerasvision[addons]".'


@contextmanager
def _keras_is_tf_keras() -> Iterator[None]:
    """While it lasts, imports of keras, tensorflow.keras and tensorflow find what stands on tf_keras."""
    import tensorflow as tf
    import tf_keras
    import tf_keras.api._v2.keras as public_api

    stand_in = _tensorflow_with(public_api, tf)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_alias(name)}
    for name, module in list(sys.modules.items()):
        if _is_in(name, tf_keras.__name__):
            sys.modules["keras" + name.removeprefix(tf_keras.__name__)] = module
        if _is_in(name, public_api.__name__):
            sys.modules["tensorflow.keras" + name.removeprefix(public_api.__name__)] = module
    sys.modules["tensorflow"] = stand_in
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_alias(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        sys.modules["tensorflow"] = tf


def _tensorflow_with(keras: types.ModuleType, tf: types.ModuleType) -> types.ModuleType:
    """A module like `tensorflow` whose attribute `keras` is the given one; TensorFlow stays untouched."""

    class TensorFlow(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            return getattr(tf, name)

    module = TensorFlow(tf.__name__, tf.__doc__)
    module.__dict__.update(__path__=tf.__path__, __spec__=tf.__spec__, keras=keras)
    return module


def _is_alias(name: str) -> bool:
    return _is_in(name, "keras") or _is_in(name, "tensorflow.keras")


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
