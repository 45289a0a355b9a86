"""Tables, and the blocks of measured figures in documents."""

import re


def table(header: list[str], rows: list[list]) -> str:
    """First column left-aligned, figures right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *rows])


def refreshed(document: str, blocks: dict[str, str]) -> str:
    """The document with the text between its markers replaced. Every block must have its markers."""
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(document):
            raise ValueError(f"no place for {name}")
        document = marked.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", document)
    return document
