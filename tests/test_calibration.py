"""Calibration: samples from image files, ranges in batches, and the report of what fixed point does to the samples."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from random_networks import random_network

import bdnet_deploy
from bdnet_deploy import samples
from bdnet_deploy.analysis.comparing.quantized import Edge, compare, unsaturated
from bdnet_deploy.cli import app, console
from bdnet_deploy.errors import BdnetError, MissingPackageError, ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.graph import Affine, Array, Conv2d, DType, Graph, Quantize, Sign, Ternarize, TwoSlope, Value, evaluate
from bdnet_deploy.images import MAX_PIXELS, find_images, read_image
from bdnet_deploy.iodesc import InputDescription, IODescription, OutputDescription
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.model import Model
from bdnet_deploy.passes import calibrate, merge_affine
from bdnet_deploy.report import Report
from bdnet_deploy.samples import ImageSamples, Samples, load_samples, spread

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL = DIGITS / "model.pt"
TEST, CALIBRATION = DIGITS / "test.npz", DIGITS / "calibration.npz"
FIXED = ("fixed16", "fixed8")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    console.set_verbosity(0)


@pytest.fixture(scope="module")
def digits() -> Model:
    return bdnet_deploy.load(MODEL)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


def refused(*arguments: object, code: int, says: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr and "Traceback" not in result.output


def pixels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(path: Path | str, array: Array, mode: str | None = None, **options: object) -> Path:
    """Write an image file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return Path(path)


def digit_folder(folder: Path, source: Path, count: int) -> Path:
    """The first digits of an .npz file as PNG files in class folders."""
    with np.load(source) as arrays:
        for i, (x, y) in enumerate(zip(arrays["x"][:count], arrays["y"], strict=False)):
            picture(folder / str(y) / f"{i:04}.png", x[..., 0])
    return folder


GRAY = InputDescription(shape=(5, 7, 1), dtype="u8", color="gray")
RGB = InputDescription(shape=(5, 7, 3), dtype="u8", color="rgb")
BGR = InputDescription(shape=(5, 7, 3), dtype="u8", color="bgr")


# -- one image ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_lossless_colours_arrive_as_they_are(suffix: str) -> None:
    array = pixels(5, 7, 3)
    path = picture(f"a{suffix}", array)
    assert np.array_equal(read_image(path, RGB), array[None])
    assert np.array_equal(read_image(path, BGR), array[None, ..., ::-1])
    nchw = InputDescription(shape=(5, 7, 3), dtype="u8", color="bgr", layout="NCHW")
    raw = read_image(path, nchw)
    assert raw.shape == (1, 3, 5, 7) and np.array_equal(raw[0, 0], array[..., 2])
    assert np.array_equal(nchw.preprocess(raw), BGR.preprocess(array[..., ::-1]))


def test_jpeg_is_what_its_decoder_says() -> None:
    path = picture("a.jpg", pixels(5, 7, 3), quality=60)
    with Image.open(path) as image:
        expected = np.asarray(image)
    assert np.array_equal(read_image(path, RGB)[0], expected)


def test_gray_and_colour_convert_into_each_other() -> None:
    gray = pixels(5, 7)
    path = picture("gray.png", gray)
    assert np.array_equal(read_image(path, GRAY)[0, ..., 0], gray)
    assert np.array_equal(read_image(path, RGB)[0], np.stack([gray] * 3, -1))
    colour = pixels(5, 7, 3, seed=1)
    luma = read_image(picture("colour.png", colour), GRAY)[0, ..., 0]
    assert np.abs(luma - colour @ np.array([0.299, 0.587, 0.114])).max() < 1  # ITU-R BT.601
    assert np.array_equal(read_image(path, InputDescription(shape=(5, 7, 1), dtype="u8")), read_image(path, GRAY))


def test_alpha_and_palettes() -> None:
    array = pixels(5, 7, 4)
    assert np.array_equal(read_image(picture("rgba.png", array), RGB)[0], array[..., :3])
    la = read_image(picture("la.png", pixels(5, 7, 2)), GRAY)[0, ..., 0]
    assert np.array_equal(la, pixels(5, 7, 2)[..., 0])
    few = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)[pixels(5, 7) % 2]
    palette = Image.fromarray(few).quantize(2)
    assert palette.mode == "P"
    palette.save("p.png", transparency=b"\x00\xff")
    assert np.array_equal(read_image(Path("p.png"), RGB)[0], few)
    bits = pixels(5, 7) > 127
    Image.fromarray(bits).save("bits.png")
    assert np.array_equal(read_image(Path("bits.png"), GRAY)[0, ..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_give_their_high_byte(suffix: str) -> None:
    array = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    array[0, :3] = 0, 255, 65535
    if suffix == ".pgm":
        Path("deep.pgm").write_bytes(b"P5 7 5 65535\n" + array.astype(">u2").tobytes())
    else:
        Image.fromarray(array).save(f"deep{suffix}")
    raw = read_image(Path(f"deep{suffix}"), GRAY)
    assert np.array_equal(raw[0, ..., 0], array >> 8)
    assert np.array_equal(read_image(Path(f"deep{suffix}"), RGB)[0], np.stack([array >> 8] * 3, -1))


def test_pixels_without_a_white_are_refused() -> None:
    Image.fromarray(np.ones((5, 7), np.float32)).save("float.tif")
    Image.fromarray(np.ones((5, 7), np.int32)).save("int.tif")
    for name in ("float.tif", "int.tif"):
        with pytest.raises(BdnetError, match="no image that can be read") as caught:
            read_image(Path(name), GRAY)
        assert caught.value.where == name and "32-bit" in str(caught.value.why)


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_orientation(orientation: int, turn: int, suffix: str) -> None:
    array = np.zeros((16, 24), np.uint8)
    array[:8, :8] = 255  # top left before turning
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = picture(f"a{suffix}", array, exif=exif)
    raw = read_image(path, GRAY)[0, ..., 0]
    expected = np.rot90(array, turn)  # counterclockwise; orientation 6 asks for a clockwise quarter
    assert raw.shape == expected.shape and np.abs(raw.astype(int) - expected).max() < 30


# -- folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_is_sorted_and_hidden_files_are_passed_over() -> None:
    for name in ("b.png", "a.PNG", "ä.png", "c/d.png"):
        picture(f"flat/{name}", pixels(5, 7))
    Path("flat/c/d.png").unlink()
    Path("flat/c").rmdir()
    Path("flat/.DS_Store").write_bytes(b"x")
    Path("flat/Thumbs.db").write_bytes(b"x")
    Path("flat/.hidden").mkdir()
    found = find_images(Path("flat"))
    assert [path.name for path in found.paths] == ["a.PNG", "b.png", "ä.png"] and found.classes == ()


def test_class_folders_number_as_in_torchvision() -> None:
    names = ("cat/2.png", "cat/deep/1.png", "cat/.x.png", "10/z.png", "9/a.png", "Dog/a.png")
    for name in names:
        picture(f"tree/{name}", pixels(5, 7))
    Path("tree/.git").mkdir()
    found = find_images(Path("tree"))
    assert found.classes == ("10", "9", "Dog", "cat")  # the order of strings, capitals first
    assert [(p.relative_to("tree").as_posix(), n) for p, n in zip(found.paths, found.folders, strict=True)] == [
        ("10/z.png", 0), ("9/a.png", 1), ("Dog/a.png", 2), ("cat/2.png", 3), ("cat/deep/1.png", 3),
    ]  # fmt: skip
    assert load_samples(Path("tree"), IODescription((RGB,)), (5, 7, 3)).y.tolist() == [0, 1, 2, 3, 3]  # type: ignore[union-attr]


def test_class_folders_called_as_the_labels_take_their_numbers() -> None:
    for name in ("wolf", "ant"):
        picture(f"tree/{name}/a.png", pixels(5, 7))
    some = IODescription((RGB,), (OutputDescription(labels=("bee", "wolf", "ant")),))
    assert load_samples(Path("tree"), some, (5, 7, 3)).y.tolist() == [2, 1]  # type: ignore[union-attr]
    others = IODescription((RGB,), (OutputDescription(labels=("x", "y")),))
    assert load_samples(Path("tree"), others, (5, 7, 3)).y.tolist() == [0, 1]  # type: ignore[union-attr]
    mixed = IODescription((RGB,), (OutputDescription(labels=("wolf", "aunt")),))
    with pytest.raises(UsageError, match="unknown class 'ant'"):
        load_samples(Path("tree"), mixed, (5, 7, 3))


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_links_in_circles_broken_links_and_pipes() -> None:
    picture("tree/a/1.png", pixels(5, 7))
    Path("tree/a/again").symlink_to("..", target_is_directory=True)
    Path("tree/b").symlink_to("a", target_is_directory=True)
    assert len(find_images(Path("tree")).paths) < 20
    Path("broken").mkdir()
    Path("broken/x.png").symlink_to("nowhere")
    Path("pipes").mkdir()
    os.mkfifo("pipes/x.png")  # opening it would wait for ever
    for folder in ("broken", "pipes"):
        with pytest.raises(BdnetError, match="no image file") as caught:
            find_images(Path(folder))
        assert caught.value.where == str(Path(folder, "x.png"))


def test_folders_that_are_no_sample_sets() -> None:
    Path("empty").mkdir()
    picture("both/a.png", pixels(5, 7))
    picture("both/class/a.png", pixels(5, 7))
    picture("hole/a/a.png", pixels(5, 7))
    Path("hole/b").mkdir()
    picture("other/a.png", pixels(5, 7))
    Path("other/readme.txt").write_text("x", encoding="utf-8")
    for folder, kind, says in (
        ("empty", UsageError, "no images in the folder"),
        ("both", UsageError, "beside folders"),
        ("hole", UsageError, "no images in the class folder"),
        ("other", BdnetError, "no image file"),
        ("none", ModelFileError, "no such file"),
    ):
        with pytest.raises(kind, match=says) as caught:
            find_images(Path(folder))
        assert type(caught.value) is kind and folder in str(caught.value.where)


@pytest.mark.parametrize(
    ("description", "says"),
    [
        (None, "no I/O description"),
        (InputDescription(shape=(5, 7, 3), dtype="f32"), "f32"),
        (InputDescription(shape=(5, 7, 2), dtype="u8"), "no gray or colour"),
        (InputDescription(shape=(5, 7, 3), dtype="u8", color="gray"), "no gray or colour"),
        (InputDescription(shape=(105,), dtype="u8"), "no gray or colour"),
    ],
)
def test_models_that_take_no_images(description: InputDescription | None, says: str) -> None:
    path = picture("a.png", pixels(5, 7, 3))
    described = None if description is None else IODescription((description,))
    with pytest.raises(UsageError) as caught:
        load_samples(path, described, description.shape if description else (5, 7, 3))
    assert says in str(caught.value) and caught.value.where == "a.png"


def test_another_size_is_resized_as_described_or_refused() -> None:
    array = pixels(20, 31, 3)
    path = picture("a.png", array)
    fitting = InputDescription(shape=(5, 7, 3), dtype="u8", resize=8, crop=(5, 7), mean=(1, 2, 3), std=(4, 5, 6))
    got = load_samples(path, IODescription((fitting,)), (5, 7, 3))
    assert np.array_equal(got.x, fitting.preprocess(array)) and got.x.dtype == np.float32
    with pytest.raises(UsageError, match="takes shape") as caught:
        next(load_samples(path, IODescription((RGB,)), (5, 7, 3)).batches(1))
    assert caught.value.where == "a.png"


def test_without_pillow_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture("a.png", pixels(5, 7))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingPackageError) as caught:
        read_image(path, GRAY)
    assert caught.value.fix == "pip install 'bdnet-deploy[images]'"


# -- hostile files ----------------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG that claims this size and has a few bytes of data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(8192, 8193), (10_000, 10_000), (100_000, 100_000)])
def test_decompression_bombs_are_refused(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    Path("bomb.png").write_bytes(png(width, height))
    with pytest.raises(BdnetError, match="too large") as caught:
        read_image(Path("bomb.png"), GRAY)
    assert caught.value.where == "bomb.png"


def test_files_that_are_no_images() -> None:
    whole = picture("whole.png", pixels(50, 70)).read_bytes()
    for data in (b"", b"text", whole[:200], whole[:-100], png(7, 5)[:40], png(70, 50), b"GIF89a", b"II*\0"):
        Path("bad.png").write_bytes(data)
        with pytest.raises(BdnetError, match="no image that can be read") as caught:
            read_image(Path("bad.png"), GRAY)
        assert caught.value.where == "bad.png" and caught.value.exit_code == 1


def test_a_format_whose_decoder_starts_a_program_is_not_recognised() -> None:
    Path("a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 5\n%%EndComments\nshowpage\n")
    with Image.open("a.png") as image:
        assert image.format == "EPS"  # Pillow itself would hand it to Ghostscript
    with pytest.raises(BdnetError) as caught:
        read_image(Path("a.png"), GRAY)
    assert "cannot identify" in str(caught.value.why)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_damaged_images_end_in_an_image_or_a_clear_error(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("this Pillow does not write it")
    stream = io.BytesIO()
    Image.fromarray(pixels(9, 11, 3)).save(stream, kind)
    rng = np.random.default_rng(len(kind))
    errors = 0
    for _ in range(150):
        data = bytearray(stream.getvalue())
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        Path("damaged.png").write_bytes(data[: int(rng.integers(1, 2 * len(data)))])
        try:
            raw = read_image(Path("damaged.png"), RGB)
        except BdnetError as error:
            assert error.where == "damaged.png"
            errors += 1
        else:
            assert raw.ndim == 4 and raw.dtype == np.uint8 and raw.shape[-1] == 3
    assert errors > 20


# -- parts of sample sets -----------------------------------------------------------------------------------------------------


def test_spread_is_even_over_the_classes() -> None:
    y = np.array([0] * 10 + [1] * 2 + [2] * 8)
    for limit in range(1, 25):
        chosen = spread(len(y), y, limit)
        assert len(chosen) == min(limit, len(y)) == len(set(chosen.tolist())) and (np.diff(chosen) > 0).all()
        counts = np.bincount(y[chosen], minlength=3)
        for a in range(3):  # no class has two more than another one that could give more
            for b in range(3):
                assert counts[a] <= counts[b] + 1 or counts[b] == (y == b).sum()
    assert spread(10, None, 3).tolist() == [0, 3, 6] and spread(3, None, 5).tolist() == [0, 1, 2]
    assert spread(6, np.array([0, 0, 0, 1, 1, 1]), 2).tolist() == [0, 3]
    many = spread(1000, np.arange(1000), 10)
    assert many.tolist() == list(range(0, 1000, 100))


def test_limits_of_a_folder_and_of_a_file(digits: Model) -> None:
    folder = digit_folder(Path("tree"), CALIBRATION, 100)
    part = digits.samples(folder, limit=20)
    assert isinstance(part, ImageSamples) and np.bincount(part.y).tolist() == [2] * 10  # type: ignore[arg-type]
    assert len(part.files) == 20 and part.classes == tuple("0123456789")
    again = part.limited(10)
    assert isinstance(again, ImageSamples) and np.bincount(again.y).tolist() == [1] * 10  # type: ignore[arg-type]
    with np.load(CALIBRATION) as arrays:
        first = digits.samples(CALIBRATION, limit=20)
        assert np.array_equal(first.y, arrays["y"][:20])  # type: ignore[arg-type]
        assert len(first.spread(100)) == 20 and first.spread(100) is first
    assert part.key == digits.samples(folder, limit=20).key != digits.samples(folder, limit=19).key
    os.utime(part.files[0], ns=(1, 1))
    assert part.key != digits.samples(folder, limit=20).key


# -- ranges -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", FIXED)
def test_a_folder_and_an_npz_file_of_the_same_pixels_give_the_same_network(digits: Model, numerics: str) -> None:
    folder = digit_folder(Path("tree"), CALIBRATION, 100)
    flat = Path("flat")
    flat.mkdir()
    with np.load(CALIBRATION) as arrays:
        for i, x in enumerate(arrays["x"]):
            picture(flat / f"{i:03}.png", x[..., 0])
    expected = digits.lowered(numerics, CALIBRATION)
    for source in (folder, flat):
        found = digits.lowered(numerics, source)
        assert found.seen is not None and expected.seen is not None and found.seen.samples == 100
        assert found.seen.low.keys() == expected.seen.low.keys()
        for name in expected.seen.low:
            assert np.array_equal(found.seen.low[name], expected.seen.low[name]), name
            assert np.array_equal(found.seen.high[name], expected.seen.high[name]), name
        for a, b in zip(found.graph.constants(), expected.graph.constants(), strict=True):
            assert np.array_equal(a.data, b.data)  # type: ignore[arg-type]


def test_calibration_holds_one_batch_of_images(digits: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = digit_folder(Path("tree"), CALIBRATION, 100)
    read, steps = [0], []

    def counted(path: Path, description: InputDescription) -> Array:
        read[0] += 1
        return read_image(path, description)

    monkeypatch.setattr(samples, "read_image", counted)
    digits.lowered("fixed8", folder, progress=lambda what, done, total: steps.append((what, done, total, read[0])))
    assert steps == [("calibrating", n, 100, n) for n in (32, 64, 96, 100)]  # each batch is read when it is its turn
    digits.lowered("fixed8", folder, progress=lambda what, done, total: pytest.fail("it was calibrated before"))
    assert read[0] == 100


def test_batches_and_arrays_give_the_same_ranges(digits: Model) -> None:
    class Source:
        def __len__(self) -> int:
            return 70

        def batches(self, size: int) -> Iterator[Array]:
            for start in range(0, 70, min(size, 9)):
                yield x[start : start + min(size, 9)]

    real = merge_affine(digits.graph)
    x = digits.samples(TEST, limit=70).x
    whole, parts = calibrate(real, [x]), calibrate(real, Source())
    assert whole.samples == parts.samples == 70
    for name in whole.low:
        assert np.array_equal(whole.low[name], parts.low[name]) and np.array_equal(whole.high[name], parts.high[name])
    bad = x.copy()
    bad[66, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        calibrate(real, Samples(bad, None))
    with pytest.raises(UsageError, match="no calibration samples"):
        calibrate(real, [x[:0]])


# -- the report ---------------------------------------------------------------------------------------------------------------


def small_graph() -> Graph:
    """sign(2 x) against 5, and a sum of its bits: channel 0 of the output is +sign, channel 1 -sign."""
    graph = Graph()
    x = graph.input("x", (1, 1, 1, 1), DType.F64)

    def affine(value: Value, mul: float, name: str) -> Value:
        parameters = [graph.parameter("p", np.full(value.type.channels, p)) for p in (mul, 0.0)]
        return graph.add(Affine(), [value, *parameters], name, source=name)

    doubled = affine(x, 2.0, "doubled")
    bit = graph.add(Sign(), [doubled, graph.parameter("t", np.array([5.0]))], "bit", source="bit")
    weights = graph.constant("w", np.array([1, -1]).reshape(2, 1, 1, 1), DType.BIT)
    graph.outputs = [affine(graph.add(Conv2d(), [bit, weights], "conv", source="conv"), 1.0, "logits")]
    return graph


def narrow(description: InputDescription | None) -> tuple[Graph, Lowered]:
    """The small graph, calibrated on -1 and 1 only."""
    graph = small_graph()
    seen = np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)
    described = None if description is None else IODescription((description,))
    return merge_affine(graph), lower(graph, "fixed8", io=described, samples=seen)


#: Beyond what calibration saw: the first, the last two. Above the sign's threshold in float: 3 only.
VALUES = np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0], np.float32).reshape(7, 1, 1, 1)


def test_saturation_of_an_edge_by_hand() -> None:
    # Raw pixels reach from -8 to 7.9, so the input holds all values, and 2 x saturates beyond -2.03 and 2.
    description = InputDescription(shape=(1, 1, 1), dtype="u8", scale=1 / 16, zero_point=128)
    found = compare(*narrow(description), Samples(VALUES, None))
    edges = {edge.value.name: edge for edge in found.edges}
    assert (edges["x"].values, edges["x"].saturated, edges["x"].beyond) == (7, 0, 0)
    doubled = edges["doubled"]
    assert doubled.low.tolist() == [-2.0] and doubled.high.tolist() == [2.0]
    np.testing.assert_allclose(np.ravel(doubled.representable), [-128 * 2 / 127, 2.0], rtol=1e-6)
    assert doubled.used == pytest.approx(2 / (127.5 * 2 / 127) + 0.5 / 127.5)  # zero is half a step off the middle
    assert (doubled.values, doubled.saturated, doubled.beyond) == (7, 3, 3)
    assert [(s.node.name, s.values, s.equal) for s in found.signs] == [("bit", 7, 6)]  # 3 is cut to 1 and falls below
    assert found.samples == 7 and found.same_top1 == 6 and found.real_correct is None


def test_saturation_of_the_input_by_hand() -> None:
    # Without an I/O description the input is int8 over what was seen: it is the input that saturates.
    y = np.array([1, 1, 1, 0, 1, 1, 0])  # of output (bit, -bit): class 0 where 2 x >= 5
    found = compare(*narrow(None), Samples(VALUES, y), y)
    edges = {edge.value.name: edge for edge in found.edges}
    assert (edges["x"].values, edges["x"].saturated, edges["x"].beyond) == (7, 3, 3)
    assert (edges["doubled"].saturated, edges["doubled"].beyond) == (0, 3)  # it gets values that fit
    assert (found.real_correct, found.correct, found.same_top1) == (6, 5, 6)


def exact(value: Value, arrays: list[Array]) -> list[int]:
    """An affine or two-slope by Python's own integers, nothing clipped."""
    assert value.node is not None
    op, rows = value.node.op, [a.tolist() for a in map(np.ravel, arrays)]
    channels = value.type.channels
    results = []
    for i in range(len(rows[0])):
        c = i % channels
        if isinstance(op, Affine):
            total = rows[-1][c]
            for x, mul, shift in zip(rows[: op.terms], rows[op.terms : -1], op.shifts, strict=True):
                total += (x[i] * 2**shift if shift >= 0 else x[i] // 2**-shift) * mul[c]
        else:
            total = rows[0][i] * (rows[1][c] if rows[0][i] >= 0 else rows[2][c])
        results.append(total // 65536)
    return results


@pytest.mark.parametrize("numerics", FIXED)
@pytest.mark.parametrize("seed", range(12))
def test_counts_equal_those_of_plain_loops(seed: int, numerics: str) -> None:
    network = random_network(seed)
    real = merge_affine(network.graph)
    try:
        lowered = lower(network.graph, numerics, io=network.io, samples=0.3 * network.samples)
    except UnsupportedError:
        pytest.skip("not possible")
    x = network.samples.astype(np.float32)
    y = np.arange(len(x)) % real.outputs[0].type.channels
    found = compare(real, lowered, Samples(x, y), y)
    encoded = lowered.encode(x)
    before, after = evaluate(real, [x], keep=True), evaluate(lowered.graph, [encoded], keep=True)
    own = {n.name for n in real.nodes if isinstance(n.op, Quantize)}  # the model's own integers saturate on purpose
    own |= {f"{name}.{way}" for name in own for way in ("coarse", "wide")}
    edges = {e.value for e in found.edges if e.value.name not in own}
    assert edges == {
        *lowered.graph.inputs,
        *(n.output for n in lowered.graph.nodes if isinstance(n.op, Affine | TwoSlope) and n.name not in own),
    }
    for edge in found.edges:
        value = edge.value
        assert edge.values == before[edge.real.name].size == after[value.name].size
        scale, zero = (np.broadcast_to(a, (value.type.channels,)) for a in (edge.quant.scale, edge.quant.zero_point))
        if value.node is None:
            unclipped = np.rint(x.astype(np.float64) / scale + zero).ravel().tolist()
        else:
            arrays = [v.data if v.data is not None else after[v.name] for v in value.node.inputs]
            unclipped = exact(value, arrays)
            assert np.ravel(unsaturated(value.node, arrays)).tolist() == unclipped
        assert edge.saturated == sum(a != b for a, b in zip(unclipped, after[value.name].ravel().tolist(), strict=True))
        ends = value.type.dtype.range
        steps = (before[edge.real.name] / scale + zero).reshape(-1)  # where the real value lies in units of the scale
        near = min(np.abs(steps - (ends[0] - 0.5)).min(), np.abs(steps - (ends[1] + 0.5)).min()) < 1e-6
        assert near or edge.beyond == int(((steps < ends[0] - 0.5) | (steps > ends[1] + 0.5)).sum())
    layers = [n for n in lowered.graph.nodes if isinstance(n.op, Sign | Ternarize)]
    assert [s.node for s in found.signs] == layers
    for signs in found.signs:
        pairs = zip(before[signs.real.name].ravel(), after[signs.node.name].ravel(), strict=True)
        assert signs.equal == sum(bool(a == b) for a, b in pairs) and signs.values == before[signs.real.name].size
    tops = [before[real.outputs[0].name], lowered.decode(after[lowered.graph.outputs[0].name])]
    a, b = (t.reshape(len(x), -1).argmax(1) for t in tops)
    assert found.samples == len(x) and found.same_top1 == int((a == b).sum())
    assert (found.real_correct, found.correct) == (int((a == y).sum()), int((b == y).sum()))


def test_wider_samples_saturate_somewhere() -> None:
    """So that the test above does not compare zeros."""
    saturated = []
    for seed in range(12):
        network = random_network(seed)
        try:
            lowered = lower(network.graph, "fixed8", io=network.io, samples=0.3 * network.samples)
        except UnsupportedError:
            continue
        x = network.samples.astype(np.float32)
        saturated.append(compare(merge_affine(network.graph), lowered, Samples(x, None)).saturated)
    assert sum(n > 0 for n in saturated) >= 5


def test_folded_layers_have_no_edge_and_keep_their_signs() -> None:
    graph = small_graph()
    logits = graph.outputs[0]
    folded = graph.add(Sign(), [logits, graph.parameter("t", np.zeros(2))], "folded", source="folded")
    weights = graph.constant("w", np.array([[1, 1], [-1, 1]]).reshape(2, 1, 1, 2), DType.BIT)
    conv = graph.add(Conv2d(), [folded, weights], "last", source="last")
    parameters = [graph.parameter("p", np.full(2, p)) for p in (1.0, 0.0)]
    graph.outputs = [graph.add(Affine(), [conv, *parameters], "end", source="end")]
    lowered = lower(graph, "fixed16", samples=VALUES)
    found = compare(merge_affine(graph), lowered, Samples(VALUES, None))
    assert [edge.value.name for edge in found.edges] == ["x", "doubled", "end"]
    assert [(s.node.name, s.values, s.equal) for s in found.signs] == [("bit", 7, 7), ("folded", 14, 14)]


@pytest.mark.parametrize("numerics", FIXED)
def test_report_of_the_digits(digits: Model, numerics: str) -> None:
    steps: list[tuple[str, int, int]] = []
    report = digits.calibration(
        CALIBRATION, numerics, limit=40, progress=lambda what, done, total: steps.append((what, done, total))
    )
    assert report.kind == "calibration" and steps[-1] == ("comparing with float", 40, 40)
    (row,) = report.table("calibration").rows
    assert (row["calibrated"], row["compared"], row["numerics"]) == (100, 40, numerics)
    part = digits.samples(CALIBRATION).spread(40)
    assert np.bincount(part.y).tolist() == [4] * 10  # type: ignore[arg-type]
    fixed = digits.run(part, numerics=numerics, calibrate=CALIBRATION).argmax(-1)
    real = evaluate(digits.graph, [part.x])[digits.graph.outputs[0].name].argmax(-1)
    assert row["same_top1"] == int((fixed == real).sum())
    assert (row["float_correct"], row["correct"]) == (int((real == part.y).sum()), int((fixed == part.y).sum()))
    ranges, signs = report.table("ranges").rows, report.table("signs").rows
    assert row["saturated"] == sum(int(str(r["saturated"])) for r in ranges)
    assert row["signs"] == sum(int(str(r["values"])) for r in signs) and len(signs) == 8
    seen = digits.lowered(numerics, CALIBRATION).seen
    assert seen is not None
    by_name = {r["edge"]: r for r in ranges}
    for name in ("stem_bn", "classifier.bias"):
        assert by_name[name]["low"] == seen.low[name].min() and by_name[name]["high"] == seen.high[name].max()
    with pytest.raises(UsageError, match="float has no ranges"):
        digits.calibration(CALIBRATION, "float")
    with pytest.raises(UsageError, match="unknown numerics"):
        digits.calibration(CALIBRATION, "fixed9")


def test_the_fullest_channel_counts_from_the_middle_of_what_is_representable() -> None:
    graph = narrow(InputDescription(shape=(1, 1, 1), dtype="u8", scale=1.0, zero_point=0.0))[1].graph
    value = graph.inputs[0]
    for low, high, share in ((0.0, 255.0, 1.0), (0.0, 127.5, 1.0), (63.75, 127.5, 0.5), (100.0, 510.0, 3.0)):
        edge = Edge(value, value, np.array([low]), np.array([high]))
        assert edge.used == pytest.approx(share)


# -- commands -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(digits: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The commands get this model instead of reading the file again and again."""
    monkeypatch.setattr("bdnet_deploy.loading.load", lambda *args, **kwargs: digits)
    return digits


def report_of(*arguments: object) -> dict[str, dict[str, list[dict[str, object]]]]:
    result = invoke(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    tables = json.loads(result.stdout)["tables"]
    assert isinstance(tables, dict)
    return tables


def test_inspect_shows_what_fixed_point_does(loaded: Model) -> None:
    tables = report_of("inspect", MODEL, "--numerics", "fixed8", "--calibrate", CALIBRATION, "--limit", 30)
    expected: Report = loaded.calibration(CALIBRATION, "fixed8", limit=30)
    for key in ("calibration", "ranges", "signs"):
        assert tables[key] == expected.to_dict()["tables"][key]
    assert "calibration" not in report_of("inspect", MODEL)
    text = invoke("inspect", MODEL, "--calibrate", CALIBRATION, "--limit", 5)
    assert text.exit_code == 0 and "fixed16" in text.stdout and "signs and trits" in text.stdout


def test_export_with_a_folder_prints_the_summary(loaded: Model) -> None:
    folder = digit_folder(Path("tree"), CALIBRATION, 100)
    fixed = ("--target", "bdn", "--numerics", "fixed8", "--calibrate")
    tables = report_of("export", MODEL, *fixed, folder, "-o", "a.bdn")
    assert tables["calibration"]["rows"][0]["compared"] == 100 and "ranges" not in tables
    expected = loaded.calibration(folder, "fixed8").to_dict()["tables"]["calibration"]
    assert tables["calibration"] == expected
    assert "calibration" not in report_of("export", MODEL, "--target", "bdn", "-o", "float.bdn")
    assert invoke("verify", MODEL, "a.bdn", "--calibrate", folder).exit_code == 0
    # The other order of the same samples changes the self-test inside, not the network.
    assert invoke("verify", MODEL, "a.bdn", "--calibrate", CALIBRATION, "--inputs", folder).exit_code == 0
    part = ("--calibrate-limit", 20)
    few = report_of("export", MODEL, *fixed, folder, *part, "-o", "b.bdn")["calibration"]["rows"][0]
    assert (few["calibrated"], few["compared"]) == (20, 20)
    assert invoke("verify", MODEL, "b.bdn", "--calibrate", folder, *part).exit_code == 0
    assert invoke("verify", MODEL, "b.bdn", "--calibrate", folder).exit_code == 4


def test_evaluate_takes_class_folders(loaded: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = digit_folder(Path("tree"), TEST, 60)
    part = loaded.samples(folder)
    monkeypatch.setattr(Samples, "parts", lambda self: self.batches(7))  # many parts
    options = (
        "--calibrate",
        CALIBRATION,
        "--backend",
        "pytorch",
        "--backend",
        "host:fixed8",
        "--backend",
        "reference:fixed8",
    )
    rows = report_of("evaluate", MODEL, "--data", folder, *options)["backends"]["rows"]
    expected = report_of("evaluate", MODEL, "--data", TEST, "--limit", 60, *options)["backends"]["rows"]
    assert [r["correct"] for r in rows] == [r["correct"] for r in expected]
    assert rows[2]["bytes_equal"] == "equal to host fixed8 on all 60"
    predicted = loaded.run(folder, numerics="fixed8", calibrate=CALIBRATION).argmax(-1)
    assert rows[1]["correct"] == int((predicted == part.y).sum()) and rows[1]["samples"] == 60
    limited = report_of("evaluate", MODEL, "--data", folder, "--limit", 10, "--backend", "host")["backends"]["rows"]
    assert limited[0]["samples"] == 10


def test_run_takes_one_image() -> None:
    with np.load(TEST) as arrays:
        picture("seven.png", arrays["x"][0, ..., 0])
    (row,) = report_of("run", MODEL, "--data", "seven.png")["predictions"]["rows"]
    (same,) = report_of("run", MODEL, "--data", TEST, "--limit", 1)["predictions"]["rows"]
    assert row["file"] == "seven.png" and "file" not in same
    assert (row["predicted"], row["logit"]) == (same["predicted"], same["logit"])
    assert invoke("export", MODEL, "--target", "bdn").exit_code == 0
    (exported,) = report_of("run", "model.bdn", "--data", "seven.png")["predictions"]["rows"]
    assert (exported["predicted"], exported["file"]) == (row["predicted"], "seven.png")


def test_exit_codes(loaded: Model) -> None:
    folder = digit_folder(Path("tree"), CALIBRATION, 12)
    fixed = ("export", MODEL, "--target", "bdn", "--numerics", "fixed8", "-o", "x.bdn")
    refused(*fixed, "--calibrate-limit", 3, code=2, says="--calibrate-limit needs samples")
    refused("inspect", MODEL, "--numerics", "float", "--calibrate", folder, code=2, says="float needs no calibration")
    refused("inspect", MODEL, "--numerics", "fixed4", "--calibrate", folder, code=2, says="unknown numerics")
    refused("run", "x.bdn", "--data", folder, "--calibrate-limit", 3, code=2, says="leave --calibrate-limit out")
    refused(*fixed, "--calibrate", "nowhere", code=1, says="no such file")
    Path("empty").mkdir()
    refused(*fixed, "--calibrate", "empty", code=2, says="no images in the folder")
    picture("large/a.png", pixels(9, 9))
    refused(*fixed, "--calibrate", "large", code=2, says="a.png")
    for name in range(11):
        picture(f"many/class{name}/a.png", pixels(8, 8))
    refused("evaluate", MODEL, "--data", "many", code=2, says="11 class folders, the model has 10 classes")
    (folder / "3" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for command in (fixed, ("inspect", MODEL, "--numerics", "fixed8")):
        refused(*command, "--calibrate", folder, code=1, says="broken.png")
    refused("evaluate", MODEL, "--data", folder, "--backend", "host", code=1, says="broken.png")
    assert not Path("x.bdn").exists()
