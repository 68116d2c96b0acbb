"""Pictures and their texts -> one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from pixpro.errors import printable


class Picture(NamedTuple):
    """A picture and what it shows, for those who cannot see it."""

    image: Image.Image
    alt: str

    @property
    def uri(self) -> str:
        """The picture as a PNG inside an address."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Table(NamedTuple):
    """Rows of cells below a row of heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A part of the page; what is empty is left out. folded: the table shows when the reader asks for it.

    pictures: rows of them, which break where the page is narrow.
    """

    title: str
    texts: Sequence[str] = ()
    pictures: Sequence[Sequence[Picture]] = ()
    table: Table | None = None
    code: Sequence[str] = ()
    folded: bool = False


def page(title: str, text: str, sections: Sequence[Section], maker: str) -> str:
    """The page; all texts are escaped, so that names with markup or control characters in them stay names.

    maker: the command that it comes from.
    """
    from jinja2 import Environment, PackageLoader  # imported where a page is made, as others need not wait

    loader = PackageLoader("pixpro", "visualize")
    environment = Environment(loader=loader, autoescape=True, finalize=plain, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("page.html")
    return template.render(title=title, text=text, sections=sections, maker=maker)


def plain(value: Any) -> Any:
    """A text without control characters."""
    return printable(value) if isinstance(value, str) else value
