"""Pictures and their texts -> one HTML file that needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from pixpro.errors import printable

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: #fafaf8; color: #202228;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem; overflow-wrap: anywhere; }
nav ul { padding-left: 1.2rem; } nav a { color: #1a5fb4; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; border-radius: 8px; background: #fff; }
footer { color: #6e7078; margin-top: 3rem; font-size: .9rem; }
"""


class Section(NamedTuple):
    """One picture on the page."""

    title: str
    image: Image.Image
    text: str  # what the picture shows, for those who cannot see it


def data_uri(image: Image.Image) -> str:
    """The image as a PNG inside an address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def html_page(title: str, text: str, sections: Sequence[Section]) -> str:
    """The page; all texts are escaped, so that file names with markup or control characters in them stay names."""
    links = "".join(
        f'<li><a href="#s{number}">{shown(section.title)}</a></li>' for number, section in enumerate(sections)
    )
    bodies = "".join(
        f'<section id="s{number}"><h2>{shown(section.title)}</h2>'
        f'<img src="{data_uri(section.image)}" alt="{shown(section.text)}"></section>\n'
        for number, section in enumerate(sections)
    )
    navigation = f"<nav><ul>{links}</ul></nav>" if len(sections) > 1 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{shown(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{shown(title)}</h1><p>{shown(text)}</p>{navigation}\n"
        f"{bodies}<footer>Made by python -m pixpro visualize.</footer></body></html>\n"
    )


def shown(text: str) -> str:
    """Text as HTML that shows it."""
    return html.escape(printable(text))
