#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What scripts/train.py promises: the banded convolution is a convolution, folding changes
nothing, the exported file is the plain network and says where it is from, the same seed gives
the same weights, and mistakes are refused in one sentence without touching a file.

Runs on a CPU in about two minutes, on made-up images: `python3 tests/test_train.py`. Left out:
how well anything learns; the model card has that.
"""
import contextlib
import gzip
import io
import struct
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import train  # noqa: E402
import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402


def write_idx(path, array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def make_data(folder, count):
    """Random images with random labels, as the four files of a data set."""
    random = np.random.default_rng(1)
    (folder / "mnist").mkdir(parents=True)
    for prefix in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(folder / "mnist" / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / "mnist" / f"{prefix}-labels-idx1-ubyte.gz",
                  random.integers(0, 10, count, np.uint8))


def outcome(*arguments):
    """Exit code and stderr of one run."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            train.main(list(map(str, arguments)))
        except SystemExit as end:
            if isinstance(end.code, str):
                return 1, end.code
            return end.code, err.getvalue().strip()
    return 0, err.getvalue()


def randomise(model):
    """Weights without symmetry; what must be positive, a variance, stays so."""
    random = np.random.default_rng(2)
    model.set_weights([random.uniform(0.2, 1.0, w.shape) * (1 if w.ndim == 1 else
                       random.choice([-0.3, 0.3], w.shape)) for w in model.get_weights()])


class Networks(unittest.TestCase):
    def test_band_is_convolution(self):
        for border, size, channels, filters in [("same", 28, 1, 6), ("valid", 14, 6, 16)]:
            x = np.random.default_rng(3).normal(size=(3, size, size, channels)).astype("f")
            band = train.BandConv2D(filters, 5, padding=border)
            plain = keras.layers.Conv2D(filters, 5, padding=border, use_bias=False)
            y, z = np.asarray(band(x)), np.asarray(plain(x))
            self.assertGreater(np.abs(y - z).max(), 0.1)  # other weights, other answer
            plain.set_weights([band.get_weights()[0].reshape(band.window)])
            np.testing.assert_allclose(y, np.asarray(plain(x)), atol=1e-5)

    def test_fold_changes_nothing(self):
        trained, plain = train.student(), train.lenet5()
        randomise(trained)
        plain.set_weights(train.fold(trained))
        x = np.random.default_rng(4).random((5, 28, 28, 1), np.float32)
        y = np.asarray(trained(x, training=False))
        np.testing.assert_allclose(y, np.asarray(plain(x)), atol=1e-4)
        self.assertGreater(np.ptp(y), 0.1)
        self.assertEqual(plain.count_params(), 61706)

    def test_one_loop_is_many_steps(self):
        images = np.random.default_rng(5).integers(0, 256, (40, 28, 28), np.uint8)
        targets, past = np.arange(40.0, dtype=np.float32), []
        step = lambda state, x, target, share: (
            0.5 * state + share * x.mean() * target[0], (x.sum(), target.max() + state))
        for gpu in (False, True):
            with mock.patch.object(train, "on_gpu", lambda: gpu):
                epoch = train.make_epoch(step, 16)
                state, seen = epoch(train.jnp.ones(()), images, targets,
                                    train.jax.random.key(6), 0.3)
            past.append([float(state), *seen])
        np.testing.assert_allclose(*past, rtol=1e-5)
        self.assertEqual(seen.shape, (2,))

    def test_two_halves_of_a_recipe(self):
        recipe = replace(train.RECIPES["mnist"], views=6, epochs=100)
        images = np.random.default_rng(7).integers(0, 256, (1000, 28, 28), np.uint8)
        teachers = lambda rows: train.jnp.zeros((len(rows), 10))
        early, late = train.make_views(recipe, 0, images, teachers)
        self.assertEqual((len(early), len(late)), (4, 2))
        change = [np.abs(np.asarray(v[0], float) - images).mean() for v in (early[0], late[0])]
        self.assertGreater(change[0], change[1])  # late pictures are closer to the originals
        early, late = train.make_views(replace(recipe, views=1), 0, images, teachers)
        self.assertIs(early[0], late[0])
        warm = [train.temperature(recipe, e) for e in range(100)]
        self.assertEqual(set(warm[:51]), {recipe.temperature})
        self.assertTrue(all(a > b for a, b in zip(warm[50:], warm[51:])))
        self.assertAlmostEqual(warm[99], recipe.cool, 1)

    def test_wilson(self):
        self.assertAlmostEqual(train.wilson(9920, 10000)[0], 0.99005, 4)
        self.assertAlmostEqual(train.wilson(9920, 10000)[1], 0.99357, 4)


class Runs(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        make_data(self.folder / "data", 120)

    def train(self, out, *more):
        return outcome("mnist", "--data", self.folder / "data", "--out", self.folder / out,
                       *more)

    def test_record_recipe_in_small(self):
        tiny = replace(train.RECIPES["mnist"], batch=32, students=2)
        with mock.patch.dict(train.RECIPES, mnist=tiny), \
                mock.patch.object(train, "small", lambda r: replace(r, teachers=1,
                                                                    teacher_width=2)):
            for out in ("a", "b"):
                code, text = self.train(out, "--epochs", 1)
                self.assertEqual(code, 0, text)
        first, second = (self.folder / out / "lenet5_mnist.h5" for out in ("a", "b"))
        self.assertEqual(*(keras_weights(path) for path in (first, second)))
        with h5py.File(first) as file:
            self.assertEqual(file.attrs["lenet5_dataset"], "mnist")
            for name in ("recipe", "seed", "versions", "data_sha256"):
                self.assertIn(f"lenet5_{name}", file.attrs)
            self.assertIn("model_config", file.attrs)
            self.assertNotIn("optimizer_weights", file)

    def test_what_exists_is_kept(self):
        (self.folder / "c").mkdir()
        path = self.folder / "c" / "lenet5_mnist.h5"
        path.write_bytes(b"mine")
        code, text = self.train("c", "--epochs", 1)
        self.assertEqual((code, path.read_bytes()), (1, b"mine"))
        self.assertIn("--force", text)

    def test_refusals(self):
        for code, words, arguments in [
                (2, "invalid choice: 'cifar'", ["cifar"]),
                (2, "--epochs must be at least 1", ["mnist", "--epochs", 0]),
                (2, "expected one argument", ["mnist", "--data"]),
                (1, "make data", ["mnist", "--epochs", 1, "--data", self.folder / "none"]),
                (1, "needs a GPU", ["mnist", "--data", self.folder / "data"])]:
            with mock.patch.object(train, "on_gpu", lambda: False):
                got, text = outcome(*arguments, "--out", self.folder / "d")
            self.assertEqual(got, code, text)
            self.assertIn(words, text)
            self.assertEqual(text.count("\n"), 0, text)
            self.assertFalse((self.folder / "d").exists())

    def test_broken_idx(self):
        path = self.folder / "x.gz"
        whole = gzip.decompress(
            (self.folder / "data/mnist/train-labels-idx1-ubyte.gz").read_bytes())
        for raw in (whole[:-1], whole + b"x", whole[:6], b"", b"\0\0\x0d" + whole[3:]):
            path.write_bytes(gzip.compress(raw))
            self.assertRaises(train.Refusal, train.read_idx, path)
        path.write_bytes(whole)
        self.assertRaises(train.Refusal, train.read_idx, path)


def keras_weights(path):
    return [w.tobytes() for w in keras.models.load_model(path, compile=False).get_weights()]


if __name__ == "__main__":
    unittest.main()
