"""Image files of every kind that VLMEvalKit and viewers decode differently, and of kinds that look as if they did."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from uniprune.results.remarks import DEPTH, ORIENTATION, TRANSPARENCY

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
RAMP = np.linspace(0, 1, 800).reshape(20, 40)
CLEAR = (0, 0, 0, 0)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the file of an image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def opened(data: bytes) -> Image.Image:
    """Open a file."""
    return Image.open(io.BytesIO(data))


def turned(value: int) -> Image.Exif:
    """Return EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def drawing(mode: str, clear: object, black: object) -> Image.Image:
    """Draw a rectangle in the middle of 40 x 20 pixels."""
    image = Image.new(mode, (40, 20), clear)
    image.paste(black, (10, 5, 30, 15))
    return image


def png(depth: int, colour: int, row: bytes, width: int, key: bytes) -> bytes:
    """Return a PNG of one row with a transparent colour; Pillow writes none of 2 or 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    body = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def paletted() -> Image.Image:
    """Draw black on a grey that is colour 0."""
    image = drawing("P", 0, 1)
    image.putpalette([200, 200, 200, 0, 0, 0])
    return image


DIFFERENT: dict[str, tuple[bytes, tuple[str, ...]]] = {
    **{f"orientation {n} JPEG": (saved(PHOTO, "JPEG", exif=turned(n)), (ORIENTATION,)) for n in range(2, 9)},
    **{f"orientation 6 {kind}": (saved(PHOTO, kind, exif=turned(6)), (ORIENTATION,)) for kind in ("PNG", "WEBP")},
    "16 bit PNG": (saved(Image.fromarray((RAMP * 65535).astype(np.uint16))), (DEPTH,)),
    "16 bit TIFF": (saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF"), (DEPTH,)),
    "16 bit PGM": (saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "PPM"), (DEPTH,)),
    "32 bit TIFF": (saved(Image.fromarray((RAMP * (2**31 - 1)).astype(np.int32)), "TIFF"), (DEPTH,)),
    "signed TIFF": (saved(Image.fromarray((RAMP * 60000 - 30000).astype(np.int32)), "TIFF"), (DEPTH,)),
    "unsigned TIFF": (
        saved(Image.fromarray((RAMP * (2**32 - 1)).astype(np.uint32).view(np.int32)), "TIFF").replace(
            struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1)
        ),
        (DEPTH,),
    ),
    "16 bit TIFF, white is 0": (
        saved(Image.fromarray((65535 - RAMP * 65535).astype(np.uint16)), "TIFF", tiffinfo={262: 0}),
        (DEPTH,),
    ),
    "float 0 to 1": (saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), (DEPTH,)),
    "float 0 to 65535": (saved(Image.fromarray((RAMP * 65535).astype(np.float32)), "TIFF"), (DEPTH,)),
    "RGBA": (saved(drawing("RGBA", CLEAR, (0, 0, 0, 255))), (TRANSPARENCY,)),
    "RGBA WebP": (saved(drawing("RGBA", CLEAR, (0, 0, 0, 255)), "WEBP", lossless=True), (TRANSPARENCY,)),
    "LA": (saved(drawing("LA", (0, 0), (0, 255))), (TRANSPARENCY,)),
    "palette, one colour": (saved(paletted(), transparency=0), (TRANSPARENCY,)),
    "palette, bytes": (saved(paletted(), transparency=b"\x00\xff"), (TRANSPARENCY,)),
    "palette GIF": (saved(paletted(), "GIF", transparency=0), (TRANSPARENCY,)),
    "tRNS of RGB": (saved(drawing("RGB", (9, 9, 9), (0, 0, 0)), transparency=(9, 9, 9)), (TRANSPARENCY,)),
    "tRNS of L": (saved(drawing("L", 9, 0), transparency=9), (TRANSPARENCY,)),
    "tRNS of 1 bit": (png(1, 0, b"\xf0", 8, struct.pack(">H", 1)), ()),  # white, which stays white
    "tRNS of 1 bit, black": (png(1, 0, b"\xf0", 8, struct.pack(">H", 0)), (TRANSPARENCY,)),
    "tRNS of 2 bits": (png(2, 0, b"\x1b", 4, struct.pack(">H", 2)), (TRANSPARENCY,)),
    "tRNS of 4 bits": (png(4, 0, b"\x1b", 2, struct.pack(">H", 1)), (TRANSPARENCY,)),
    "tRNS of 16 bit RGB": (png(16, 2, b"\x12\x34" * 3 + bytes(6), 2, b"\x12\x34" * 3), (TRANSPARENCY,)),
    "tRNS of 16 bit grey": (png(16, 0, b"\x12\x34\x80\0", 2, b"\x12\x34"), (DEPTH, TRANSPARENCY)),
    "tRNS of 16 bit grey, white either way": (png(16, 0, b"\x12\x34\0\0", 2, b"\x12\x34"), ()),
}
"""Name -> file, and the remarks about it; none where all differences cancel out."""

SAME: dict[str, bytes] = {
    "RGB PNG": saved(PHOTO),
    "RGB JPEG": saved(PHOTO, "JPEG"),
    "CMYK JPEG": saved(PHOTO.convert("CMYK"), "JPEG"),
    "palette": saved(PHOTO.quantize(64)),
    "1 bit": saved(PHOTO.convert("1")),
    "1 bit TIFF": saved(PHOTO.convert("1"), "TIFF", compression="group4"),
    "opaque RGBA": saved(PHOTO.convert("RGBA")),
    "transparent colour that does not occur": saved(drawing("L", 255, 0), transparency=9),
    "turned TIFF": saved(PHOTO, "TIFF", exif=turned(6)),  # Pillow turns it while it decodes
    "orientation 1": saved(PHOTO, "JPEG", exif=turned(1)),
    "orientation 9": saved(PHOTO, "JPEG", exif=turned(9)),
    "damaged EXIF": saved(PHOTO, "JPEG", exif=b"Exif\0\0nothing of the kind"),
    "turned, but symmetrical": saved(Image.new("RGB", (20, 20), "red"), "JPEG", exif=turned(6)),
    "32 bit values of 8": saved(Image.fromarray(np.array([[0, 255]], np.int32)), "TIFF"),
    "camera with a preview": saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO.resize((8, 4))]),
}
"""Name -> file that looks the same."""
