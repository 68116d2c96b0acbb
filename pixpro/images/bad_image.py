"""The one exception for an image that cannot be used."""


class BadImage(Exception):
    """A file that cannot be used; its text says why."""


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise BadImage for a header that announces more than max_pixels, or none."""
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels, more than the limit of {max_pixels}")
    if width * height <= 0:
        raise BadImage(f"{width}x{height} pixels")
