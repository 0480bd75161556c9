"""What code and documents cite is there: pages, files, modules."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "feature_repo", "pipelines", "jobs")
# Where uic itself writes such names: folders of a workspace, not of the repository.
MADE = re.compile(r"^(models|jobs)/[A-Z]|/NAME\b")
FILE = re.compile(
    r"(?<![\w./-])((?:models|feature_repo|pipelines|jobs|benchmarks|tests|docs|infra|examples)/"
    r"[\w./-]*\.(?:py|md|yaml|toml|lua|json|xml|ipynb))(?![\w/])"
)
MODULE = re.compile(r"\buic\.(?:models|feature_repo|pipelines|jobs)(?:\.[a-z_]\w*)+")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
HOUSE = re.compile(r"\b(DESIGN|CHECKLIST|HOUSE\.md|STYLE\.md)\b")
# They hide who is meant: users, callers, readers, a team.
VAGUE = re.compile(r"\b(everybody|nobody|somebody|whoever|anybody)\b", re.I)


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in done.stdout.split() if not (ROOT / name).is_symlink()]


TEXTS = [
    path
    for path in tracked("*.py", "*.md", "*.yaml", "*.yml", "*.toml", "Makefile", "infra/Dockerfile")
    if path.name not in {"test_documents.py", "CHANGELOG.md"}
]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_cited_file_and_module_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cited = [name for name in FILE.findall(text) if not MADE.search(name)]
    lost = [name for name in cited if not (ROOT / name).exists()]
    lost += [name for name in set(MODULE.findall(text)) if not _is_there(name)]
    lost += list(HOUSE.findall(text))
    if path.suffix == ".md":
        lost += [name for name in LINK.findall(text) if not (path.parent / name).exists()]
    assert lost == []


PAGES = [path for path in TEXTS if path.suffix == ".md"] + [ROOT / "CHANGELOG.md"]
TO_ELSEWHERE = re.compile(r"^https://[a-z0-9.-]+\.[a-z]{2,}(/[\w./-]*)?$")
# Pages of others that documents link to. No test asks the network: open one when you change it.
ELSEWHERE = {
    "https://chronon.ai/Aggregations.html",
    "https://docs.feast.dev/v/v0.39-branch/reference/data-sources/push",
    "https://docs.feast.dev/v0.67-branch/tutorials/building-streaming-features",
    "https://docs.tecton.ai/v2/overviews/framework/feature_views/stream_window_aggregate_feature_view.html",
    "https://github.com/airbnb/chronon",
    "https://github.com/bytedance/monolith",
    "https://github.com/datawhalechina/torch-rechub",
    "https://github.com/reczoo/FuxiCTR",
    "https://keepachangelog.com/en/1.1.0/",
    "https://semver.org/",
}


def prose(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """What a link may name of a page: its headings, where GitHub and MkDocs call them the same."""
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(path), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        words = re.sub(r"[^\w\s-]", "", text).strip().lower()
        github, mkdocs = words.replace(" ", "-"), re.sub(r"[-\s]+", "-", words)
        found |= {github} & {mkdocs}
    return found


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_of_it(path: Path) -> None:
    lost = []
    for link in links(path):
        if link in ELSEWHERE:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_pages_of_others_are_listed_here() -> None:
    named = {link for path in PAGES for link in links(path) if "://" in link}
    assert named == ELSEWHERE
    assert [link for link in named if not TO_ELSEWHERE.match(link)] == []


def test_the_site_has_every_page_of_docs() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"^ +- (\S+\.md)$", site, re.M)) == pages


PRODUCT = [path for path in TEXTS if path.parts[len(ROOT.parts)] in {*PACKAGES, "docs", "examples"}]


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_text_says_who_is_meant(path: Path) -> None:
    if path.parent.name != "adr":
        assert VAGUE.findall(path.read_text(encoding="utf-8")) == []


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module, or a name that a module's text defines."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        folder = ROOT.joinpath(*parts[1:length])
        source = folder.with_suffix(".py") if folder.with_suffix(".py").is_file() else None
        if folder.is_dir() and length == len(parts):
            return True
        if source is not None:
            rest = parts[length:]
            return not rest or rest[0] in source.read_text(encoding="utf-8")
    return False


def test_the_rooms_of_the_architecture_page_are_the_folders() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        section = page.split(f"\n## {package}\n")[1].split("\n## ")[0]
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert rooms <= set(re.findall(r"`(\w+)/`", section)), package
