#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write weights/README.md, the model card, from results.json and the two .h5 files.

Every figure of the card is read from a file or computed here: accuracy is computed a second
time, on the CPU, and must be what train.py wrote. Also draws what the network looks like and
its ten most confident mistakes, weights/<dataset>_network.png. Left out: any training.

    scripts/model_card.py --data fashion_mnist/data
"""
import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
import train  # noqa: E402  (sets the backend before Keras is loaded)
import keras  # noqa: E402
import numpy as np  # noqa: E402

NAMES = {
    "mnist": ("MNIST", [str(digit) for digit in range(10)]),
    "fashion_mnist": ("Fashion-MNIST", ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]),
}
WORDS = {"rotate": "rotation, degrees", "scale": "change of size", "shear": "shear",
         "shift": "shift, pixels", "elastic": "elastic displacement, pixels",
         "flip": "mirrored left and right", "erase": "share with a hole",
         "teachers": "teachers", "teacher_width": "their width",
         "teacher_epochs": "their epochs", "views": "distorted copies of the training set",
         "students": "students (seeds)", "epochs": "their epochs", "batch": "batch",
         "rate": "peak learning rate (Muon)", "temperature": "temperature"}


def check(folder, data, name, outcome):
    """The network of the file and its logits on the test images, once they agree with
    results.json on digest and accuracy."""
    path = folder / f"lenet5_{name}.h5"
    if hashlib.sha256(path.read_bytes()).hexdigest() != outcome["file_sha256"]:
        raise train.Refusal(f"{path} is not the file that results.json describes")
    network = keras.models.load_model(path, compile=False)
    images, labels, _ = train.read_split(data / name, "t10k")
    logits = network.predict(np.asarray(train.pixels(images)), batch_size=1000, verbose=0)
    right = int((logits.argmax(-1) == labels).sum())
    if abs(right - outcome["test"]["right"]) > 1:  # one tie may fall differently elsewhere
        raise train.Refusal(f"{path}: {right} right here, {outcome['test']['right']} in "
                            "results.json")
    return network, images, labels, logits


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def draw(path, name, network, images, labels, logits):
    """Kernels of both convolutions and the ten mistakes that the network was surest of."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    first, second = (network.get_layer(layer).get_weights()[0] for layer in ("conv1", "conv2"))
    figure = pyplot.figure(figsize=(13, 7.2))
    left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    grid = left.subplots(7, 16, gridspec_kw={"wspace": 0.08, "hspace": 0.08})
    for axis in grid.flat:
        axis.axis("off")
    for channel in range(6):
        grid[0, channel].imshow(first[:, :, 0, channel], cmap="RdBu")
        for out in range(16):
            grid[channel + 1, out].imshow(second[:, :, channel, out], cmap="RdBu")
    left.suptitle("kernels: first layer (top row), second layer (6 inputs x 16 outputs)")
    sure, guess = softmax(logits).max(-1), logits.argmax(-1)
    wrong = np.flatnonzero(guess != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")[:10]]
    grid = right.subplots(2, 5)
    for axis in grid.flat:
        axis.axis("off")
    for axis, image in zip(grid.flat, wrong):
        axis.imshow(images[image], cmap="gray_r")
        axis.set_title(f"no. {image}: {NAMES[name][1][labels[image]]}\nsaid "
                       f"{NAMES[name][1][guess[image]]}\n{100 * sure[image]:.1f} %", fontsize=8)
    right.suptitle("the ten most confident mistakes on the test images")
    figure.savefig(path, dpi=72)


def head(results):
    """The YAML that model hubs read."""
    lines = ["---", "license: mit", "library_name: keras", "pipeline_tag: image-classification",
             "tags: [lenet5, keras, cuda, knowledge-distillation]",
             "datasets: [ylecun/mnist, zalando-datasets/fashion_mnist]", "metrics: [accuracy]",
             "model-index:"]
    for name, (title, _) in NAMES.items():
        lines += [f"- name: lenet5_{name}", "  results:", "  - task:",
                  "      type: image-classification", "    dataset:", f"      name: {title}",
                  f"      type: {name}", "      split: test", "    metrics:",
                  "    - type: accuracy",
                  f"      value: {results[name]['test']['accuracy'] / 100:.4f}"]
    return lines + ["---"]


def row(title, summary):
    low, high = summary["interval"]
    return (f"| {title} | **{summary['accuracy']:.2f}** | {low:.2f} to {high:.2f} | "
            f"{len(summary['each'])} | {summary['mean']:.2f} ± {summary['deviation']:.2f} | "
            f"{min(summary['each']):.2f} to {max(summary['each']):.2f} |")


def evaluation(results):
    lines = ["| % right of | shipped or chosen | 95 % (Wilson) | seeds | their mean ± deviation "
             "| least to most |", "| --- | --- | --- | --- | --- | --- |"]
    for name, (title, _) in NAMES.items():
        n = results[name]["test"]["images"], results[name]["held_out"]["images"]
        lines.append(row(f"{title}, {n[0]:,} test images", results[name]["test"]))
        lines.append(row(f"{title}, {n[1]:,} held-out images", results[name]["held_out"]))
        if f"{name}_plain" in results:
            plain = results[f"{name}_plain"]
            lines.append(row(f"{title} test, textbook recipe "
                             f"({plain['recipe']['epochs']} epochs)", plain["test"]))
    return lines


def per_class(results):
    lines = ["| label | MNIST | Fashion-MNIST |", "| --- | --- | --- |"]
    for label in range(10):
        shares = []
        for name in NAMES:
            counts = results[name]["confusion"][label]
            shares.append(f"{100 * counts[label] / sum(counts):.1f}")
        lines.append(f"| {label} ({NAMES['fashion_mnist'][1][label]}) | {shares[0]} | "
                     f"{shares[1]} |")
    return lines


def recipe(results):
    """The two recipes side by side; what the teachers see goes in brackets."""
    lines = ["| | MNIST | Fashion-MNIST |", "| --- | --- | --- |"]
    for key, words in WORDS.items():
        cells = []
        for name in NAMES:
            own = results[name]["recipe"]
            other = own["teacher"].get(key, own[key])
            cells.append(f"{own[key]}" + (f" ({other})" if other != own[key] else ""))
        lines.append(f"| {words} | {cells[0]} | {cells[1]} |")
    return lines


def earlier(results):
    """What else was read off the test images: nothing may be kept from the reader."""
    past = [key for key in results if key.endswith("_earlier")]
    return [f"Before the shipped one, another recipe for {NAMES[key[:-8]][0]} had been run to its "
            f"end, test images included: {results[key]['test']['accuracy']:.2f} % (mean of "
            f"{len(results[key]['test']['each'])} seeds {results[key]['test']['mean']:.2f}). "
            f"{results[key]['remark']}" for key in past]


def card(results, folder):
    mnist, fashion = (results[name] for name in NAMES)
    files = [f"| `lenet5_{name}.h5` | {(folder / f'lenet5_{name}.h5').stat().st_size:,} | "
             f"{results[name]['seed']} | `{results[name]['file_sha256']}` |" for name in NAMES]
    pictures = [f"![{title}: loss, accuracy and confusion matrix]({name}_training.png)\n\n"
                f"![{title}: kernels and mistakes]({name}_network.png)\n"
                for name, (title, _) in NAMES.items()]
    digests = [f"| {NAMES[name][0]} | `{file}` | `{digest}` |" for name in NAMES
               for file, digest in results[name]["data_sha256"].items()]
    teachers = " and ".join(f"{100 * results[name]['teachers']['together']:.2f} % "
                            f"({NAMES[name][0]})" for name in NAMES)
    return "\n".join([
        *head(results), "<!-- Written by scripts/model_card.py: change that, not this. -->",
        "# LeNet-5 for MNIST and Fashion-MNIST, 61,706 parameters", "",
        "The plain network: 28x28x1 in, 6 and 16 feature maps by 5x5 kernels, tanh, average",
        "pooling, dense 120, 84 and 10. Keras 3 whole-model `.h5`, no optimizer state, last layer",
        "linear (logits). The input is the image's bytes divided by 255, nothing else.", "",
        "| file | bytes | seed | SHA-256 |", "| --- | --- | --- | --- |", *files, "",
        "## Intended use", "",
        "Real weights for this engine, its tests and its benchmarks, and for comparing engines,",
        "compilers and number formats on a network small enough to read. `make convert` turns",
        "them into `.bin`; `keras.models.load_model` opens them as they are. Not for reading",
        "post codes or cheques: see the limitations.", "",
        "## Training data", "",
        "MNIST and Fashion-MNIST, their official 60,000 training images each. The last",
        f"{mnist['held_out']['images']:,} are held out of every fit, the teachers' too, so",
        f"{mnist['trained_on']:,} are trained on; no final fit uses all. SHA-256 of the raw",
        "(uncompressed) files:", "",
        "| data set | file | SHA-256 |", "| --- | --- | --- |", *digests, "",
        "## Training procedure", "",
        "`scripts/train.py mnist` and `scripts/train.py fashion_mnist`, on a GPU.", "",
        "1. Residual networks learn from the labels on distorted images. Together they get",
        f"   {teachers} of the held-out images right.",
        "2. They answer distorted copies of the training set.",
        "3. All students, which differ in their first weights only, learn at the same time to",
        "   give the same answers at a raised temperature: Muon, a short warm-up, a long cosine.",
        "   Before each tanh there is batch normalisation, which is folded into the weights at",
        "   the end; folded and unfolded logits are compared (limit 0.001).",
        "4. The student is chosen that has most right of the held-out images and eight distorted",
        "   copies of them. Then the test images are read.", "",
        *recipe(results), "",
        "In brackets: where the teachers' pictures differ. "
        f"{mnist['seconds']} s and {fashion['seconds']} s on one {mnist['versions']['device']} "
        f"(Keras {mnist['versions']['keras']}, JAX {mnist['versions']['jax']}). The GPU adds in a",
        "fixed order, so the same seed gives the same weights on the same device.", "",
        "## Evaluation", "", *evaluation(results), "", *earlier(results), "",
        "Right answers by label, %, test images:", "", *per_class(results), "", *pictures,
        "## Limitations", "",
        "* Made for 28x28 images prepared as these data sets are: centred, light on dark. A",
        "  photograph of a digit, or dark ink on white paper, must be brought to that form first.",
        "* There is no answer `none of these`, and the logits are not calibrated: students imitate",
        "  softened answers, so softmax of the logits is not a probability to rely on.",
        "* Shirts, T-shirts, pullovers and coats are told apart worst; see the table.",
        "* The interval is that of drawing 10,000 images. Test sets read by everybody for years",
        "  flatter every method a little, this one too.", ""])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("fashion_mnist/data"), metavar="DIR")
    parser.add_argument("--weights", type=Path, default=Path("weights"), metavar="DIR")
    options = parser.parse_args()
    try:
        results = json.loads((options.weights / "results.json").read_text())
        for name in NAMES:
            known = check(options.weights, options.data, name, results[name])
            draw(options.weights / f"{name}_network.png", name, *known)
        (options.weights / "README.md").write_text(card(results, options.weights))
    except (train.Refusal, OSError) as error:
        sys.exit(f"model_card.py: {error}")
    except KeyError as error:
        sys.exit(f"model_card.py: results.json has no {error}; run scripts/train.py for both sets")


if __name__ == "__main__":
    main()
