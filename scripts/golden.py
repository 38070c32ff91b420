# SPDX-License-Identifier: MIT
"""Writes tests/golden/: small networks saved by real Keras, with what Keras says about images.

Each golden is a model file (gzipped where that is worth it) and NAME.json beside it: which
Keras wrote the file, the options that h5_to_blob needs, two images as bytes
[channel][row][column], and what that Keras, after loading the file again, says about them. The
model is fed byte * input_scale: 1/255, or 1 where it scales its input itself.
tests/test_golden.c converts, runs and compares. Every output is checked here against a plain
float64 forward pass as well.

To regenerate, run once in each virtual environment of scripts/requirements-golden.txt:

    python scripts/golden.py             the cases that belong to the Keras found there
    python scripts/golden.py --list      their names
    python scripts/golden.py NAME ...    only these

Weights, images and names are fixed by a seed; dates inside .keras archives are not. Works on
Python 3.6 and later, because the old Kerases do. Left out: everything that h5_to_blob refuses.
"""
import argparse
import functools
import gzip
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import zipfile
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import h5py
import numpy as np

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")


# ------------------------------------------------------------------------- rows of a network
# A network is a list of (Keras 3 class, arguments); everything below is derived from it.

def pair(x):
    return (x, x) if isinstance(x, int) else tuple(x)


def conv(filters, k, act="linear", pad="valid", s=1, bias=True, **more):
    return ("Conv2D", dict(filters=filters, kernel_size=pair(k), activation=act, padding=pad,
                           strides=pair(s), use_bias=bias, **more))


def pool(kind, k=2, s=None, pad="valid"):
    name = {"max": "MaxPooling2D", "average": "AveragePooling2D"}[kind]
    return (name, dict(pool_size=pair(k), strides=pair(s or k), padding=pad))


def dense(units, act="linear", bias=True, **more):
    return ("Dense", dict(units=units, activation=act, use_bias=bias, **more))


def norm(**more):
    return ("BatchNormalization", dict(epsilon=0.02, **more))


def act(name):
    return ("Activation", dict(activation=name))


FLAT = ("Flatten", {})


def lenet(f1=3, f2=4, d1=12, d2=11, a="tanh", kind="average", pad="same", last="softmax"):
    """The plain shape of LeNet-5, with as few channels as wanted."""
    return [conv(f1, 5, a, pad), pool(kind), conv(f2, 5, a), pool(kind), FLAT,
            dense(d1, a), dense(d2, a), dense(10, last)]


LENET5 = dict(f1=6, f2=16, d1=120, d2=84)


# ------------------------------------------------------------------ the float64 forward pass

THEANO = os.environ.get("KERAS_BACKEND") == "theano"


def spatial_pad(n, k, s, pad, is_pool):
    """Cells before and after, and windows that fit. On Theano, Keras had the border before
    depend on the window alone, and for pooling in another way than for convolution."""
    if pad == "valid":
        return 0, 0, (n - k) // s + 1
    out = -(-n // s)
    total = max((out - 1) * s + k - n, 0)
    before = total // 2
    if THEANO:
        before = (k - 2 if k > 2 and k % 2 else k - 1) if is_pool else k // 2
    return before, max(total - before, 0), out


def windows(x, kernel, strides, pad, fill):
    """[rows of window][columns of window] -> the cells there, [n][r][q][c]."""
    is_pool = np.isnan(fill)
    top, bottom, rows = spatial_pad(x.shape[1], kernel[0], strides[0], pad, is_pool)
    left, right, columns = spatial_pad(x.shape[2], kernel[1], strides[1], pad, is_pool)
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="constant",
               constant_values=fill)
    return [[x[:, u:u + (rows - 1) * strides[0] + 1:strides[0],
               v:v + (columns - 1) * strides[1] + 1:strides[1]]
             for v in range(kernel[1])] for u in range(kernel[0])]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x, max_value=None, negative_slope=0.0, threshold=0.0):
    y = np.where(x >= threshold, x, negative_slope * (x - threshold))
    return y if max_value is None else np.minimum(y, max_value)


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


ACTIVATIONS = {
    "linear": lambda x: x, "tanh": np.tanh, "sigmoid": sigmoid, "softmax": softmax,
    "relu": relu, "relu6": lambda x: relu(x, 6.0), "elu": elu, "gelu": gelu,
    "leaky_relu": lambda x: relu(x, None, 0.2), "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x * sigmoid(x), "silu": lambda x: x * sigmoid(x),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid of Keras 2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "selu": lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "celu": elu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "ReLU": relu, "ELU": elu, "Softmax": softmax,
    "LeakyReLU": lambda x, negative_slope: relu(x, None, negative_slope),
}


def activate(name, x, major):
    args = {}
    if isinstance(name, tuple):
        name, args = name
    if name == "hard_sigmoid" and major < 3:
        name = "hard_sigmoid of Keras 2"
    return ACTIVATIONS[name](x, **args)


def linear(cls, args, x, kernel):
    if cls == "Dense":
        return x @ kernel
    cells = windows(x, args["kernel_size"], args["strides"], args["padding"], 0.0)
    return sum(cells[u][v] @ kernel[u, v]
               for u in range(kernel.shape[0]) for v in range(kernel.shape[1]))


def forward_weighted(cls, args, x, w, major):
    w = [a.astype(np.float64) for a in w]
    if cls in ("Conv2D", "Dense"):
        y = linear(cls, args, x, w[0]) + (w[1] if args["use_bias"] else 0)
        return activate(args["activation"], y, major)
    if cls == "Normalization":
        mean, variance = w[:2] if w else (np.array(args["mean"]), np.array(args["variance"]))
        return (x - mean) / np.sqrt(variance)
    gamma = w.pop(0) if args.get("scale", True) else 1.0
    beta = w.pop(0) if args.get("center", True) else 0.0
    return gamma * (x - w[0]) / np.sqrt(w[1] + args["epsilon"]) + beta


def forward_pool(cls, args, x):
    if cls.startswith("Global"):
        f = np.max if "Max" in cls else np.mean
        return f(x, axis=(1, 2), keepdims=args.get("keepdims", False))
    cells = windows(x, args["pool_size"], args["strides"], args["padding"], np.nan)
    cells = np.stack([c for row in cells for c in row])
    return np.nanmax(cells, axis=0) if "Max" in cls else np.nanmean(cells, axis=0)


def forward(row, x, w, major, channels_first):
    """One row on [n][r][q][c] or [n][k], whatever the network's own data format."""
    cls, args = row
    if cls in ("Conv2D", "Dense", "BatchNormalization", "Normalization"):
        return forward_weighted(cls, args, x, w, major)
    if "Pooling" in cls:
        return forward_pool(cls, args, x)
    if cls == "Activation":
        return activate(args["activation"], x, major)
    if cls in ACTIVATIONS:
        return activate((cls, args), x, major)
    if cls == "Flatten":
        if channels_first and args.get("data_format") != "channels_first" and x.ndim == 4:
            x = x.transpose(0, 3, 1, 2)
        return x.reshape(len(x), -1)
    if cls == "Reshape":
        return x.reshape((len(x),) + tuple(args["target_shape"]))
    if cls == "ZeroPadding2D":
        return np.pad(x, ((0, 0),) + tuple(args["padding"]) + ((0, 0),), mode="constant")
    if cls == "Rescaling":
        return x * np.array(args["scale"]) + np.array(args.get("offset", 0.0))
    return x  # Dropout and its kin


def leaves(rows):
    for cls, args in rows:
        if cls == "Sequential":
            yield from leaves(args["rows"])
        else:
            yield cls, args


# ------------------------------------------------------------------ weights and images, drawn

def draw_images(rng, n, shape):
    """Smooth blobs with some noise, bytes [n][r][q][c], so that windows see structure."""
    h, w, c = shape
    coarse = rng.uniform(0, 1, (n, -(-h // 4), -(-w // 4), c))
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :h, :w]
    grain = rng.uniform(0, 1, smooth.shape)
    x = 255 * rng.uniform(0.6, 1, (n, 1, 1, c)) * (0.8 * smooth + 0.2 * grain)
    return np.clip(x, 0, 255).astype(np.uint8)


def draw_kernel(cls, args, x, rng):
    """Kernel and bias that give numbers of unit spread around zero on the images x."""
    if cls == "Dense":
        shape = (x.shape[-1], args["units"])
    else:
        shape = args["kernel_size"] + (x.shape[-1], args["filters"])
    kernel = rng.normal(size=shape)
    y = linear(cls, args, x, kernel)
    gain = 1.3 / y.std(axis=0).mean()  # from image to image, not along the map
    kernel, y = kernel * gain, y * gain
    if not args["use_bias"]:
        return [kernel]
    middle = y.mean(axis=tuple(range(y.ndim - 1)))
    return [kernel, rng.uniform(-0.4, 0.4, shape[-1]) - 0.8 * middle]


def draw_norm(args, x, rng):
    axes = tuple(range(x.ndim - 1))
    n = x.shape[-1]
    signs = np.where(np.arange(n) % 3 == 1, -1.0, 1.0)
    w = [signs * rng.uniform(0.5, 1.5, n)] if args.get("scale", True) else []
    w += [rng.uniform(-0.4, 0.4, n)] if args.get("center", True) else []
    spread = x.std(axis=axes) + 0.1
    return w + [x.mean(axis=axes) + spread * rng.uniform(-0.3, 0.3, n),
                (spread * rng.uniform(0.8, 1.3, n)) ** 2]


def as_stored(array, store):
    """float32 whose values survive being stored in another type."""
    if store == "bfloat16":
        upper = array.astype(np.float32).view(np.uint32) & np.uint32(0xffff0000)
        return upper.view(np.float32)
    return array.astype(store).astype(np.float32)


def draw_weights(rows, x, rng, major, channels_first, store=np.float32):
    """One list of arrays a row, each as float32 that survives the storage type."""
    weights = []
    for cls, args in leaves(rows):
        w = []
        if cls in ("Conv2D", "Dense"):
            w = draw_kernel(cls, args, x, rng)
        elif cls == "BatchNormalization":
            w = draw_norm(args, x, rng)
        elif cls == "Normalization" and "mean" not in args:
            w = [x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))]
        w = [as_stored(a, store) for a in w]
        weights.append(w)
        x = forward((cls, args), x, w, major, channels_first)
    return weights


def run_float64(rows, weights, x, major, channels_first):
    for row, w in zip(leaves(rows), weights):
        x = forward(row, x, w, major, channels_first)
    return x.reshape(len(x), -1)


# ------------------------------------------------------------------------- the Keras at hand

class Keras:
    """What differs between a decade of Keras; one is made per run."""

    def __init__(self):
        try:
            import keras
        except ImportError:  # before TensorFlow 2.6 it lives only there
            import tensorflow.keras as keras
        import importlib
        self.k = keras
        self.modules = [keras]
        for name in ("models", "layers", "layers.core", "layers.convolutional"):
            try:
                self.modules.append(importlib.import_module(keras.__name__ + "." + name))
            except ImportError:
                pass
        self.version = keras.__version__.split("-")[0]
        self.major, self.minor = [int(p) for p in self.version.split(".")[:2]]
        backend = getattr(keras.backend, "backend", None)
        name = backend() if backend else keras.backend._BACKEND
        self.theano = name == "theano"

    def get(self, name):
        return next(getattr(m, name) for m in self.modules if hasattr(m, name))

    def family(self):
        """Which cases belong here."""
        if self.major == 3:
            return "keras3" if self.minor >= 9 else "keras38" if self.minor >= 3 else "keras30"
        return "keras%d%d" % (self.major, self.minor) + ("_theano" if self.theano else "")

    def clear(self):
        """Names of layers count from the start again."""
        for module in (self.k.utils, self.k.backend):
            if hasattr(module, "clear_session"):
                module.clear_session()

    # A layer from a row. Keras 1 and older have other names for everything.

    def layer(self, row, case, first):
        cls, args = row
        args = dict(args)
        if cls == "Sequential":
            rows = args.pop("rows")
            return self.get(cls)([self.layer(r, case, {}) for r in rows], **args)
        if self.major < 2:
            return self.layer1(cls, args, case, first)
        a = args.get("activation")
        if isinstance(a, tuple):
            args["activation"] = self.layer(a, case, {})
        if a == "gelu_tanh":  # which no Keras gives a name, so that only weights can be saved
            args["activation"] = functools.partial(self.k.activations.gelu, approximate=True)
        if cls == "LeakyReLU" and self.major < 3:
            args["alpha"] = args.pop("negative_slope")
        if case.channels_first:
            if cls in ("Conv2D", "ZeroPadding2D") or "Pooling" in cls:
                args["data_format"] = "channels_first"
            if cls == "BatchNormalization":
                args["axis"] = 1
        args.update(first)
        return self.get(cls)(**args)

    def layer1(self, cls, args, case, first):
        order = "th" if case.channels_first else "tf"
        both = dict(first, dim_ordering=order) if self.minor or self.major else dict(first)
        border = {"border_mode": args.pop("padding", None)}
        border.update(name=args["name"]) if "name" in args else None
        a = args.get("activation")
        if cls == "Conv2D":
            both.update(border, subsample=args["strides"], activation=a)
            return self.get("Convolution2D")(args["filters"], *args["kernel_size"], **both)
        if "Pooling" in cls:
            both.update(border, pool_size=args["pool_size"], strides=args["strides"])
            return self.get(cls)(**both)
        if cls == "BatchNormalization":
            return self.get(cls)(epsilon=args["epsilon"], axis=1 if order == "th" else -1)
        if cls == "ZeroPadding2D":
            (rows, _), (columns, _) = border["border_mode"]
            return self.get(cls)((rows, columns), **both)
        if cls == "Dropout":
            return self.get(cls)(args["rate"])
        if cls == "Dense":
            return self.get(cls)(args["units"], activation=a, **first)
        return self.get(cls)(*([a] if a else []), **first)

    def build(self, case):
        shape = case.keras_shape()
        if self.major < 2 or (self.major, self.minor) < (2, 4):
            model = self.get("Sequential")()
            if case.lost_input:
                model.add(self.get("InputLayer")(input_shape=shape))
            for i, row in enumerate(case.rows):
                first = {} if i or case.lost_input else {"input_shape": shape}
                model.add(self.layer(row, case, first))
            return model
        layers = [self.layer(row, case, {}) for row in case.rows]
        if case.attributes:
            return self.subclassed(case, layers)
        if not case.functional:
            return self.get("Sequential")([self.get("Input")(shape=shape)] + layers)
        x = start = self.get("Input")(shape=shape)
        for layer in layers:
            x = layer(x)
        return self.get("Model")(start, x)

    def subclassed(self, case, layers):
        """A user's own class, as tutorials write them: its layers are its attributes."""
        class Net(self.get("Model")):
            def call(self, x):
                for name in case.attributes:
                    x = getattr(self, name)(x)
                return x
        model = Net()
        for name, layer in zip(case.attributes, layers):
            setattr(model, name, layer)
        model(np.zeros((1,) + case.keras_shape(), np.float32))
        return model

    # Weights in the order of the rows, reordered as this Keras stores them.

    def store(self, cls, w, case):
        if cls != "Conv2D":
            return w
        kernel = w[0][::-1, ::-1] if self.theano else w[0]
        if self.major < 2 and case.channels_first:
            kernel = kernel.transpose(3, 2, 0, 1)
        return [kernel] + w[1:]

    def leaf_layers(self, model):
        for layer in model.layers:
            if type(layer).__name__ == "InputLayer":
                continue
            if type(layer).__name__ == "Sequential":
                yield from self.leaf_layers(layer)
            else:
                yield layer

    def fill(self, model, case, weights):
        for layer, row, w in zip(self.leaf_layers(model), leaves(case.rows), weights):
            if w and row[0] == "Normalization":
                w = w + [np.array(0, layer.get_weights()[2].dtype)]
            layer.set_weights(self.store(row[0], w, case))
            layer.trainable = layer.name not in case.frozen

    def predict(self, model, case, images):
        x = case.keras_input(images)
        if self.major < 1:
            model.compile("sgd", "mse")
        return np.asarray(model.predict(x, verbose=0), np.float32).reshape(len(x), -1)


# -------------------------------------------------------------------------------- the layouts

SUFFIX = {"A": ".h5", "B": ".h5", "C": ".h5", "D": ".h5", "E": ".h5", "F": ".weights.h5",
          "G": ".keras", "H": "", "K": ".h5"}


def save(keras, case, model, path):
    if case.layout in "ABDF":
        model.save_weights(path)
    elif case.layout == "H":
        model.save(path, zipped=False)
    elif case.layout == "G" and keras.major == 2 and keras.minor < 13:
        model.save(path, save_format="keras_v3")
    elif case.layout == "E" and keras.major == 2 and keras.minor >= 4:
        model.save(path, save_format="h5")
    else:
        model.save(path)


def load(keras, case, path):
    if case.layout in "ABDF" or keras.major < 2:
        model = keras.build(case)
        model.load_weights(path)
        return model
    return keras.get("load_model")(path, compile=False)


class Case:
    """One golden: a network, who writes it, and how."""

    def __init__(self, family, name, layout, rows, **options):
        self.family, self.layout, self.rows = family, layout, rows
        self.name = family + "_" + name
        get = options.pop
        self.shape = get("shape", (12, 12, 1))       # h, w, c
        self.rank = get("rank", 3)                   # 1: flat input, 2: no channel axis
        self.flags = get("flags", "")
        self.scale = get("scale", 1 / 255)           # what the model is fed: byte * scale
        self.channels_first = get("channels_first", False)
        self.functional = get("functional", False)
        self.lost_input = get("lost_input", False)   # Keras 2.3 does not save an InputLayer
        self.attributes = get("attributes", ())      # names of the layers of a subclass
        self.frozen = get("frozen", ())
        self.policy = get("policy", None)            # dtype policy of Keras 3
        self.store = get("store", np.float32)        # type whose values the weights are
        self.rewrite = get("rewrite", None)          # done to the file, or instead of it
        self.loads = get("loads", True)              # Keras itself can read the file
        self.train = get("train", False)             # one step, for an optimizer's state
        self.suffix = get("suffix", SUFFIX[layout])
        assert not options, options

    def keras_shape(self):
        h, w, c = self.shape
        if self.rank < 3:
            return (h * w * c,) if self.rank == 1 else (h, w)
        return (c, h, w) if self.channels_first else (h, w, c)

    def keras_input(self, images):
        x = images.transpose(0, 3, 1, 2) if self.channels_first else images
        return (x * self.scale).astype(np.float32).reshape((len(x),) + self.keras_shape())

    def numpy_input(self, images):
        x = images * self.scale
        return x.reshape((len(x),) + self.keras_shape()) if self.rank < 3 else x

    def kind(self):
        last = [a for c, a in leaves(self.rows) if c not in ("Flatten", "Dropout")][-1]
        is_layer = [c for c, _ in leaves(self.rows)][-1] == "Softmax"
        ends = last.get("activation") in ("softmax", ("Softmax", {}))
        return "probabilities" if is_layer or ends else "logits"


# ----------------------------------------- files that a Keras wrote, changed in their container

def copy_attrs(source, target):
    for key, value in source.attrs.items():
        target.attrs[key] = value


def copy_group(source, target, change):
    """Copies everything below; change(dataset) gives the arguments of the new one."""
    copy_attrs(source, target)
    for key, item in source.items():
        if isinstance(item, h5py.Group):
            copy_group(item, target.create_group(key), change)
        else:
            copy_attrs(item, target.create_dataset(key, **change(item)))


def repacked(change=lambda d: {"data": d[()]}, **container):
    """A rewrite: the same file with other datasets or another superblock."""
    def rewrite(path, case, weights):
        old = path + ".old"
        os.rename(path, old)
        with h5py.File(old, "r") as source, h5py.File(path, "w", **container) as target:
            copy_group(source, target, change)
        os.remove(old)
    return rewrite


def as_type(dtype):
    return repacked(lambda d: {"data": d[()].astype(dtype)})


def chunked(d):
    if not d.size or not d.shape:
        return {"data": d[()]}
    return {"data": d[()], "chunks": tuple(-(-n // 2) for n in d.shape), "compression": "gzip",
            "shuffle": True, "fletcher32": True}


def each_names(f, visit):
    """Calls visit(object, attribute) for layer_names and every weight_names."""
    found = []
    f.visititems(lambda _, item: found.append(item))
    for item in [f] + found:
        for key in ("layer_names", "weight_names"):
            if key in item.attrs:
                visit(item, key)


def split_names(path, case, weights):
    """As Keras does with lists over 64,512 bytes, only shorter."""
    def visit(item, key):
        names = list(item.attrs[key])
        if names:
            del item.attrs[key]
            for i, part in enumerate(np.array_split(np.arange(len(names)), 2)):
                item.attrs["%s%d" % (key, i)] = [names[j] for j in part]
    with h5py.File(path, "r+") as f:
        each_names(f, visit)


def space_padded_names(path, case, weights):
    """Fixed-length UTF-8 padded with spaces; a list of one name becomes a scalar."""
    def visit(item, key):
        names = [n if isinstance(n, bytes) else n.encode() for n in item.attrs[key]]
        if not names:
            return
        del item.attrs[key]
        width = max(len(n) for n in names)
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(width)
        kind.set_strpad(h5py.h5t.STR_SPACEPAD)
        kind.set_cset(h5py.h5t.CSET_UTF8)
        one = len(names) == 1
        space = h5py.h5s.create_simple((len(names),))
        if one:
            space = h5py.h5s.create(h5py.h5s.SCALAR)
        values = np.array([n.ljust(width) for n in names], "S%d" % width)
        attr = h5py.h5a.create(item.id, key.encode(), kind, space)
        attr.write(values[0:1].reshape(()) if one else values, kind)
    with h5py.File(path, "r+") as f:
        each_names(f, visit)


def uniquified(path, case, weights):
    """The variable scope is not the layer's name: a model that was built twice."""
    with h5py.File(path, "r+") as f:
        g = f.get("model_weights", f)
        for key in [k for k in g if len(g[k].attrs.get("weight_names", []))]:
            layer, names = g[key], []
            for name in layer.attrs["weight_names"]:
                new = key + "_8/" + name.split("/")[-1] + ("" if ":" in name else ":0")
                data = layer[name][()]
                layer.create_dataset(new, data=data)
                names.append(new.encode())
                del layer[name]
            layer.attrs["weight_names"] = names
            for empty in [k for k in layer if k != key + "_8"]:
                del layer[empty]


def with_user_block(path, case, weights):
    repacked(userblock_size=1024)(path, case, weights)
    with open(path, "r+b") as f:
        f.write(b"#!/bin/sh\necho this file is HDF5 behind 1024 bytes of something else\n")


def windows_paths(path, case, weights):
    """Keras 2.12 to 2.15 on Windows: one link whose name holds backslashes."""
    top = "_layer_checkpoint_dependencies"
    old = path + ".old"
    os.rename(path, old)
    with h5py.File(old, "r") as source, h5py.File(path, "w") as target:
        for key in source[top]:
            copy_group(source[top][key], target.create_group(top + "\\" + key),
                       lambda d: {"data": d[()]})
        target.create_group("vars")
    os.remove(old)


def rezipped(folder, method):
    """A .keras archive that someone unpacked and packed again."""
    def rewrite(path, case, weights):
        old = path + ".old"
        os.rename(path, old)
        with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w", method) as target:
            for name in sorted(source.namelist()):
                target.writestr(zipfile.ZipInfo(folder + name), source.read(name), method)
        os.remove(old)
    return rewrite


def state_dict(path, case, weights):
    """A PyTorch state_dict: OIHW kernels, Linear is [out][in], first one behind CHW."""
    names = iter(["conv1", "conv2", "fc1", "fc2", "fc3"])
    with h5py.File(path, "w") as f:
        for w in [w for w in weights if w]:
            name = next(names)
            f[name + ".weight"] = w[0].transpose(3, 2, 0, 1) if w[0].ndim == 4 else w[0].T
            f[name + ".bias"] = w[1]


# ----------------------------------------------------------------------------- the goldens

# Files that hold weights only: h5_to_blob must see input, padding and often pooling itself, and
# assumes tanh. EVERYTHING says all that can be said.
RELU = "--activation relu"
EVERYTHING = "--input 28x28x1 --padding %s --activation %s --pool %s"
SAME_TANH = EVERYTHING % ("same", "tanh", "average")
VALID_RELU = EVERYTHING % ("valid", "relu", "max")
SMALL = lenet(2, 3, 8, 7)
RELU_LAYERS = [conv(2, 5), ("ReLU", {}), pool("max"), conv(3, 5), ("ReLU", {}), pool("max"), FLAT,
               dense(9), ("ReLU", {}), dense(10), ("Softmax", {})]
SMALL_VALID = lenet(2, 3, 8, 7, "relu", "max", "valid", "linear")
BIG = dict(shape=(28, 28, 1))


def tiny(*rows, **more):
    """Convolution, the rows, flatten, dense: a frame for one thing at a time."""
    return [conv(3, 3, s=2, **more)] + list(rows) + [FLAT, dense(10)]


def every_activation_as_attribute():
    return [conv(3, 3, "elu"), conv(3, 3, "softplus"), conv(4, 3, "gelu", "same"), FLAT,
            dense(9, "softsign"), dense(8, "swish"), dense(9, "hard_sigmoid"),
            dense(8, "sigmoid"), dense(9, "relu"), dense(10, "tanh")]


def every_activation_as_layer():
    return [conv(3, 3), ("ReLU", dict(max_value=1.1, negative_slope=0.15, threshold=0.2)),
            conv(3, 3), ("LeakyReLU", dict(negative_slope=0.15)), pool("average"),
            conv(4, 3), ("ELU", dict(alpha=0.7)), FLAT,
            dense(9), ("ReLU", {}), dense(8), act("softsign"), dense(8), act("hard_sigmoid"),
            dense(8), act("softplus"), dense(9), act("swish"), dense(8), act("gelu"),
            dense(10), ("Softmax", {})]


def late_activations():
    return [conv(3, 3, "selu"), pool("average"), conv(4, 3, "mish"), act("celu"), FLAT,
            dense(9), act("selu"), dense(8), act("mish"), dense(10)]


def activation_objects():
    return [conv(3, 3, ("LeakyReLU", dict(negative_slope=0.25))), pool("max"),
            conv(4, 3, ("ReLU", dict(max_value=0.9))), FLAT,
            dense(9, ("ELU", dict(alpha=0.6))), dense(10, ("Softmax", {}))]


def foldable_norms():
    return [conv(3, 3, bias=False), norm(), act("relu"), pool("max"),
            conv(4, 3, pad="same"), pool("average"), norm(), act("tanh"), FLAT,
            dense(9, bias=False), norm(), act("tanh"), dense(10), norm(), act("softmax")]


def stubborn_norms():
    """None of these folds into the convolution before it."""
    return [norm(), conv(3, 3, "relu", "same"), norm(scale=False), pool("max"),
            conv(4, 3, pad="same"), pool("max"), norm(), act("relu"),
            norm(center=False), conv(3, 3, pad="same"), FLAT, norm(), dense(10)]


def norms_of_vectors():
    """Behind a Flatten, each number of the map has its own scale."""
    return [conv(3, 3), pool("max"), FLAT, norm(), act("relu"), norm(), act("tanh"), dense(9),
            norm(), act("sigmoid"), dense(10)]


def rescaling():
    return [("Rescaling", dict(scale=1 / 127.5, offset=-1.0)), conv(3, 3, "tanh", "same"),
            pool("max"), FLAT, dense(10)]


def normalization():
    return [("Normalization", {}), conv(3, 3, "tanh", "same"), pool("max"), FLAT, dense(10)]


def padding_layers():
    return [("ZeroPadding2D", dict(padding=((2, 2), (2, 2)))), conv(3, 5, "relu"), pool("max"),
            ("ZeroPadding2D", dict(padding=((1, 0), (0, 2)))), conv(4, 3, "tanh", s=2),
            FLAT, dense(10)]


def stubborn_padding():
    """The border is no border of a convolution, or is no longer zero there."""
    return [("ZeroPadding2D", dict(padding=((0, 1), (2, 1)))), norm(), conv(3, 3),
            ("ZeroPadding2D", dict(padding=((1, 0), (1, 2)))), pool("max"),
            ("ZeroPadding2D", dict(padding=((1, 1), (1, 1)))), act("sigmoid"),
            conv(3, 3, "tanh"), ("ZeroPadding2D", dict(padding=((1, 0), (0, 0)))),
            pool("average"), FLAT, dense(10)]


def strided():
    return [conv(3, 3, "tanh", "same", s=2), conv(4, (2, 5), "tanh", "same", (1, 2)),
            conv(4, 4, "tanh", "same", s=3), FLAT, dense(10)]


def odd_pools():
    return [conv(3, 2), pool("average", 2, pad="same"), act("tanh"),
            pool("max", 3, 2), conv(4, 2, "tanh", "same"), pool("average", 2, 1), FLAT,
            dense(10)]


def odd_same_pools():
    return [conv(3, 3, pad="same"), pool("max", 3, 2, "same"), conv(4, 2),
            pool("average", 3, 2, "same"), pool("max", (2, 1), (1, 1)), FLAT, dense(10)]


def theano_borders(flatten):
    return [conv(2, 4, "tanh", "same"), pool("max", 3, 2, "same"), conv(3, 3, "tanh", "same", 2),
            pool("average", 2, 1, "same"), flatten, dense(10)]


def does_nothing():
    return [("GaussianNoise", dict(stddev=0.3)), conv(3, 3, "tanh"), pool("max"),
            ("SpatialDropout2D", dict(rate=0.3)), ("Dropout", dict(rate=0.25)), conv(4, 3),
            act("linear"), ("ActivityRegularization", dict(l2=0.01)), FLAT, FLAT,
            ("GaussianDropout", dict(rate=0.2)), dense(9, "tanh"), ("Dropout", dict(rate=0.5)),
            dense(10)]


def nested():
    inner = [conv(3, 3, bias=False), norm(), act("tanh"), pool("max")]
    return [("Sequential", dict(rows=inner, name="features")), conv(4, 3, "tanh"), FLAT,
            ("Sequential", dict(rows=[dense(9, "tanh"), dense(10, name="last")], name="head"))]


def misleading_names():
    """Sorted by name, or looked up by class and number, every one is in the wrong place."""
    return [conv(3, 3, "tanh", "same", name="conv2d_10"), conv(3, 3, "tanh", name="conv2d_9"),
            conv(3, 3, "relu", name="conv2d"), conv(3, 3, name="a"), pool("max"), FLAT,
            dense(12, "tanh", name="dense_1"), dense(12, "relu", name="dense_2"),
            dense(12, "tanh", name="dense"), dense(10, name="dense_10")]


def weights_norm():
    """Names of layers without weights are all that tells where the activation is."""
    default = ("BatchNormalization", dict(epsilon=0.001))
    return [conv(2, 5, bias=False), default, act("relu"), pool("max"), conv(3, 5), pool("max"),
            act("relu"), FLAT, dense(8, bias=False), default, act("relu"), dense(10)]


def group_order():
    """Only the order in which the groups were made tells where these stand."""
    default = ("BatchNormalization", dict(epsilon=0.001))
    return [conv(2, 3, "relu"), default, conv(3, 3, bias=False), default, ("ReLU", {}),
            pool("max"), conv(3, 3, "relu", "same"), pool("max"), ("Dropout", dict(rate=0.3)),
            FLAT, dense(9, "relu"), default, dense(8), ("ReLU", {}), dense(10)]


def global_weights(kind):
    return [conv(4, 3, "relu"), pool("max"), conv(5, 3, "relu"),
            ("Global%sPooling2D" % kind, {}), dense(8, "relu"), dense(10)]


def nested_weights():
    inner = [conv(2, 5, "tanh"), pool("average"), conv(3, 5, "tanh"), pool("average")]
    return [("Sequential", dict(rows=inner, name="features")), FLAT, dense(9, "tanh"), dense(10)]


def deep():
    """So many that dense_10 comes, which sorts before dense_2."""
    return [FLAT] + [dense(11, "relu") for _ in range(10)] + [dense(10)]


def keras3_cases():
    k = "keras3"
    return [
        Case(k, "lenet5", "G", lenet(**LENET5), shape=(28, 28, 1)),
        Case(k, "valid_relu_max", "E", lenet(3, 4, 9, 8, "relu", "max", "valid", "linear"),
             shape=(20, 18, 1)),
        Case(k, "c5_conv_32", "G", [conv(3, 5, "tanh"), pool("average"), conv(4, 5, "tanh"),
                                    pool("average"), conv(9, 5, "tanh"), FLAT, dense(8, "tanh"),
                                    dense(10), ("Softmax", {})], shape=(32, 32, 1)),
        Case(k, "activation_after_pool", "E",
             [conv(3, 3), pool("max"), act("sigmoid"), conv(4, 3), pool("average"), act("tanh"),
              FLAT, dense(10), act("softmax")]),
        Case(k, "activation_attribute", "E", every_activation_as_attribute()),
        Case(k, "activation_layer", "G", every_activation_as_layer()),
        Case(k, "activation_object", "G", activation_objects()),
        Case(k, "activation_late", "G", late_activations()),
        Case(k, "weights_gelu_tanh", "F", lenet(2, 3, 8, 7, "gelu_tanh"),
             flags="--activation gelu_tanh", **BIG),
        Case(k, "activation_object", "E", activation_objects()),
        Case(k, "leaky_relu6", "G", [conv(3, 3, "leaky_relu"), pool("average"), FLAT,
                                     dense(9), ("Rescaling", dict(scale=5.0, offset=1.0)),
                                     act("relu6"), dense(8, "leaky_relu"), dense(10)]),
        Case(k, "hidden_softmax", "E", [FLAT, dense(9, "softmax"), dense(8, "tanh"),
                                        dense(10, "softmax"), ("Softmax", {})]),
        Case(k, "norm_folds", "G", foldable_norms()),
        Case(k, "norm_stays", "E", stubborn_norms()),
        Case(k, "norm_of_vector", "G", norms_of_vectors()),
        Case(k, "norm_of_input", "E", [FLAT, norm(), act("sigmoid"), dense(10)], rank=2),
        Case(k, "norm_first_rgb", "G", [norm(), conv(3, 3, "relu", "same"), FLAT, dense(10)],
             shape=(9, 10, 3)),
        Case(k, "rescaling", "G", rescaling(), scale=1.0),
        Case(k, "rescaling_rgb", "G",
             [("Rescaling", dict(scale=[1 / 255, 1 / 127.5, 1 / 99], offset=[0.0, -1.0, 0.5])),
              conv(3, 3, "tanh", "same"), pool("max"), FLAT, dense(10)],
             shape=(9, 10, 3), scale=1.0),
        Case(k, "rescaling_norm_rgb", "E",
             [("Rescaling", dict(scale=1 / 255)),
              ("Normalization", dict(mean=[0.49, 0.45, 0.4], variance=[0.06, 0.05, 0.08])),
              conv(3, 3, "tanh", "same"), pool("max"), FLAT, dense(10)],
             shape=(9, 10, 3), scale=1.0),
        Case(k, "normalization", "G", normalization(), scale=1.0, flags="--scale 1"),
        Case(k, "zero_padding", "E", padding_layers()),
        Case(k, "zero_padding_stays", "G", stubborn_padding()),
        Case(k, "strides", "G", strided(), shape=(14, 11, 1)),
        Case(k, "pools", "E", odd_pools(), shape=(14, 12, 1)),
        Case(k, "pools_same", "G", odd_same_pools(), shape=(12, 13, 1)),
        Case(k, "global_average", "E", [conv(4, 3, "tanh"), ("GlobalAveragePooling2D", {}),
                                        dense(10)]),
        Case(k, "global_max", "G", [conv(10, 3), ("GlobalMaxPooling2D", dict(keepdims=True)),
                                    FLAT, ("Softmax", {})]),
        Case(k, "all_conv", "E", [conv(4, 3, "relu", s=2), conv(10, 5, "softmax"), FLAT]),
        Case(k, "dense_flat", "G", [dense(12, "tanh"), dense(7)], rank=1,
             flags="--classes 7"),
        Case(k, "dense_28", "E", [FLAT, dense(6, "relu"), dense(10, "softmax")],
             shape=(28, 28, 1), rank=2),
        Case(k, "reshape", "E", [("Reshape", dict(target_shape=(12, 12, 1))),
                                 conv(3, 3, "tanh"), pool("max"),
                                 ("Reshape", dict(target_shape=(75,))), dense(10)], rank=1),
        Case(k, "dropouts", "G", does_nothing()),
        Case(k, "functional", "E", SMALL, functional=True, **BIG),
        Case(k, "functional", "G", foldable_norms(), functional=True),
        Case(k, "nested", "E", nested()),
        Case(k, "nested", "G", nested(), frozen=("dense", "conv2d")),
        Case(k, "channels_first", "G",
             [conv(3, 3, "tanh"), pool("average"), norm(), conv(4, 2, "tanh"),
              ("Flatten", dict(data_format="channels_first")), dense(9, "tanh"), dense(10)],
             shape=(12, 10, 1), channels_first=True),
        Case(k, "channels_first_chw", "E",
             [conv(3, 3, "tanh", s=2), ("Flatten", dict(data_format="channels_last")),
              dense(10)], shape=(9, 12, 3), channels_first=True),
        Case(k, "names", "G", misleading_names()),
        Case(k, "names", "E", misleading_names()),
        Case(k, "weights", "F", SMALL, **BIG),
        Case(k, "weights_valid", "F", SMALL_VALID, flags=RELU, **BIG),
        Case(k, "subclassed", "F", SMALL_VALID, flags=RELU, attributes=(
            "conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fc2", "fc3"), **BIG),
        Case(k, "weights_deep", "F", deep(), flags=RELU),
        Case(k, "weights_order", "F", group_order(),
             flags="--padding valid,valid,same", **BIG),
        Case(k, "weights_global_average", "F", global_weights("Average"), **BIG),
        Case(k, "weights_global_max", "F", global_weights("Max"), **BIG),
        Case(k, "relul", "F", RELU_LAYERS, **BIG),
        Case(k, "optimizer", "E", tiny(pool("max")), train=True),
        Case(k, "optimizer", "G", tiny(pool("max")), train=True),
        Case(k, "unzipped", "H", tiny(pool("average"))),
        Case(k, "float64", "E", tiny(), policy="float64"),
        Case(k, "float16", "G", tiny(), policy="float16", store=np.float16),
        Case(k, "mixed_float16", "G", tiny(), policy="mixed_float16"),
        Case(k, "bfloat16", "G", tiny(), policy="bfloat16", store="bfloat16"),
        Case(k, "bfloat16", "E", tiny(), policy="bfloat16", store="bfloat16"),
    ]


def changed_containers():
    """Legal HDF5 that no Keras writes, but that people and their tools do."""
    k = "keras3"

    def case(name, rewrite, layout="E", rows=None, **more):
        return Case(k, name, layout, rows or tiny(), rewrite=rewrite, **more)
    return [
        case("stored_as_float16", as_type("<f2"), store=np.float16),
        case("stored_as_float64", as_type("<f8")),
        case("stored_big_endian", as_type(">f4")),
        case("stored_chunked", repacked(chunked)),
        case("superblock_3", repacked(libver="v110")),
        case("user_block", with_user_block),
        case("split_names", split_names),
        case("space_padded_names", space_padded_names, loads=False),
        case("uniquified_names", uniquified),
        case("deflated", rezipped("", zipfile.ZIP_DEFLATED), "G"),
        case("rezipped_folder", rezipped("model/", zipfile.ZIP_STORED), "G", loads=False),
        case("state_dict", state_dict, "K", SMALL_VALID, channels_first=True,
             flags=RELU + " --pool max", loads=False, **BIG),
    ]


def tf_keras_cases(k):
    """The families of TensorFlow 2: each numbers and names its groups in its own way."""
    groups = [Case(k, "nested", "G", nested()), Case(k, "names", "G", misleading_names()),
              Case(k, "weights", "F", SMALL, **BIG)]
    if k == "keras214":
        return groups + [Case(k, "windows", "F", SMALL_VALID, flags=RELU,
                              rewrite=windows_paths, loads=False, **BIG)]
    if k in ("keras212", "keras213"):
        return groups
    legacy = [Case(k, "weights", "D", SMALL, flags=SAME_TANH, **BIG),
              Case(k, "functional", "E", tiny(norm(), pool("max")), functional=True)]
    if k == "keras24":
        return legacy + [Case(k, "keras_suffix", "E", tiny(), suffix=".keras")]
    return groups + legacy + [
        Case(k, "lenet5", "E", lenet(**LENET5), **BIG),
        Case(k, "weights_norm", "D", weights_norm(), flags=RELU, **BIG),
        Case(k, "weights_order", "F", group_order(),
             flags="--padding valid,valid,same", **BIG),
        Case(k, "weights_global", "D", global_weights("Average"), **BIG),
        Case(k, "weights_nested", "D", nested_weights(), **BIG),
        Case(k, "weights_nested", "F", nested_weights(), **BIG),
        Case(k, "weights_valid", "D", SMALL_VALID, flags=VALID_RELU, **BIG),
        Case(k, "activation_attribute", "E", every_activation_as_attribute()),
        Case(k, "activation_layer", "E", every_activation_as_layer()),
        Case(k, "activation_object", "E", activation_objects()),
        Case(k, "activation_late", "E", late_activations()[:3] + late_activations()[4:]),
        Case(k, "norm_stays", "E", stubborn_norms()),
        Case(k, "nested", "E", nested(), frozen=("dense", "conv2d")),
        Case(k, "optimizer", "E", tiny(pool("max")), train=True),
        Case(k, "rescaling", "E", rescaling(), scale=1.0),
        Case(k, "normalization", "E", normalization(), scale=1.0, flags="--scale 1"),
        Case(k, "channels_first", "E",
             [conv(3, 3, "tanh"), norm(), conv(4, 3, "tanh", s=2),
              ("Flatten", dict(data_format="channels_first")), dense(10)],
             shape=(12, 9, 1), channels_first=True),
    ]


def standalone_cases(k):
    """Keras before TensorFlow took it in, on TensorFlow 1 and on Theano."""
    th = "_theano" in k
    if k == "keras03":
        return [Case(k, "numbered", "A", lenet(2, 3, 8, 7, "tanh", "max", "valid"),
                     channels_first=True, flags="--pool max --no-flip", **BIG)]
    if k == "keras03_theano":
        return [Case(k, "numbered", "A", lenet(2, 3, 8, 7, "tanh", "max", "valid"),
                     channels_first=True, flags="--pool max", **BIG)]
    if k == "keras12_theano":
        return [Case(k, "weights_th", "B", SMALL_VALID, channels_first=True,
                     flags=RELU, **BIG),
                Case(k, "model_th", "C", tiny(pool("max")), channels_first=True),
                Case(k, "model_tf", "C", tiny(pool("average")))]
    if k == "keras12":  # on TensorFlow
        return [Case(k, "weights", "B", SMALL, **BIG),
                Case(k, "model", "C", [("ZeroPadding2D", dict(padding=((2, 2), (1, 1)))),
                                       conv(3, 3, s=2), norm(), act("relu"), pool("max"),
                                       ("Dropout", dict(rate=0.3)), FLAT, dense(10)])]
    if th:  # Keras 2.0 flattens as it lies, 2.3 transposes first
        flatten = ("Flatten", {} if k == "keras20_theano" else
                   dict(data_format="channels_first"))
        rows = [flatten if row is FLAT else row for row in SMALL_VALID]
        flags = RELU + (" --layout chw" if k == "keras20_theano" else "")
        borders = [Case(k, "same_borders", "E", theano_borders(flatten), channels_first=True)]
        return (borders if k == "keras23_theano" else []) + [
                Case(k, "weights", "D", rows, channels_first=True, flags=flags, **BIG),
                Case(k, "model", "E", tiny(pool("max"))[:-2] + [flatten, dense(10)],
                     channels_first=True)]
    lost = [Case(k, "lost_input", "E", lenet(2, 3, 8, 7, pad="valid"), shape=(32, 32, 1),
                 lost_input=True, loads=False)]
    return [Case(k, "weights", "D", SMALL, **BIG),
            Case(k, "model", "E", tiny(norm(), act("relu"), pool("max")), train=True)] + (
                lost if k == "keras23" else [])


def cases_of(family):
    if family == "keras3":
        return keras3_cases() + changed_containers()
    if family in ("keras30", "keras38"):
        return [Case(family, "model", "E", SMALL, **BIG),
                Case(family, "model", "G", foldable_norms()),
                Case(family, "weights", "F", SMALL, **BIG)]
    if family in ("keras24", "keras212", "keras213", "keras214", "keras215"):
        return tf_keras_cases(family)
    return standalone_cases(family)


# ------------------------------------------------------------------------------- making one

def train_a_step(keras, case, model, images):
    """So that the file also holds an optimizer, whose arrays have the shapes of kernels."""
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    labels = np.eye(10, dtype=np.float32)[np.arange(len(images)) % 10]
    model.fit(case.keras_input(images), labels, epochs=1, verbose=0)


def write_model(keras, case, weights, images, path):
    """The file, and the model in memory that it was made from."""
    if case.policy:
        keras.k.config.set_dtype_policy(case.policy)
    model = keras.build(case)
    if case.train:
        train_a_step(keras, case, model, images)
    keras.fill(model, case, weights)
    if case.layout != "K":
        save(keras, case, model, path)
    if case.rewrite:
        case.rewrite(path, case, weights)
    if case.policy:
        keras.k.config.set_dtype_policy("float32")
        model = keras.build(case)
        keras.fill(model, case, weights)
    return model


def keras_says(keras, case, model, images, path):
    """Outputs of the file as Keras reads it, or of the model in memory where it cannot."""
    if case.loads and not case.policy:
        model = load(keras, case, path)
    return keras.predict(model, case, images)


def manifest(keras, case, images, outputs, path):
    rows = [json.dumps(i.transpose(2, 0, 1).ravel().tolist(), separators=(",", ":"))
            for i in images]
    numbers = ["[%s]" % ", ".join("%.9g" % v for v in o) for o in outputs]
    h, w, c = case.shape
    head = [("file", os.path.basename(path)), ("keras", keras.version), ("layout", case.layout),
            ("flags", case.flags), ("input", [c, h, w]), ("input_scale", round(case.scale, 9)),
            ("kind", case.kind())]
    lines = ["  %s: %s," % (json.dumps(k), json.dumps(v)) for k, v in head]
    return "{\n%s\n  \"images\": [\n    %s\n  ],\n  \"outputs\": [\n    %s\n  ]\n}\n" % (
        "\n".join(lines), ",\n    ".join(rows), ",\n    ".join(numbers))


def check(case, outputs, exact):
    error = (np.abs(outputs - exact) / np.maximum(1, np.abs(exact))).max()
    spread = np.abs(outputs[0] - outputs[1]).max()
    if not error <= 1e-5:
        sys.exit("%s: Keras and the float64 forward pass differ by %g" % (case.name, error))
    if not spread > (0.01 if case.kind() == "probabilities" else 0.2):
        sys.exit("%s: the outputs of two images differ by only %g" % (case.name, spread))
    return error


def packed(path):
    """HDF5 is mostly zeros: .gz without date or name. A folder stays as it is."""
    if os.path.isdir(path) or os.path.getsize(path) < 10000:
        return path
    with open(path, "rb") as source, open(path + ".gz", "wb") as raw:
        with gzip.GzipFile("", "wb", 9, raw, 0) as target:
            shutil.copyfileobj(source, target)
    os.remove(path)
    return path + ".gz"


def make(keras, case, folder):
    rng = np.random.RandomState(zlib.crc32((case.name + case.layout).encode()) & 0x7fffffff)
    images = draw_images(rng, 12, case.shape)
    x = case.numpy_input(images)
    chw = case.channels_first
    weights = draw_weights(case.rows, x, rng, keras.major, chw, case.store)
    exact = run_float64(case.rows, weights, case.numpy_input(images[:2]), keras.major, chw)
    base = case.name + "_" + case.layout.lower()
    path = os.path.join(folder, base + case.suffix)
    model = write_model(keras, case, weights, images, path)
    outputs = keras_says(keras, case, model, images[:2], path)
    error = check(case, outputs, exact)
    path = packed(path)
    with open(os.path.join(folder, base + ".json"), "w") as f:
        f.write(manifest(keras, case, images[:2], outputs, path))
    print("%-40s float64 differs by %.1e" % (base, error))
    return base


def place(scratch, folder):
    """Moves the new files over the old ones only when all of them are there."""
    for name in sorted(os.listdir(scratch)):
        target = os.path.join(folder, name)
        if os.path.isdir(target):
            shutil.rmtree(target)
        shutil.move(os.path.join(scratch, name), target)


def main():
    parser = argparse.ArgumentParser(description="Write golden files with the Keras at hand.")
    parser.add_argument("names", nargs="*", help="only these goldens")
    parser.add_argument("--keras-tag", help="take this family's cases, not the detected one's")
    parser.add_argument("--folder", default=FOLDER, help="where to write (tests/golden)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras 3 calls .h5 legacy each time
    keras = Keras()
    cases = cases_of(options.keras_tag or keras.family())
    scratch = tempfile.mkdtemp()
    for case in cases:
        base = case.name + "_" + case.layout.lower()
        if options.list:
            print(base)
        elif not options.names or base in options.names:
            keras.clear()
            make(keras, case, scratch)
    if not os.path.isdir(options.folder):
        os.makedirs(options.folder)
    place(scratch, options.folder)
    os.rmdir(scratch)


if __name__ == "__main__":
    main()
