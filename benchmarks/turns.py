"""Whoever is compared takes turns in one process, so that what else the machine does falls on all alike."""

import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasvision.export.engines import open_engine
from kerasvision.export.samples import synthetic_images

WARM_UP = 5


def take_turns(timers: Mapping[str, Callable[[], float]], runs: int, warm_up: int = WARM_UP) -> dict[str, np.ndarray]:
    """Milliseconds of each run, [runs] for each name.

    Args:
        timers: name -> runs once, and returns the seconds it took.
        runs: of each.
        warm_up: runs before those.
    """
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(warm_up + runs):
        for name, timer in timers.items():
            elapsed = timer()
            if turn >= warm_up:
                seconds[name].append(elapsed)
    return {name: 1000 * np.array(values) for name, values in seconds.items()}


def timer_of(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """What runs once and returns the seconds it took, by a clock; `time.process_time` counts all threads."""

    def once() -> float:
        start = clock()
        run()
        return clock() - start

    return once


def timer_of_file(path: Path, threads: int) -> Callable[[], float]:
    """What runs a model file on one image and returns the seconds it took."""
    engine = open_engine(path, threads)
    image = synthetic_images(1, engine.input_shape)

    def once() -> float:
        engine.time_once(image)  # Brings its weights back into the processor's cache.
        return engine.time_once(image)

    return once


def time_files(files: Mapping[str, Path], runs: int, warm_up: int, threads: int) -> dict[str, np.ndarray]:
    """Milliseconds of each run of model files on one image, [runs] for each name."""
    return take_turns({name: timer_of_file(path, threads) for name, path in files.items()}, runs, warm_up)


def train_in_turns(trainings: Sequence[tuple[keras.Model, Any]], steps: int, warm_up: int = WARM_UP) -> np.ndarray:
    """Milliseconds of each step of `fit`, [trainings, steps]; another training takes over after every step.

    Args:
        trainings: two compiled models, each with a data set of batches that repeats itself.
        steps: of each model.
        warm_up: steps before those: the step is traced, and TensorFlow optimizes it.
    """

    def train(model: keras.Model, dataset: Any, steps: int, callbacks: list[keras.callbacks.Callback]) -> None:
        model.fit(dataset, steps_per_epoch=steps, shuffle=False, callbacks=callbacks, verbose=0)

    for model, dataset in trainings:
        train(model, dataset, warm_up, [])
    first, second = threading.Semaphore(1), threading.Semaphore(0)
    turns = [Turns(first, second), Turns(second, first)]
    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(train, model, dataset, steps, [own])
            for (model, dataset), own in zip(trainings, turns, strict=True)
        ]
        for future, own in zip(running, turns, strict=True):
            # An error in one would leave the other waiting for its turn.
            future.add_done_callback(lambda _, own=own: own.leave(steps))
    for future in running:
        future.result()
    return np.array([1000 * np.array(own.seconds) for own in turns])


class Turns(keras.callbacks.Callback):
    """Hands over to another training after each step, and times its own steps."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore) -> None:
        super().__init__()
        self.mine, self.other = mine, other
        self.seconds: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._take()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        self.other.release()
        self._take()

    def leave(self, steps: int) -> None:
        self.other.release(steps)

    def _take(self) -> None:
        self.mine.acquire()
        self._start = time.perf_counter()


def processor() -> str:
    """What it is called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0]}" if models else platform.processor()
