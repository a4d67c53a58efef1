"""Hooks of mkdocs.yml: links of the pages to files outside docs/ (sources, scripts).

On the repository's web page they work as they are. A site has these files only where they are
published (MTCKI_REPO_URL); without an address the text of the link stays."""

import posixpath
import re

LINK = re.compile(r"\[([^\]]*)\]\((\.\.?/[^)\s]*)\)")


def on_page_markdown(markdown, page, config, files):
    folder = posixpath.dirname(page.file.src_uri)

    def outside(match):
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match.group(0)
        if config["repo_url"]:
            return f"[{text}]({config['repo_url'].rstrip('/')}/blob/main/{path})"
        return text

    return LINK.sub(outside, markdown)
