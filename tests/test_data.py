"""Sets of images by name: shipped, generated and cached, torchvision's on made-up folders, and the user's own."""

from __future__ import annotations

import logging
import pickle
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from rgflow import caches, data, folders, pictures

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
with_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the development images beside the checkout are not there")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder and small sets."""
    monkeypatch.setenv("RGFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "MSDS_SIZES", {"train": 12, "test": 5})
    return tmp_path / "cache"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---- generated sets and their cache


@pytest.mark.parametrize("name", ["msds1", "msds2"])
def test_msds_is_made_once_and_read_later(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = data.load(name)
    assert len(made) == 12 and len(data.load(name, "test")) == 5
    files = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert sorted(files) == [f"{name}-v1-seed0-test-5.npz", f"{name}-v1-seed0-train-12.npz"]
    monkeypatch.setitem(caches._DRAW, name, None)  # drawing again would fail
    read = data.load(name)
    assert torch.equal(made.images, read.images)
    assert all(torch.equal(made.labels[key], read.labels[key]) for key in made.labels)
    assert files == {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}


def test_msds_items_are_collated_with_their_factors(cache: Path) -> None:
    made = data.load("msds1")
    image, label = made[3]
    assert image.shape == (3, 32, 32) and image.dtype == torch.uint8 and made.flip is False
    assert torch.equal(label["angle"], made.labels["angle"][3])
    images, labels = next(iter(DataLoader(made, batch_size=4)))
    assert torch.equal(images, made.images[:4])
    assert labels["global"].shape == (4, 3) and labels["position"].shape == (4, 4, 4, 2)


def test_msds_splits_and_seeds_differ(cache: Path) -> None:
    train, test, other = data.load("msds1"), data.load("msds1", "test"), data.load("msds1", seed=1)
    assert not torch.equal(train.images, other.images)
    assert not torch.equal(caches.msds("msds1", "train", 5)[0], test.images)  # same number, same seed, other stream


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "text", "empty", "other content", "missing array"])
def test_damaged_cache_is_made_again(damage: str, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = data.load("msds2")
    (file,) = cache.iterdir()
    good = file.read_bytes()
    bad = {
        "truncated": good[: len(good) // 2],
        "flipped bit": good[:9000] + bytes([good[9000] ^ 1]) + good[9001:],
        "text": b"not an archive",
        "empty": b"",
    }
    if damage in bad:
        file.write_bytes(bad[damage])
    else:
        arrays = dict(np.load(file))
        arrays["images"] = arrays["images"][:3]
        if damage == "missing array":
            del arrays["angle"]
        np.savez(file, **arrays)
    again = data.load("msds2")
    assert torch.equal(made.images, again.images)
    assert "damaged" in caplog.text and "made again" in caplog.text
    assert file.read_bytes() == good and list(cache.iterdir()) == [file]


def test_two_writers_may_make_the_cache_at_once(cache: Path) -> None:
    """Threads stand for processes: both write to files of their own and rename them to one name."""
    together = threading.Barrier(2)

    def make(_: int) -> torch.Tensor:
        together.wait(timeout=30)
        return caches.msds("msds1", "train", 400)[0]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, range(2))
    assert torch.equal(first, second) and torch.equal(first, caches.msds("msds1", "train", 400)[0])
    assert [file.name for file in cache.iterdir()] == ["msds1-v1-seed0-train-400.npz"]


def test_unwritable_cache_is_done_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(data.load("msds1")) == 12
    assert "could not be written" in caplog.text and list(cache.iterdir()) == []


def test_cache_folder_without_the_variable_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RGFLOW_CACHE", raising=False)
    assert "rgflow" in str(caches.folder())
    with pytest.raises(ValueError, match="name must be one of msds1, msds2"):
        caches.msds("msds3", "train", 5)


# ---- real images that come with packages


def test_patches32_come_from_different_photographs() -> None:
    train, test = data.load("patches32"), data.load("patches32", "test")
    assert train.images.shape == (16206, 3, 32, 32) and test.images.shape == (646, 3, 32, 32)
    assert not set(data.PHOTOGRAPHS["train"]) & set(data.PHOTOGRAPHS["test"])
    assert train.labels.bincount().tolist() == [3721, 3384, 5251, 3850] and len(test.labels.unique()) == 3
    assert not {row.numpy().tobytes() for row in test.images} & {row.numpy().tobytes() for row in train.images}


def test_patches32_are_pieces_of_the_photograph() -> None:
    from skimage.data import astronaut

    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1)
    image, label = data.load("patches32")[61 * 2 + 5]  # row 2, column 5 of a grid with 61 columns, 8 pixels apart
    assert torch.equal(image, photograph[:, 16:48, 40:72]) and label == 0


def test_patches64_have_quarters_in_patches32() -> None:
    train, test = data.load("patches64"), data.load("patches64", "test")
    assert train.images.shape == (3644, 3, 64, 64) and test.images.shape == (148, 3, 64, 64)
    patches = {row.numpy().tobytes() for row in data.load("patches32", "test").images}
    quarters = [image[:, i : i + 32, j : j + 32] for image in test.images for i in (0, 32) for j in (0, 32)]
    assert all(quarter.contiguous().numpy().tobytes() in patches for quarter in quarters)
    columns = (512 - 64) // 16 + 1
    assert torch.equal(train.images[columns + 1][:, :48, :48], train.images[0][:, 16:, 16:]), "16 pixels apart"


def test_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PHOTOGRAPHS", {"train": (("skimage.data", "gone.png"),)})
    with pytest.raises(FileNotFoundError, match="gone.png is missing from skimage.data"):
        data.load("patches32")


def test_digits8_is_scaled_and_split_by_seed() -> None:
    from sklearn.datasets import load_digits

    train, test = data.load("digits8"), data.load("digits8", "test")
    assert train.images.shape == (1618, 1, 8, 8) and test.images.shape == (179, 1, 8, 8)
    assert (train.images.min(), train.images.max()) == (0, 255)
    together = torch.cat([train.images, test.images]).double() * 16 / 255
    given = torch.from_numpy(load_digits().images)
    assert (together.flatten(1).sum(1).sort().values - given.flatten(1).sum(1).sort().values).abs().max() < 2
    assert torch.equal(test.images, data.load("digits8", "test").images)
    assert not torch.equal(test.images, data.load("digits8", "test", seed=1).images)
    assert type(train[0][1]) is int and 0 <= train[0][1] <= 9


# ---- torchvision's sets on made-up folders of the same layout


def make_mnist(folder: Path) -> np.ndarray:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = noise(6, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 6, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 6) + bytes(range(6)))
    return images


def test_mnist32_is_padded(tmp_path: Path) -> None:
    images = make_mnist(tmp_path)
    found = data.load("mnist32", path=tmp_path)
    assert found.images.shape == (6, 1, 32, 32) and found[4][1] == 4
    assert torch.equal(found.images[:, 0, 2:-2, 2:-2], torch.from_numpy(images))
    assert found.images.long().sum() == images.sum()  # nothing but black around
    colour = data.load("mnist32", "test", path=tmp_path, channels=3).images
    assert torch.equal(colour, found.images.expand(-1, 3, -1, -1))


def test_cifar10_is_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = noise(10, 3, 32, 32)
    for number, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        part = images[2 * number : 2 * number + 2] if number < 5 else images[:2]
        (folder / name).write_bytes(pickle.dumps({"data": part.reshape(2, -1), "labels": [number, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(k) for k in range(10)]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    train, test = data.load("cifar10", path=tmp_path), data.load("cifar10", "test", path=tmp_path)
    assert torch.equal(train.images, torch.from_numpy(images)) and torch.equal(test.images, train.images[:2])
    assert train[2][1] == 1 and train.flip is False


def make_celeba(folder: Path) -> dict[str, np.ndarray]:
    place = folder / "celeba" / "img_align_celeba"
    place.mkdir(parents=True)
    names = [f"{k:06}.jpg" for k in range(1, 7)]
    for k, name in enumerate(names):
        # smooth, so that JPEG changes little
        Image.fromarray(noise(6, 5, 3, seed=k)).resize((178, 218), Image.Resampling.BICUBIC).save(place / name)
    split = [0, 0, 0, 1, 2, 2]

    def write(file: str, header: str, row: str) -> None:
        lines = [f"{name} {row.format(split=split[k], identity=100 + k)}" for k, name in enumerate(names)]
        (folder / "celeba" / file).write_text(header + "\n".join(lines) + "\n")

    write("list_eval_partition.txt", "", "{split}")
    write("identity_CelebA.txt", "", "{identity}")
    write("list_attr_celeba.txt", "6\na b\n", "1 -1")
    write("list_bbox_celeba.txt", "6\nx y w h\n", "1 2 3 4")
    write("list_landmarks_align_celeba.txt", "6\nx y\n", "1 2")
    return {name: np.array(Image.open(place / name)) for name in names}


def test_celeba32_is_prepared_as_in_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    originals = make_celeba(tmp_path)
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    train, test = data.load("celeba32", path=tmp_path), data.load("celeba32", "test", path=tmp_path)
    assert len(train) == 3 and len(test) == 2 and train.flip is True and test.flip is False
    assert test[0][1] == 104 and test[1][1] == 105
    expected = transforms.Compose(
        [
            transforms.CenterCrop(148),
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC, antialias=True),
            transforms.PILToTensor(),
        ]
    )
    for k, name in enumerate(["000005.jpg", "000006.jpg"]):
        assert torch.equal(test[k][0], expected(Image.fromarray(originals[name])))
    assert data.load("celeba32", path=tmp_path, size=64, channels=1)[0][0].shape == (1, 64, 64)


def test_chair600_is_cropped_and_split_by_seed(tmp_path: Path) -> None:
    for model in range(4):
        renders = tmp_path / "rendered_chairs" / f"model{model}" / "renders"
        renders.mkdir(parents=True)
        for k in range(5):
            grey = np.zeros((600, 600, 3), np.uint8)
            grey[150:450, 150:450] = 10 * (5 * model + k)
            Image.fromarray(grey).save(renders / f"{k}.png", compress_level=1)
    train, test = data.load("chair600", path=tmp_path), data.load("chair600", "test", path=tmp_path)
    assert len(train) == 18 and len(test) == 2 and train.flip is True and test.flip is False
    values = [int(image.float().mean()) for part in (train, test) for image, _ in part]
    assert sorted(values) == [10 * k for k in range(20)]  # each once, and the crop left no border
    for image, model in test:
        assert image.shape == (3, 32, 32) and int(image[0, 0, 0]) // 50 == model
    assert test.indices.tolist() == pictures.held_out(20, 0).tolist()


def test_chair600_split_has_the_sizes_of_the_issue() -> None:
    test = pictures.held_out(86366, 0)
    assert len(test) == 8636 and len(pictures.remaining(86366, test)) == 77730


@pytest.mark.parametrize("name", ["mnist32", "cifar10", "celeba32", "chair600"])
def test_missing_set_says_where_to_put_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{name} needs --data-path"):
        data.load(name)
    with pytest.raises(FileNotFoundError, match=f"^{name} is not under {tmp_path} .* (put|unpack) ") as caught:
        data.load(name, path=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_a_download_lacks_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_gdown(*_: object, **options: object) -> None:
        assert options["download"] is True
        raise ModuleNotFoundError("No module named 'gdown'")

    monkeypatch.setattr(datasets, "CelebA", without_gdown)
    with pytest.raises(
        FileNotFoundError, match=r"^celeba32 is not under .* \(No module named 'gdown'\); get"
    ) as caught:
        data.load("celeba32", path=tmp_path, download=True)
    assert "\n" not in str(caught.value)


# ---- the user's own pictures


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def test_images_from_npy_keep_shape_and_split_by_seed(tmp_path: Path) -> None:
    images = noise(25, 8, 6, 3)
    np.save(tmp_path / "own.npy", images)
    train, test = (data.load("images", part, path=tmp_path / "own.npy") for part in ("train", "test"))
    assert train.images.shape == (23, 3, 8, 6) and test.images.shape == (2, 3, 8, 6)
    assert train[0][1] == -1 and train.flip is False
    together = torch.cat([train.images, test.images])
    order = together.flatten(1).long().sum(1).sort().indices
    given = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert torch.equal(together[order], given[given.flatten(1).long().sum(1).sort().indices])
    other = data.load("images", "test", path=tmp_path / "own.npy", seed=5)
    assert not torch.equal(other.images, test.images)


def test_images_from_npz_use_split_and_labels(tmp_path: Path) -> None:
    images, split = noise(5, 4, 4), np.array([0, 1, 0, 1, 0])
    path = saved(tmp_path, images=images, split=split, labels=np.arange(5, dtype=np.int32), other=np.zeros(3))
    test = data.load("images", "test", path=path)
    assert torch.equal(test.images[:, 0], torch.from_numpy(images[[1, 3]])) and test.labels.tolist() == [1, 3]
    assert data.load("images", path=path).labels.tolist() == [0, 2, 4]
    (tmp_path / "index.txt").write_text("4 0\n0\n")
    assert data.load("images", "test", path=path, test_index=tmp_path / "index.txt").labels.tolist() == [0, 4]
    np.save(tmp_path / "index.npy", np.array([2], dtype=np.uint16))
    assert data.load("images", path=path, test_index=tmp_path / "index.npy").labels.tolist() == [0, 1, 3, 4]


def test_images_from_npz_with_one_array_of_any_name(tmp_path: Path) -> None:
    path = saved(tmp_path, X=noise(10, 4, 4, 3))
    assert data.load("images", path=path, channels=1).images.shape == (9, 1, 4, 4)


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(1, 24), st.sampled_from([1, 3]), st.integers(0, 99))
def test_resizing_agrees_with_torchvision_for_arrays_and_pictures(
    height: int, width: int, size: int, channels: int, seed: int
) -> None:
    array = noise(height, width, 3, seed=seed)
    picture = Image.fromarray(array).convert("RGB" if channels == 3 else "L")
    edge = min(height, width)
    expected = transforms.Resize([size, size], transforms.InterpolationMode.BICUBIC, antialias=True)(
        transforms.CenterCrop(edge)(picture)
    )
    expected = transforms.PILToTensor()(expected)
    assert torch.equal(pictures.Preparation(size, channels)(Image.fromarray(array)), expected)
    resized = folders._resized(np.asarray(picture)[None], size)[0]
    assert np.array_equal(resized.transpose(2, 0, 1), expected)


def test_images_from_folder_skip_the_unreadable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "sub").mkdir()
    for k in range(8):
        Image.fromarray(np.full((20 + k, 30, 3), 30 * k, np.uint8)).save(tmp_path / "sub" / f"{k}.png")
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "grey.JPG")
    whole = (tmp_path / "sub" / "7.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(whole[:40])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / "index.txt").write_text("0 2")  # broken.png, sub/0.png of the sorted files
    with caplog.at_level(logging.WARNING, logger="rgflow"):
        test = data.load("images", "test", path=tmp_path, size=16, test_index=tmp_path / "index.txt")
    assert test.images.shape == (1, 3, 16, 16) and test.images.max() == 0
    assert "skipped 1 unreadable of 2 pictures" in caplog.text and "broken.png" in caplog.text
    caplog.clear()
    train = data.load("images", path=tmp_path, test_index=tmp_path / "index.txt")
    assert train.images[:, 0, 5, 5].tolist() == [255, *(30 * k for k in range(1, 8))]
    assert train.images.shape == (8, 3, 32, 32) and train[0][1] == -1
    assert "skipped 1 unreadable of 9" in caplog.text and "text.jpg" in caplog.text and "notes" not in caplog.text


def test_every_unreadable_picture_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{k:02}.png" for k in range(14)]
    for name in names:
        (tmp_path / name).write_bytes(b"no")
    for k in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"good{k}.png")
    (tmp_path / "index.txt").write_text("19")
    train = data.load("images", path=tmp_path, test_index=tmp_path / "index.txt")
    assert len(train) == 5
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"skipped 14 unreadable of 19 pictures under {tmp_path}:"
    assert lines[1:] == [f"  {name} (UnidentifiedImageError)" for name in names]


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    """The hidden colour of a transparent pixel does not count; a half transparent one is mixed with white."""
    array = np.zeros((8, 8, 4), np.uint8)
    array[..., 0] = 200  # red, but only where it is opaque
    array[:4, :, 3], array[4:6, :, 3] = 255, 51
    exif = Image.Exif()
    exif[0x0112] = 3  # lies upside down
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array).save(tmp_path / "b.png", exif=exif)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "c.png", transparency=1)
    Image.fromarray(np.full((8, 8, 2), [100, 0], np.uint8), "LA").save(tmp_path / "d.png")
    (tmp_path / "index.txt").write_text("3")
    a, b, c = data.load("images", path=tmp_path, size=8, test_index=tmp_path / "index.txt").images
    assert a[:, 0, 0].tolist() == [200, 0, 0] and a[:, 7, 0].tolist() == [255, 255, 255]
    assert a[:, 5, 0].tolist() == [244, 204, 204]  # a fifth of the colour, four fifths of white
    assert torch.equal(b, a.flip(1, 2)) and (c == 255).all()
    grey = data.load("images", "test", path=tmp_path, size=8, test_index=tmp_path / "index.txt", channels=1).images
    assert (grey == 255).all()


def test_pictures_are_upright_and_sixteen_bits_are_halved(tmp_path: Path) -> None:
    array = np.zeros((8, 8, 3), np.uint8)
    array[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # lies upside down
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(np.full((8, 8), 200 * 256 + 7, np.uint16)).save(tmp_path / "b.png")
    (tmp_path / "index.txt").write_text("0")
    upright = data.load("images", "test", path=tmp_path, size=8, test_index=tmp_path / "index.txt").images
    assert upright[0, 0, 0, 0] == 0 and upright[0, 0, 7, 7] == 255
    assert data.load("images", path=tmp_path, size=8, test_index=tmp_path / "index.txt").images.unique().tolist() == [
        200
    ]


def bad_images(folder: Path, case: str) -> Path:
    path = folder / "own.npz"
    match case:
        case "missing":
            return folder / "nowhere"
        case "empty folder":
            return folder
        case "only broken":
            for k in range(2):
                (folder / f"{k}.png").write_bytes(b"no")
            return folder
        case "text file":
            path = folder / "own.txt"
            path.write_text("x")
        case "float":
            np.savez(path, images=np.zeros((4, 8, 8, 3), np.float32))
        case "two axes":
            np.savez(path, images=noise(4, 8))
        case "channels first":
            np.savez(path, images=noise(4, 3, 8, 8))
        case "no images":
            np.savez(path, images=noise(0, 8, 8))
        case "one image":
            np.savez(path, images=noise(1, 8, 8))
        case "two arrays":
            np.savez(path, a=noise(4, 8, 8), b=noise(4, 8, 8))
        case "split length":
            np.savez(path, images=noise(4, 8, 8), split=np.zeros(3, int))
        case "split values":
            np.savez(path, images=noise(4, 8, 8), split=np.array([0, 1, 2, 0]))
        case "all test":
            np.savez(path, images=noise(4, 8, 8), split=np.ones(4, int))
        case "labels":
            np.savez(path, images=noise(4, 8, 8), labels=np.zeros((4, 2), int))
        case "pickled":
            np.savez(path, images=np.array([{"a": 1}, None], dtype=object))
        case "truncated npz":
            np.savez(path, images=noise(4, 8, 8))
            path.write_bytes(path.read_bytes()[:200])
        case "truncated npy":
            path = folder / "own.npy"
            np.save(path, noise(4, 8, 8))
            path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("missing", FileNotFoundError, "neither a folder of pictures nor a .npy or .npz file"),
        ("empty folder", ValueError, "no pictures under"),
        ("only broken", ValueError, "none of the 1 pictures of the train set"),
        ("text file", ValueError, "must be a folder, a .npy or an .npz file"),
        ("float", TypeError, "must be uint8 .* got float32"),
        ("two axes", ValueError, r"shape \(N, H, W, C\) or \(N, H, W\), none of them 0, got \(4, 8\)"),
        ("channels first", ValueError, r"channels last, got \(4, 3, 8, 8\)"),
        ("no images", ValueError, r"none of them 0, got \(0, 8, 8\)"),
        ("one image", ValueError, "the train set is empty"),
        ("two arrays", ValueError, "must hold `images` or one array only, it holds: a, b"),
        ("split length", ValueError, "`split` must be 4 numbers, 0 for train and 1 for test"),
        ("split values", ValueError, "`split` must be 4 numbers, 0 for train and 1 for test"),
        ("all test", ValueError, "the train set is empty"),
        ("labels", ValueError, r"`labels` must be integers of shape \(4,\)"),
        ("pickled", ValueError, "cannot be read as .npz: .*allow_pickle"),
        ("truncated npz", ValueError, "cannot be read as .npz"),
        ("truncated npy", ValueError, "cannot be read as .npy"),
    ],
)
def test_bad_images_are_named(case: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message) as caught:
        data.load("images", path=bad_images(tmp_path, case))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 two", "must hold integers, as .npy or as text"),
        ("", "must hold a list of integers"),
        ("0 4", r"must stay within 0..3, got 0..4"),
        ("-1", r"must stay within 0..3, got -1..-1"),
        (None, "does not exist"),
    ],
)
def test_bad_test_index_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, images=noise(4, 8, 8))
    if text is not None:
        (tmp_path / "index.txt").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.load("images", path=path, test_index=tmp_path / "index.txt")


# ---- options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"name": "celeba"},
            ValueError,
            "unknown data set 'celeba'; known are msds1, msds2, patches32, patches64, digits8",
        ),
        ({"name": "digits8", "split": "valid"}, ValueError, "split must be train or test, got 'valid'"),
        ({"name": "digits8", "size": 32}, ValueError, "digits8 has images of 8 x 8, size must be 8, got 32"),
        ({"name": "digits8", "size": (8, 16)}, ValueError, "size must be one integer or two equal ones"),
        ({"name": "digits8", "size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"name": "digits8", "channels": 2}, ValueError, "1 channels cannot be turned into 2"),
        ({"name": "digits8", "channels": 0}, ValueError, "channels must be at least 1, got 0"),
        ({"name": "digits8", "download": True}, ValueError, "digits8 is never downloaded"),
        ({"name": "digits8", "test_index": "x"}, ValueError, "goes with images only"),
        ({"name": "chair600", "path": ".", "download": True}, ValueError, "chair600 cannot be downloaded"),
        ({"name": "images"}, FileNotFoundError, "images needs --data-path"),
    ],
)
def test_bad_options_are_named(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        data.load(**options)


def test_size_may_be_a_pair() -> None:
    assert data.load("digits8", "test", size=(8, 8)).images.shape == (179, 1, 8, 8)


@pytest.mark.parametrize("name", data.NAMES)
def test_every_set_is_described_in_one_paragraph(name: str) -> None:
    text = data.describe(name)
    assert text.startswith(f"{name}: ") and text.endswith(".") and "\n" not in text and "  " not in text


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_grey_is_what_pillow_makes_of_colour(seed: int) -> None:
    array = noise(5, 7, 3, seed=seed)
    grey = pictures.to_channels(torch.from_numpy(array).permute(2, 0, 1)[None], 1)[0, 0]
    assert torch.equal(grey, torch.from_numpy(np.array(Image.fromarray(array).convert("L"))))


def test_pictures_refuse_what_is_no_set() -> None:
    with pytest.raises(TypeError, match="uint8, got torch.float32"):
        pictures.Pictures(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="shape"):
        pictures.Pictures(torch.zeros(2, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="2 images need as many labels, got 3"):
        pictures.Pictures(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3))
    with pytest.raises(ValueError, match="36 x 200 is too small for a centre crop of 148"):
        pictures.Preparation(32, crop=148)(Image.new("RGB", (36, 200)))


# ---- the development images beside the checkout


@with_shared
def test_real_mnist() -> None:
    found = data.load("mnist32", "test", path=SHARED)
    assert found.images.shape == (10000, 1, 32, 32) and found.labels.bincount().min() > 800


@with_shared
def test_research_split_of_the_faces_needs_only_an_index_file(tmp_path: Path) -> None:
    path = SHARED / "celeba_aligned_32.npz"
    identity = np.load(path)["identity200"]
    np.savetxt(tmp_path / "test.txt", np.flatnonzero(identity >= 180), fmt="%d")
    train = data.load("images", path=path, test_index=tmp_path / "test.txt")
    test = data.load("images", "test", path=path, test_index=tmp_path / "test.txt")
    assert len(test) == 600 and len(train) == 15123
    images = np.load(path)["images"]
    assert torch.equal(test.images[0].permute(1, 2, 0), torch.from_numpy(images[identity >= 180][0]))


@with_shared
def test_real_cifar10_through_images() -> None:
    found = data.load("images", path=SHARED / "cifar10_lossless_32.npz", size=16)
    assert found.images.shape == (3600, 3, 16, 16) and 0 <= found.labels.min() and found.labels.max() == 9
