"""Tables, and the places in documents where measured figures stand."""

import re


def table(header: list[str], rows: list[list]) -> str:
    """The first column to the left, figures to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *rows])


def refreshed(document: str, blocks: dict[str, str]) -> str:
    """The document with the text between its markers replaced. Every block must have its place."""
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(document):
            raise ValueError(f"no place for {name}")
        document = marked.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", document)
    return document
