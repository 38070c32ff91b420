#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Train LeNet-5 on MNIST or Fashion-MNIST and write weights/lenet5_<dataset>.h5.

The network stays the plain one: 61,706 parameters, tanh, average pooling. What is added lives
in training only: distorted pictures, an ensemble of residual teachers whose answers the
students imitate, batch normalisation that is folded away before the file is written, and a
long cosine schedule. Sixteen students train at once, because one LeNet-5 cannot fill a GPU.

The last twelfth of the training images (5,000) is held out of every fit; recipe and seed are
chosen on it, and the test images are read once, after the choice. Keras 3 on the JAX backend.
Left out on purpose: anything that would change the exported network.

    scripts/train.py fashion_mnist          the record recipe, on a GPU
    scripts/train.py mnist --epochs 2       the same steps with small teachers, on any CPU
    scripts/train.py mnist --plain          the textbook recipe, for comparison
"""
import argparse
import gzip
import hashlib
import json
import math
import os
import platform
import struct
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Same seed, same device, same weights: without this the GPU may add in any order.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"

try:
    import absl.logging
    import h5py
    import jax
    import jax.numpy as jnp
    import keras
    import numpy as np
    from jax.scipy.ndimage import map_coordinates
    from keras import layers, ops
except ImportError as error:
    sys.exit(f"train.py: {error}; run: pip install -r scripts/requirements-train.txt")

absl.logging.set_verbosity("error")  # Keras calls .h5 legacy at each save; here it is the point


class Refusal(Exception):
    """What cannot be done, in one sentence."""


# ---------------------------------------------------------------------------------- recipes

@dataclass(frozen=True)
class Recipe:
    """Everything besides the seed that the weights depend on."""
    rotate: float = 0.0     # largest rotation, degrees
    scale: float = 0.0      # largest relative change of size, each axis on its own
    shear: float = 0.0      # largest shear, pixels a pixel
    shift: float = 0.0      # largest shift, pixels
    elastic: float = 0.0    # typical size of a smooth random displacement, pixels
    flip: bool = False      # mirror left and right, half of the time
    erase: float = 0.0      # share of pictures with a hole
    late: dict = field(default_factory=dict)     # what differs in the last third
    teacher: dict = field(default_factory=dict)  # what differs in the teachers' pictures
    teacher_late: dict = field(default_factory=dict)  # and in their last third
    teachers: int = 4
    teacher_width: int = 64
    teacher_epochs: int = 20
    teacher_decay: float = 0.02  # of their weights
    views: int = 24         # distorted copies of the training set, a third of them late ones
    students: int = 16
    epochs: int = 400
    batch: int = 256
    rate: float = 0.04      # Muon's peak learning rate, for kernels and matrices
    adam_rate: float = 0.04  # Adam's, for gains and biases
    temperature: float = 4.0
    cool: float = 1.0       # the temperature at the end


MILD = dict(rotate=4, scale=0.04, shear=0.05, shift=0.5, elastic=0.35)
WILD = dict(scale=0.08, shift=2, erase=0.5)
RECIPES = {
    # The teachers bear wilder digits than the students, who have no room to learn them too.
    # Everybody ends on milder ones, which come closest to those that will be asked.
    "mnist": Recipe(rotate=8, scale=0.08, shear=0.1, shift=1, elastic=0.7, late=MILD,
                    teacher=dict(rotate=12, scale=0.12, shear=0.15, shift=2, elastic=1.0),
                    teacher_late=MILD, teachers=6, teacher_decay=0.05, adam_rate=0.01),
    # Clothes hang straight, so they are never turned; mirrored, a shirt is a shirt. Teachers
    # of clothes stay wild: on mild pictures they would learn the labels by heart. So would the
    # students, given time: of 350 epochs the last 100 won nothing.
    "fashion_mnist": Recipe(scale=0.05, shift=1, flip=True, late=dict(scale=0.02, shift=0.5),
                            teacher=WILD, teacher_late=WILD, teacher_epochs=25, views=36,
                            epochs=150),
}
PLAIN = {"optimizer": "Adam", "rate": 1e-3, "epochs": 10, "batch": 128, "students": 1}


def small(recipe):
    """The same steps within reach of a CPU: one narrow teacher, few students."""
    return replace(recipe, teachers=1, teacher_width=8, students=min(2, recipe.students))


# ------------------------------------------------------------------------------------- data

def read_idx(path):
    """One IDX .gz file as a byte array, and the SHA-256 of its raw content."""
    try:
        raw = gzip.decompress(Path(path).read_bytes())
    except (OSError, EOFError) as error:
        raise Refusal(f"{path}: cannot be read ({error}); `make data` fetches it") from None
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    if rank not in (1, 3) or len(raw) < 4 + 4 * rank:
        raise Refusal(f"{path}: not an IDX file of bytes with one or three dimensions")
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    if len(raw) != 4 + 4 * rank + math.prod(shape):
        raise Refusal(f"{path}: {len(raw)} bytes do not fit the shape {shape} in its head")
    digest = hashlib.sha256(raw).hexdigest()
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape), digest


def read_split(folder, prefix):
    """Images [n][28][28], labels [n] and their digests; prefix is "train" or "t10k"."""
    names = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
    (images, digest0), (labels, digest1) = (read_idx(folder / f"{n}.gz") for n in names)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise Refusal(f"{folder}: images {images.shape} and labels {labels.shape} do not fit")
    if labels.size < 12 or labels.max() > 9:
        raise Refusal(f"{folder}: {prefix} needs at least 12 images with labels 0 to 9")
    return images, labels, {names[0]: digest0, names[1]: digest1}


def hold_out(images, labels):
    """(what is trained on, what every choice is made on)."""
    n = len(images) - len(images) // 12
    both = jnp.asarray(images), jnp.asarray(labels)
    return tuple(a[:n] for a in both), tuple(a[n:] for a in both)


def pixels(rows):
    """Bytes [n][28][28] to what the network eats: [n][28][28][1], 0 to 1."""
    return rows[..., None].astype(jnp.float32) / 255


# ----------------------------------------------------------------------------- augmentation

def displace(recipe, key):
    """Where each of the 28x28 points of a distorted picture comes from: [2][28][28]."""
    keys = jax.random.split(key, 6)
    draw = lambda k, n, size: jax.random.uniform(k, (n,), minval=-size, maxval=size)
    turn, = draw(keys[0], 1, math.radians(recipe.rotate))
    down, right = 1 + draw(keys[1], 2, recipe.scale)
    shear, = draw(keys[2], 1, recipe.shear)
    matrix = jnp.array([[jnp.cos(turn) * down, jnp.sin(turn) * right],
                        [shear - jnp.sin(turn) * down, jnp.cos(turn) * right]])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(28.), jnp.arange(28.), indexing="ij")) - 13.5
    where = jnp.einsum("ab,bij->aij", matrix, grid) + 13.5
    where += draw(keys[3], 2, recipe.shift)[:, None, None]
    if recipe.elastic:
        # Noise on 6x6 points, drawn out smoothly: strokes bend, they do not fray.
        noise = recipe.elastic * jax.random.normal(keys[4], (2, 6, 6))
        where += jax.image.resize(noise, (2, 28, 28), "cubic")
    if recipe.flip:
        mirror = jax.random.bernoulli(keys[5])
        where = where.at[1].set(jnp.where(mirror, 27 - where[1], where[1]))
    return where


def erase(share, key, image):
    """A black hole of 4 to 14 pixels a side, so that no single part decides."""
    place, whether = jax.random.split(key)
    top, left, height, width = jax.random.randint(
        place, (4,), jnp.array([-4, -4, 4, 4]), jnp.array([28, 28, 15, 15]))
    row, column = jnp.arange(28)[:, None], jnp.arange(28)
    hole = ((row >= top) & (row < top + height) & (column >= left) & (column < left + width))
    return jnp.where(hole & jax.random.bernoulli(whether, share), 0, image)


def distort(recipe, key, image):
    """One picture [28][28] of bytes, distorted at random; bytes again, as the engine gets."""
    moved, holed = jax.random.split(key)
    image = map_coordinates(image.astype(jnp.float32), displace(recipe, moved), order=1)
    if recipe.erase:
        image = erase(recipe.erase, holed, image)
    return jnp.rint(image).astype(jnp.uint8)


def make_view(recipe, key, images):
    """All images, each distorted afresh."""
    return jax.lax.map(lambda pair: distort(recipe, *pair),
                       (jax.random.split(key, len(images)), images), batch_size=1000)


# ---------------------------------------------------------------------------------- networks

def lenet5():
    """The network of the file. Nothing else is ever exported."""
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, padding="same", activation="tanh", name="conv1"),
        layers.AveragePooling2D(2, name="pool1"),
        layers.Conv2D(16, 5, activation="tanh", name="conv2"),
        layers.AveragePooling2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dense(120, activation="tanh", name="dense1"),
        layers.Dense(84, activation="tanh", name="dense2"),
        layers.Dense(10, name="logits"),
    ], name="lenet5")


class BandConv2D(layers.Layer):
    """Convolution as one product a row: k rows of input, side by side, times the kernel written
    out as a banded matrix. The same sums with more zeros, and faster all the same: under vmap
    a convolution turns into a grouped one with 6 or 16 channels, which suits no GPU. The kernel
    is kept as a matrix, windows by filters, because Muon takes nothing else."""

    def __init__(self, filters, size, padding="valid", dtype=None):
        super().__init__(dtype=dtype)
        self.filters, self.size, self.padding = filters, size, padding

    def build(self, shape):
        k, channels = self.size, shape[-1]
        reach = math.sqrt(6 / (k * k * (channels + self.filters)))  # Glorot's, as in Conv2D
        self.window = (k, k, channels, self.filters)
        self.kernel = self.add_weight(
            shape=(k * k * channels, self.filters), name="kernel",
            initializer=keras.initializers.RandomUniform(-reach, reach))

    def call(self, x):
        k = self.size
        if self.padding == "same":
            x = ops.pad(x, [[0, 0], [k // 2, k // 2], [k // 2, k // 2], [0, 0]])
        height, width, channels = x.shape[1:]
        rows, columns = height - k + 1, width - k + 1
        place = np.stack([np.eye(width, columns, -v) for v in range(k)])
        band = ops.einsum("vwq,uvco->uwcqo", ops.cast(place, x.dtype),
                          ops.reshape(self.kernel, self.window))
        band = ops.reshape(band, (k * width * channels, columns * self.filters))
        x = ops.reshape(x, (-1, height, width * channels))
        y = ops.matmul(ops.concatenate([x[:, u:u + rows] for u in range(k)], axis=-1), band)
        return ops.reshape(y, (-1, rows, columns, self.filters))


def student(dtype="float32"):
    """LeNet-5 as it is trained. Normalised before each tanh it bears a learning rate that
    would drive plain tanh units into saturation; fold() takes the normalisation out again."""
    def block(layer):
        return [layer, layers.BatchNormalization(momentum=0.98, dtype=dtype),
                layers.Activation("tanh", dtype=dtype)]

    return keras.Sequential([
        keras.Input((28, 28, 1)),
        *block(BandConv2D(6, 5, padding="same", dtype=dtype)),
        layers.AveragePooling2D(2, dtype=dtype),
        *block(BandConv2D(16, 5, dtype=dtype)),
        layers.AveragePooling2D(2, dtype=dtype), layers.Flatten(dtype=dtype),
        *block(layers.Dense(120, use_bias=False, dtype=dtype)),
        *block(layers.Dense(84, use_bias=False, dtype=dtype)),
        layers.Dense(10),
    ])


def teacher(width, dtype):
    """A small wide residual network: three sizes, two blocks each."""
    conv = partial(layers.Conv2D, padding="same", use_bias=False, dtype=dtype,
                   kernel_initializer="he_normal")
    ready = lambda x: layers.Activation("relu", dtype=dtype)(
        layers.BatchNormalization(dtype=dtype)(x))

    inputs = keras.Input((28, 28, 1))
    x = conv(width, 3)(inputs)
    for filters, stride in [(width, 1), (2 * width, 2), (4 * width, 2)]:
        for s in (stride, 1):
            short = x if x.shape[-1] == filters and s == 1 else conv(filters, 1, s)(x)
            x = conv(filters, 3)(ready(conv(filters, 3, s)(ready(x))))
            x = layers.Add(dtype=dtype)([short, x])
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D(dtype="float32")(ready(x)))
    return keras.Model(inputs, layers.Dense(10)(x))


def fold(trained):
    """The plain network's weights that compute what `trained` computes: a normalisation after
    a product is another product, so its gain goes into the kernel and its shift is the bias."""
    weights = []
    for layer in trained.layers:
        if isinstance(layer, BandConv2D):
            weights.append(layer.get_weights()[0].reshape(layer.window))
        elif isinstance(layer, layers.Dense):
            weights += layer.get_weights()
        elif isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = map(np.float64, layer.get_weights())
            gain = gamma / np.sqrt(variance + layer.epsilon)
            weights[-1:] = [(weights[-1] * gain).astype(np.float32),
                            (beta - mean * gain).astype(np.float32)]
    return weights


def unstack(state, plain):
    """Each student of the stack as weights of the plain network, checked against itself."""
    trained, each = student(), []
    picture = np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    with jax.default_matmul_precision("highest"):
        for n in range(len(state[0][0])):
            variables = trained.trainable_variables + trained.non_trainable_variables
            for variable, value in zip(variables, state[0] + state[1]):
                variable.assign(value[n])
            each.append(fold(trained))
            plain.set_weights(each[-1])
            gap = np.abs(np.asarray(trained(picture)) - np.asarray(plain(picture))).max()
            if not gap < 1e-3:
                raise Refusal(f"student {n}: folded and unfolded logits differ by {gap:g}")
    return each


# ---------------------------------------------------------------------------------- training

def cross_entropy(logits, target):
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def imitate(logits, target, temperature):
    """Distance to the teachers' softened answer, which also tells what a picture nearly is."""
    soft = jax.nn.softmax(target.astype(jnp.float32) / temperature)
    return cross_entropy(logits / temperature, soft)


def make_step(model, optimizer, loss_of):
    """One step of one network as a pure function of its state: what jit and vmap need. What
    follows the target, a temperature say, is passed on to the loss."""
    def loss(weights, other, x, target, *more):
        logits, other = model.stateless_call(weights, other, x, training=True)
        right = jnp.mean(logits.argmax(-1) == target.argmax(-1))
        return loss_of(logits, target, *more), (other, right)

    def step(state, x, target, *more):
        weights, other, slots = state
        (value, (other, right)), slopes = jax.value_and_grad(loss, has_aux=True)(
            weights, other, x, target, *more)
        weights, slots = optimizer.stateless_apply(slots, slopes, weights)
        return (weights, other, slots), (value, right)
    return step


def make_epoch(step, batch):
    """One pass over the images in a random order. On a GPU it is one compiled loop, as Python
    queues steps slower than the device does them; on a CPU a compiled loop would be slow."""
    @partial(jax.jit, donate_argnums=0)
    def take(state, images, targets, rows, *more):
        return jax.lax.scan(
            lambda state, r: step(state, pixels(images[r]), targets[r], *more), state, rows)

    def epoch(state, images, targets, key, *more):
        order = np.asarray(jax.random.permutation(key, len(images)))
        size, seen = min(batch, len(order)), []
        rows = order[:len(order) // size * size].reshape(-1, size)
        for some in [rows] if on_gpu() else rows[:, None]:
            state, now = take(state, images, targets, some, *more)
            seen.append(now)
        return state, np.concatenate(jax.device_get(seen), axis=1).mean(1)
    return epoch


def cosine(rate, epochs, images, batch):
    """Warm up for a twentieth of the way, then down to zero along a cosine."""
    steps = epochs * max(1, images // batch)
    warm = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)


def is_late(epoch, epochs):
    """The last third: the rate is low, and the pictures come closer to those of the test."""
    return 3 * epoch >= 2 * epochs


def stack(model_of, optimizer, seeds):
    """The states of several networks, each made from its own seed, stacked on a new axis."""
    states = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        model = model_of()
        optimizer.build(model.trainable_variables)
        states.append(tuple([v.value for v in group] for group in (
            model.trainable_variables, model.non_trainable_variables, optimizer.variables)))
    return model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def answer(look, state, images):
    """look(state, some images) for all images, a thousand at a time."""
    parts = [look(state, images[at:at + 1000]) for at in range(0, len(images), 1000)]
    return jnp.concatenate(parts, axis=-2)


def progress(title, done, total, start, text=""):
    """A bar on a terminal, ten lines elsewhere."""
    live = sys.stderr.isatty()
    if not live and done != total and done % max(1, total // 10):
        return
    bar = "#" * (24 * done // total)
    end = "\n" if done == total or not live else ""
    print(f"{chr(13) * live}{title} [{bar:<24}] {done}/{total} {text} "
          f"{time.time() - start:.0f} s", end=end, file=sys.stderr, flush=True)


def on_gpu():
    return jax.default_backend() == "gpu"


def make_teachers(recipe, seed, train, valid):
    """The ensemble: residual networks one after the other, on labels. Returns a function from
    bytes to the mean of their logits, and their accuracy on the held-out images."""
    images, labels = train
    optimizer = keras.optimizers.AdamW(
        cosine(2e-3, recipe.teacher_epochs, len(images), 256),
        weight_decay=recipe.teacher_decay)
    seeds = [1000 * (seed + 1) + n for n in range(recipe.teachers)]
    dtype = "mixed_bfloat16" if on_gpu() else "float32"
    model, states = stack(lambda: teacher(recipe.teacher_width, dtype), optimizer, seeds)
    epoch = make_epoch(make_step(model, optimizer, cross_entropy), 256)
    look = jax.jit(lambda state, rows: model.stateless_call(*state, pixels(rows))[0])
    early, late = (jax.jit(partial(make_view, replace(recipe, **change)))
                   for change in (recipe.teacher, recipe.teacher_late))
    # Labels as they are: smoothed ones make teachers tell less of what a picture nearly is.
    targets = jax.nn.one_hot(labels, 10)
    done, right = [], []
    for n, own in enumerate(seeds):
        state = jax.tree.map(lambda leaf: leaf[n], states)
        key, start = jax.random.key(own), time.time()
        for e in range(recipe.teacher_epochs):
            key, one, two = jax.random.split(key, 3)
            draw = late if is_late(e, recipe.teacher_epochs) else early
            state, (loss, hit) = epoch(state, draw(one, images), targets, two)
            progress(f"teacher {n + 1}", e + 1, recipe.teacher_epochs, start,
                     f"loss {loss:.4f} accuracy {100 * hit:.2f} %")
        done.append(state[:2])
        right.append(float((answer(look, done[-1], valid[0]).argmax(-1) == valid[1]).mean()))
    return lambda rows: sum(answer(look, state, rows) for state in done) / len(done), right


def make_views(recipe, seed, images, teachers):
    """The students' diet, early and late: distorted copies of the training set with the
    teachers' answers. Made once and kept: asking the teachers costs more than training."""
    early, late = (jax.jit(partial(make_view, r))
                   for r in (recipe, replace(recipe, **recipe.late)))
    views, start = [], time.time()
    for n, key in enumerate(jax.random.split(jax.random.key(seed), recipe.views)):
        view = (late if is_late(n, recipe.views) else early)(key, images)
        views.append((view, teachers(view).astype(jnp.float16)))
        progress("views", n + 1, recipe.views, start)
    turn = next(n for n in range(recipe.views + 1) if is_late(n, recipe.views))
    return views[:turn], views[turn:] or views


def temperature(recipe, epoch):
    """Level for the first half; then it falls by the same factor each epoch. A warm answer
    tells how digits resemble each other, a cold one only where they part, which counts."""
    share = max(0, 2 * epoch / recipe.epochs - 1)
    return recipe.temperature * (recipe.cool / recipe.temperature) ** share


def train_students(recipe, seeds, views, valid):
    """All students at once, on the same batches; returns their states and the curves: for each
    epoch loss, agreement with the teachers and held-out accuracy of each student."""
    # Muon turns the step of a matrix so that all its directions move alike. In trials it ended
    # 0.1 to 0.3 points above Adam on the held-out clothes, for kernels too.
    optimizer = keras.optimizers.Muon(
        cosine(recipe.rate, recipe.epochs, len(views[0][0][0]), recipe.batch),
        adam_lr_ratio=recipe.adam_rate / recipe.rate,
        weight_decay=None, adam_weight_decay=None)
    dtype = "mixed_bfloat16" if on_gpu() else "float32"
    model, state = stack(lambda: student(dtype), optimizer, seeds)
    step = make_step(model, optimizer, imitate)
    epoch = make_epoch(jax.vmap(step, in_axes=(0, None, None, None)), recipe.batch)
    look = jax.jit(jax.vmap(
        lambda state, rows: model.stateless_call(*state, pixels(rows))[0], (0, None)))
    key, start, curves = jax.random.key(seeds[0]), time.time(), []
    for e in range(recipe.epochs):
        key, one = jax.random.split(key)
        diet = views[is_late(e, recipe.epochs)]
        state, (loss, agree) = epoch(state, *diet[e % len(diet)], one, temperature(recipe, e))
        held = np.asarray((answer(look, state[:2], valid[0]).argmax(-1) == valid[1]).mean(-1))
        curves.append([loss, agree, held])
        progress(f"{len(seeds)} students", e + 1, recipe.epochs, start,
                 f"loss {loss.mean():.4f} accuracy {100 * agree.mean():.2f} % "
                 f"held out {100 * held.mean():.2f} %")
    return state, np.array(curves).transpose(2, 1, 0)  # [student][what][epoch]


def train_record(recipe, seed, train, valid, plain):
    """The record recipe: weights and curves of each student, and what to report of teachers."""
    teachers, right = make_teachers(recipe, seed, train, valid)
    together = float((teachers(valid[0]).argmax(-1) == valid[1]).mean())
    print("teachers, held out:", *(f"{100 * r:.2f} %" for r in right),
          f"together {100 * together:.2f} %", file=sys.stderr)
    views = make_views(recipe, seed, train[0], teachers)
    seeds = range(seed, seed + recipe.students)
    state, curves = train_students(recipe, list(seeds), views, valid)
    return unstack(state, plain), curves, {"each": right, "together": together}


def train_plain(recipe, seed, train, valid, plain):
    """The textbook recipe: Adam, no distortion, no teacher; once for each seed."""
    each, curves = [], []
    for own in range(seed, seed + recipe["students"]):
        keras.utils.set_random_seed(own)
        model = lenet5()
        model.compile(optimizer=keras.optimizers.Adam(recipe["rate"]), metrics=["accuracy"],
                      loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        past = model.fit(pixels(train[0]), train[1], batch_size=recipe["batch"],
                         epochs=recipe["epochs"], validation_data=(pixels(valid[0]), valid[1]),
                         verbose=1 if sys.stderr.isatty() else 2).history
        each.append(model.get_weights())
        curves.append([past["loss"], past["accuracy"], past["val_accuracy"]])
    return each, np.array(curves), None


# ------------------------------------------------------------------------------- the outcome

def judge(plain, each, images, labels):
    """Right answers and mean loss of each student, and their guesses [student][image]."""
    look = jax.jit(lambda weights, rows: plain.stateless_call(weights, [], pixels(rows))[0])
    with jax.default_matmul_precision("highest"):  # as the file will be run, not as trained
        logits = [answer(look, weights, images) for weights in each]
    guesses = np.array([z.argmax(-1) for z in logits])
    losses = [float(cross_entropy(z, jax.nn.one_hot(labels, 10))) for z in logits]
    return (guesses == np.asarray(labels)).sum(-1).tolist(), losses, guesses


def choose(recipe, plain, each, valid):
    """Which student has most right of the held-out images and of sixteen mildly distorted
    copies of them: the 5,000 alone tell students apart by luck more than by merit."""
    images, labels = valid
    pictures = [images]
    if isinstance(recipe, Recipe):
        pictures += [make_view(replace(recipe, **recipe.late), key, images)
                     for key in jax.random.split(jax.random.key(0), 16)]
    right, losses, _ = judge(plain, each, jnp.concatenate(pictures),
                             jnp.tile(labels, len(pictures)))
    return min(range(len(each)), key=lambda n: (-right[n], losses[n]))


def wilson(right, n, z=1.959964):
    """The 95 % interval of a share of n."""
    share, spread = right / n, z * z / n
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return [(share + spread / 2 + side) / (1 + spread) for side in (-half, half)]


def summary(right, losses, chosen, n):
    """Accuracy of the chosen student and of all, in per cent."""
    each = [100 * r / n for r in right]
    return {"images": n, "right": right[chosen], "accuracy": each[chosen],
            "interval": [100 * w for w in wilson(right[chosen], n)], "loss": losses[chosen],
            "mean": float(np.mean(each)), "deviation": float(np.std(each, ddof=len(each) > 1)),
            "each": each}


def draw(path, title, curves, confusion):
    """Loss, accuracy and confusion matrix of the chosen student."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4))
    epochs = np.arange(1, curves.shape[1] + 1)
    left.plot(epochs, curves[0], lw=1)
    left.set(title=f"{title}: loss", xlabel="epoch")
    middle.plot(epochs, 100 * curves[1], lw=1, label="training pictures")
    middle.plot(epochs, 100 * curves[2], lw=1, label="held-out images")
    floor = 100 * np.quantile(curves[1:], 0.1) - 1
    middle.set(title="accuracy, %", xlabel="epoch", ylim=(floor, 100.2))
    middle.legend(loc="lower right")
    right.imshow(np.log1p(confusion), cmap="Blues")
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            right.text(column, row, count, ha="center", va="center", fontsize=7,
                       color="white" if row == column else "black")
    right.set(title="test images", xlabel="answer", ylabel="label", xticks=range(10),
              yticks=range(10))
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def versions():
    return {"python": platform.python_version(), "keras": keras.__version__,
            "jax": jax.__version__, "numpy": np.__version__, "h5py": h5py.__version__,
            "device": jax.devices()[0].device_kind}


def save(path, plain, attributes):
    """Keras' own whole-model .h5 and, in its root, where it comes from; whole or not at all."""
    partial_path = path.with_name(f".{path.stem}.partial.h5")
    plain.save(partial_path, include_optimizer=False)
    with h5py.File(partial_path, "r+") as file:
        for name, value in attributes.items():
            text = value if isinstance(value, str) else json.dumps(value)
            file.attrs[f"lenet5_{name}"] = text
    partial_path.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remember(path, name, outcome):
    """Add one outcome to results.json beside the weights; the model card is made from it."""
    past = json.loads(path.read_text()) if path.exists() else {}
    past[name] = outcome
    path.write_text(json.dumps(dict(sorted(past.items())), indent=1) + "\n")


# --------------------------------------------------------------------------------------- run

def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda text: parser.exit(2, f"train.py: {text}; see train.py --help\n")
    parser.add_argument("dataset", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, default=Path("fashion_mnist/data"), metavar="DIR",
                        help="folder with mnist/ and fashion_mnist/ (fashion_mnist/data)")
    parser.add_argument("--out", type=Path, default=Path("weights"), metavar="DIR",
                        help="where the results go (weights)")
    parser.add_argument("--plain", action="store_true", help="the textbook recipe instead")
    parser.add_argument("--epochs", type=int, metavar="N", help="fewer or more than the recipe")
    parser.add_argument("--students", type=int, metavar="N", help="how many seeds to train")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    options = parser.parse_args(arguments)
    for name in ("epochs", "students"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.seed < 0:
        parser.error("--seed must not be negative")
    return options


def recipe_for(options):
    """The recipe of the table with what the command line and the machine change."""
    wanted = {name: getattr(options, name) for name in ("epochs", "students")
              if getattr(options, name) is not None}
    if options.plain:
        return PLAIN | wanted
    recipe = replace(RECIPES[options.dataset], **wanted)
    if not on_gpu():
        if options.epochs is None:
            raise Refusal("the record recipe needs a GPU that JAX can use; without one, "
                          "try --epochs 2 or --plain")
        recipe = small(recipe)
    if options.epochs is not None:
        recipe = replace(recipe, views=min(recipe.views, recipe.epochs),
                         teacher_epochs=min(recipe.teacher_epochs, recipe.epochs))
    return recipe


def run(options):
    start, name = time.time(), options.dataset + ("_plain" if options.plain else "")
    path = options.out / f"lenet5_{name}.h5"
    if path.exists() and not options.force:
        raise Refusal(f"{path} exists; --force overwrites it")
    recipe = recipe_for(options)
    folder = options.data / options.dataset
    images, labels, digests = read_split(folder, "train")
    options.out.mkdir(parents=True, exist_ok=True)
    train, valid = hold_out(images, labels)

    plain = lenet5()
    each, curves, teachers = (train_plain if options.plain else train_record)(
        recipe, options.seed, train, valid, plain)
    held, losses, _ = judge(plain, each, *valid)
    chosen = choose(recipe, plain, each, valid)
    outcome = {"dataset": options.dataset, "plain": options.plain,
               "recipe": recipe if options.plain else asdict(recipe),
               "seed": options.seed + chosen,
               "seeds": list(range(options.seed, options.seed + len(each))),
               "trained_on": len(train[0]), "teachers": teachers,
               "held_out": summary(held, losses, chosen, len(valid[0]))}

    # The choice is made. Only now are the test images read.
    test_images, test_labels, more = read_split(folder, "t10k")
    right, losses, guesses = judge(plain, each, jnp.asarray(test_images), test_labels)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test_labels, guesses[chosen]), 1)
    plain.set_weights(each[chosen])
    outcome |= {"test": summary(right, losses, chosen, len(test_images)),
                "confusion": confusion.tolist(), "versions": versions(),
                "data_sha256": digests | more, "seconds": round(time.time() - start)}
    kept = {key: outcome[key] for key in ("dataset", "recipe", "seed", "versions", "data_sha256")}
    kept["accuracy"] = outcome["held_out"]["accuracy"] / 100  # the record that a blob carries
    outcome["file_sha256"] = save(path, plain, kept)
    draw(options.out / f"{name}_training.png", options.dataset, curves[chosen], confusion)
    remember(options.out / "results.json", name, outcome)
    report(path, outcome)


def report(path, outcome):
    for which in ("held_out", "test"):
        s = outcome[which]
        low, high = s["interval"]
        print(f"{which:8} {s['accuracy']:.2f} % of {s['images']} (95 %: {low:.2f} to "
              f"{high:.2f}); {len(s['each'])} seeds: mean {s['mean']:.3f}, deviation "
              f"{s['deviation']:.3f}, {min(s['each']):.2f} to {max(s['each']):.2f}")
    print(f"{path}: seed {outcome['seed']}, {outcome['seconds']} s")


def main(arguments=None):
    try:
        run(parse(arguments))
    except (Refusal, OSError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("train.py: interrupted; nothing was written")


if __name__ == "__main__":
    main()
