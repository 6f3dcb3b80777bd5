"""From C sources to firmware images and Linux programs, with the compiler that comes from PyPI."""

from __future__ import annotations

from .image import STACK_BYTES, Image, build_image
from .zig import compile_objects, link, version

__all__ = ["STACK_BYTES", "Image", "build_image", "compile_objects", "link", "version"]
