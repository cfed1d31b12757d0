"""From a file to its text, and from a text to pieces short enough to embed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pypdf import PdfReader
from selectolax.lexbor import LexborHTMLParser

HEAD = 1024  # bytes that tell the kind
PIECE = 800  # characters, about 200 tokens
SILENT = "script, style, noscript, template"


def kind_of(head: bytes) -> str | None:
    """pdf, html or text by the first bytes of a file, whatever it is called; None for anything else."""
    start = head.lstrip()[:64].lower()
    if start.startswith(b"%pdf-"):
        return "pdf"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")):
        return "html"
    return None if b"\x00" in head else "text"


def text_of(path: Path) -> str:
    """The text of a PDF, an HTML page or a text in UTF-8.

    Raises:
        pypdf.errors.PyPdfError: a PDF that cannot be read.
        UnicodeDecodeError: a text in another encoding.
        ValueError: none of the three.
    """
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD))
    match kind:
        case "pdf":
            return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
        case "html":
            return text_of_page(path.read_bytes())
        case "text":
            return path.read_text("utf-8")
        case _:
            raise ValueError("neither PDF nor HTML nor text")


def text_of_page(html: bytes) -> str:
    """What a reader sees of an HTML page."""
    page = LexborHTMLParser(html)
    for node in page.css(SILENT):
        node.decompose()
    return "" if page.body is None else page.body.text(separator="\n", strip=True)


def pieces_of(text: str) -> Iterator[str]:
    """The text in pieces of at most `PIECE` characters, cut between words."""
    piece = ""
    for word in text.split():
        for part in (word[start : start + PIECE] for start in range(0, len(word), PIECE)):
            if piece and len(piece) + 1 + len(part) > PIECE:
                yield piece
                piece = part
            else:
                piece = f"{piece} {part}" if piece else part
    if piece:
        yield piece
