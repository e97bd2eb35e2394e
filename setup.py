"""The README as an index shows it: its links are absolute once project.urls has a Source.

All else about the package is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent


def readme() -> str:
    """The text, with links that lead from anywhere."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project["urls"].get("Source")
    if source is None:
        return text

    def absolute(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        return f"{picture}[{label}]({source}/{'raw' if picture else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", absolute, text)


setup(long_description=readme(), long_description_content_type="text/markdown")
