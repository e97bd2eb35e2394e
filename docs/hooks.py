"""What mkdocs does to a page of the repository before it becomes a page of the site.

Pages are written so that GitHub shows them: formulas as $`...`$, links relative to the file. Pages
that lie outside docs/ belong to the site too; files of code become links into its reference.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "CONTRIBUTING.md",
    *(f"{x}/README.md" for x in ("benchmarks", "inference", "notebooks", "paper_figures")),
    "simulate/README.md",
}
"""Pages of the site that are not in docs/, by their path in the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/."""
    for path in sorted(OUTSIDE):
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as the site's extension reads them, links as they lead within the site."""
    here = page.file.src_uri
    at = here if here in OUTSIDE else f"docs/{here}"

    def formula(found: re.Match[str]) -> str:
        # A bar would end the cell of a table.
        inside = found[1].replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        return rf"\({inside}\)"

    def link(found: re.Match[str]) -> str:
        label, path, anchor = found.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(at), path))
        if target.startswith("docs/") or target in OUTSIDE:
            inside = target.removeprefix("docs/")
            return f"[{label}]({posixpath.relpath(inside, posixpath.dirname(here))}{anchor or ''})"
        if target.startswith("msjax/"):
            module = target.removesuffix(".py").replace("/", ".")
            name = label.strip("`").rpartition(".")[2]
            # A claim stands for its module, a name in code for what is defined there.
            names_module = not label.startswith("`") or module.endswith(f".{name}")
            return f"[{label}][{module if names_module else f'{module}.{name}'}]"
        return label  # a file of the repository that the site does not show

    markdown = re.sub(r"\$`([^`]+)`\$", formula, markdown)
    local = r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)"
    return re.sub(local, link, markdown)
