#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Train LeNet-5 on MNIST or Fashion-MNIST and write weights/lenet5_<dataset>.h5.

The network stays the plain one: 61,706 parameters, tanh, average pooling. What is added lives
in training only: distorted images, an ensemble of residual teachers whose answers the students
imitate, batch normalisation that is folded away before the file is written, and a long cosine
schedule. Sixteen students train at once because one LeNet-5 cannot fill a GPU.

Keras 3 on the JAX backend. The last 5,000 training images are held out of every fit; the seed
is chosen on them, and the test images are read once, after that. Left out on purpose: anything
that would change the exported network, and any choice made on the test set.

    scripts/train.py fashion_mnist            the record recipe, on a GPU
    scripts/train.py mnist --epochs 2         the same steps, small enough for a CPU
    scripts/train.py mnist --plain            the textbook recipe, for comparison
"""
import argparse
import gzip
import hashlib
import json
import math
import os
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Same seed, same device, same weights: without this the GPU may add in any order.
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "")
                           + " --xla_gpu_deterministic_ops=true").strip()

import h5py
import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.scipy.ndimage import map_coordinates
from keras import layers, ops

HELD_OUT = 5000  # the last training images: every choice is made on them


class Refusal(Exception):
    """A mistake of the caller, told in one sentence."""


# ---------------------------------------------------------------------------------- recipes

@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on besides the seed."""
    rotate: float = 0.0     # largest rotation, degrees
    scale: float = 0.0      # largest relative change of size, each axis on its own
    shear: float = 0.0      # largest horizontal shear, pixels a pixel
    shift: float = 0.0      # largest shift, pixels
    elastic: float = 0.0    # typical size of a smooth random displacement, pixels
    flip: bool = False      # mirror left and right
    mix: float = 0.0        # share of pictures that are a blend of two
    teachers: int = 3
    teacher_epochs: int = 30
    teacher_rate: float = 2e-3
    views: int = 64         # distorted copies of the training set that the students see
    epochs: int = 600
    batch: int = 512
    rate: float = 1e-2      # Adam's peak learning rate
    temperature: float = 4.0
    norm: bool = True       # batch normalisation while training


RECIPES = {
    "mnist": Recipe(rotate=12, scale=0.12, shear=0.15, shift=2, elastic=1.0),
    "fashion_mnist": Recipe(scale=0.05, shift=1, flip=True),
}


# ------------------------------------------------------------------------------------- data

def read_idx(path):
    """One IDX .gz file as a byte array, and the SHA-256 of its raw content."""
    try:
        raw = gzip.decompress(Path(path).read_bytes())
    except (OSError, EOFError) as error:
        raise Refusal(f"{path}: cannot read ({error}); `make data` fetches the data") from None
    rank = raw[3] if len(raw) > 4 and raw[:3] == b"\0\0\x08" else 0
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
    if labels.size == 0 or labels.max() > 9:
        raise Refusal(f"{folder}: {prefix} labels must be 0 to 9")
    return images, labels, {names[0]: digest0, names[1]: digest1}


# ----------------------------------------------------------------------------- augmentation

def distort(recipe, key, image):
    """One image [28][28] of bytes, distorted at random: affine, then elastic, then mirrored."""
    keys = jax.random.split(key, 6)
    uniform = lambda k, n, size: jax.random.uniform(k, (n,), minval=-size, maxval=size)
    turn = uniform(keys[0], 1, math.radians(recipe.rotate))[0]
    sy, sx = 1 + uniform(keys[1], 2, recipe.scale)
    shear, = uniform(keys[2], 1, recipe.shear)
    matrix = jnp.array([[jnp.cos(turn) * sy, jnp.sin(turn) * sx],
                        [-jnp.sin(turn) * sy + shear, jnp.cos(turn) * sx]])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(28.), jnp.arange(28.), indexing="ij")) - 13.5
    where = jnp.einsum("ab,bij->aij", matrix, grid) + 13.5
    where += uniform(keys[3], 2, recipe.shift)[:, None, None]
    if recipe.elastic:
        # Noise on 6x6 points, drawn out smoothly: strokes bend, they do not fray.
        noise = recipe.elastic * jax.random.normal(keys[4], (2, 6, 6))
        where += jax.image.resize(noise, (2, 28, 28), "cubic")
    if recipe.flip:
        left = jax.random.bernoulli(keys[5])
        where = where.at[1].set(jnp.where(left, 27 - where[1], where[1]))
    return jnp.rint(map_coordinates(image.astype(jnp.float32), where, order=1)).astype(jnp.uint8)


def make_view(recipe, key, images):
    """The whole training set, distorted afresh; also which partner was blended in, how much."""
    key, pair, share, blend = jax.random.split(key, 4)
    keys = jax.random.split(key, len(images))
    view = jax.lax.map(lambda pair: distort(recipe, *pair), (keys, images), batch_size=1000)
    partner = jax.random.permutation(pair, len(images))
    weight = jax.random.uniform(blend, (len(images),), minval=0.0, maxval=0.5)
    weight *= jax.random.bernoulli(share, recipe.mix, (len(images),))
    w = weight[:, None, None]
    return jnp.rint((1 - w) * view + w * view[partner]).astype(jnp.uint8), partner, weight


# ---------------------------------------------------------------------------------- networks

def lenet5():
    """The network of the file. 61,706 parameters; nothing else is ever exported."""
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, padding="same", activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(16, 5, activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(120, activation="tanh"),
        layers.Dense(84, activation="tanh"),
        layers.Dense(10),
    ], name="lenet5")


class PatchConv2D(layers.Conv2D):
    """Conv2D as 25 shifted copies times a matrix: the same sums. Under vmap that is one
    batched product, where a convolution would become a slow grouped one."""

    def call(self, x):
        k = self.kernel_size[0]
        if self.padding == "same":
            x = ops.pad(x, [[0, 0], [k // 2, k // 2], [k // 2, k // 2], [0, 0]])
        rows, columns = x.shape[1] - k + 1, x.shape[2] - k + 1
        patches = ops.concatenate([x[:, u:u + rows, v:v + columns]
                                   for u in range(k) for v in range(k)], axis=-1)
        y = ops.matmul(patches, ops.reshape(self.kernel, (-1, self.filters)))
        return y + self.bias if self.use_bias else y


def student(norm):
    """LeNet-5 as it is trained: with batch normalisation before each tanh, if asked for."""
    def block(layer):
        return [layer] + [layers.BatchNormalization()] * 0 if not norm else [
            layer, layers.BatchNormalization(momentum=0.98)]
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        *block(PatchConv2D(6, 5, padding="same", use_bias=not norm)),
        layers.Activation("tanh"), layers.AveragePooling2D(2),
        *block(PatchConv2D(16, 5, use_bias=not norm)),
        layers.Activation("tanh"), layers.AveragePooling2D(2), layers.Flatten(),
        *block(layers.Dense(120, use_bias=not norm)), layers.Activation("tanh"),
        *block(layers.Dense(84, use_bias=not norm)), layers.Activation("tanh"),
        layers.Dense(10),
    ])


def fold(trained):
    """The plain network that computes what `trained` computes: normalisation becomes weights."""
    weights, kernel = [], None
    for layer in trained.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            kernel = np.array(layer.kernel)
            weights += [kernel, np.array(layer.bias) if layer.use_bias else None]
        elif isinstance(layer, layers.BatchNormalization):
            gain = np.array(layer.gamma) / np.sqrt(np.array(layer.moving_variance)
                                                   + layer.epsilon)
            weights[-2:] = [kernel * gain,
                            np.array(layer.beta) - np.array(layer.moving_mean) * gain]
    plain = lenet5()
    plain.set_weights(weights)
    return plain


def teacher(width=48):
    """A small wide residual network: three sizes, two blocks each, about 1.2 M parameters."""
    def unit(x, filters, stride=1):
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        return layers.Conv2D(filters, 3, stride, padding="same", use_bias=False,
                             kernel_initializer="he_normal")(x)

    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs)
    for filters, stride in [(width, 1), (2 * width, 2), (4 * width, 2)]:
        for first in (True, False):
            s = stride if first else 1
            short = x if not first else layers.Conv2D(filters, 1, s, use_bias=False)(x)
            x = layers.add([short, unit(unit(x, filters, s), filters)])
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, dtype="float32")(x))


# ---------------------------------------------------------------------------------- training

def pixels(rows):
    """Bytes [n][28][28] to what the network eats: [n][28][28][1], 0 to 1."""
    return rows[..., None].astype(jnp.float32) / 255


def cross_entropy(logits, target):
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def make_step(model, optimizer, loss_of):
    """One step of one network as a pure function of its state: what jit and vmap need."""
    def loss(weights, other, x, target):
        logits, other = model.stateless_call(weights, other, x, training=True)
        right = jnp.mean(logits.argmax(-1) == target.argmax(-1))
        return loss_of(logits, target), (other, right)

    def step(state, x, target):
        weights, other, slots = state
        (value, (other, right)), slopes = jax.value_and_grad(loss, has_aux=True)(
            weights, other, x, target)
        weights, slots = optimizer.stateless_apply(slots, slopes, weights)
        return (weights, other, slots), (value, right)
    return step


def make_epoch(step, batch):
    """All batches of one epoch in one compiled loop, in a random order."""
    def epoch(state, images, targets, key):
        steps = len(images) // batch
        order = jax.random.permutation(key, len(images))[:steps * batch]
        state, seen = jax.lax.scan(
            lambda state, rows: step(state, pixels(images[rows]), targets[rows]),
            state, order.reshape(steps, batch))
        return state, jax.tree.map(lambda m: m.mean(0), seen)
    return jax.jit(epoch, donate_argnums=0)


def cosine(rate, epochs, images, batch):
    """Warm up for a twentieth of the way, then down to zero along a cosine."""
    steps = epochs * (images // batch)
    warm = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)


def state_of(model, optimizer):
    return tuple([v.value for v in group] for group in (
        model.trainable_variables, model.non_trainable_variables, optimizer.variables))


def stack(model_of, optimizer, seeds):
    """The states of several networks, each made from its own seed, stacked on a new axis."""
    states = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        model = model_of()
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        states.append(state_of(model, optimizer))
    return model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def logits_of(model, state, images, batch=1000):
    """What a network (not a stack) answers, without training anything."""
    weights, other = state[:2]
    one = lambda row: model.stateless_call(weights, other, pixels(row[None]))[0][0]
    return jax.lax.map(one, images, batch_size=min(batch, len(images)))


def progress(title, done, total, start, text):
    """A bar on a terminal, a line now and then elsewhere."""
    live = sys.stderr.isatty()
    if not live and done != total and done % max(1, total // 10):
        return
    bar = "#" * (24 * done // total)
    print(f"{chr(13) if live else ''}{title} [{bar:<24}] {done}/{total} {text} "
          f"{time.time() - start:.0f} s", end="\n" if done == total or not live else "",
          file=sys.stderr, flush=True)


def train_teacher(recipe, seed, images, labels, valid):
    """One teacher on hard labels; returns a compiled function from bytes to logits."""
    keras.utils.set_random_seed(seed)
    gpu = jax.default_backend() == "gpu"
    keras.config.set_dtype_policy("mixed_bfloat16" if gpu else "float32")
    model = teacher()
    keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.AdamW(
        cosine(recipe.teacher_rate, recipe.teacher_epochs, len(images), 256), weight_decay=0.02)
    optimizer.build(model.trainable_variables)
    state = state_of(model, optimizer)
    epoch = make_epoch(make_step(model, optimizer, cross_entropy), 256)
    look = jax.jit(lambda state, images: logits_of(model, state, images))
    draw = jax.jit(lambda key, images: make_view(recipe, key, images))
    key, start = jax.random.key(seed), time.time()
    sharp = 0.9 * jax.nn.one_hot(labels, 10) + 0.01  # label smoothing
    for e in range(recipe.teacher_epochs):
        key, one, two = jax.random.split(key, 3)
        view, partner, weight = draw(one, images)
        mixed = (1 - weight)[:, None] * sharp + weight[:, None] * sharp[partner]
        state, (loss, right) = epoch(state, view, mixed, two)
        progress(f"teacher {seed}", e + 1, recipe.teacher_epochs, start,
                 f"loss {loss:.4f} accuracy {100 * right:.2f} %")
    if len(valid[0]):
        hit = look(state, valid[0]).argmax(-1) == valid[1]
        print(f"teacher {seed}: {100 * hit.mean():.2f} % of the held-out images",
              file=sys.stderr)
    return lambda images: look(state, images)


def make_views(recipe, seed, images, ask):
    """The students' diet: distorted copies of the training set, each with the teachers' mean
    logits. Made once and kept, since asking the teachers costs more than training on them."""
    draw = jax.jit(lambda key, images: make_view(recipe, key, images)[0])
    views, answers = [], []
    start = time.time()
    for v, key in enumerate(jax.random.split(jax.random.key(seed), recipe.views)):
        views.append(draw(key, images))
        answers.append((sum(t(views[-1]) for t in ask) / len(ask)).astype(jnp.float16))
        progress("views", v + 1, recipe.views, start, "")
    return views, answers


def distil(temperature):
    """Cross-entropy against the teachers' softened answer. Adam ignores a constant factor, so
    the usual square of the temperature is left out."""
    def loss(logits, target):
        soft = jax.nn.softmax(target.astype(jnp.float32) / temperature)
        return cross_entropy(logits / temperature, soft)
    return loss


def train_students(recipe, seeds, views, answers, valid):
    """Several students at once on the same batches; returns the model, states and curves."""
    count = len(views[0])
    optimizer = keras.optimizers.Adam(cosine(recipe.rate, recipe.epochs, count, recipe.batch))
    model, state = stack(lambda: student(recipe.norm), optimizer, seeds)
    step = make_step(model, optimizer, distil(recipe.temperature))
    epoch = make_epoch(jax.vmap(step, in_axes=(0, None, None)), recipe.batch)
    look = jax.jit(jax.vmap(lambda state: (logits_of(model, state, valid[0]).argmax(-1)
                                           == valid[1]).mean()))
    key, start, curves = jax.random.key(seeds[0]), time.time(), []
    for e in range(recipe.epochs):
        key, one = jax.random.split(key)
        v = e % len(views)
        state, (loss, right) = epoch(state, views[v], answers[v], one)
        curves.append([np.asarray(m) for m in (loss, right, look(state))])
        progress(f"{len(seeds)} students", e + 1, recipe.epochs, start,
                 f"loss {loss.mean():.4f} accuracy {100 * right.mean():.2f} % "
                 f"held out {100 * curves[-1][2].mean():.2f} %")
    return model, state, np.array(curves)


def pick(model, state, index):
    """Student `index` of the stack, folded into the plain network and checked against it."""
    for variable, value in zip(model.trainable_variables + model.non_trainable_variables,
                               state[0] + state[1]):
        variable.assign(value[index])
    plain = fold(model)
    x = np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    gap = np.abs(np.asarray(model(x, training=False)) - np.asarray(plain(x))).max()
    if not gap < 1e-2:
        raise Refusal(f"the folded network differs from the trained one by {gap}")
    return plain
