"""Data Docs: one file that shows what failed and needs no network."""

import re
from datetime import date

from uic.pipelines.quality.facts import LogRules
from uic.pipelines.quality.gates import gate_behaviors
from uic.pipelines.quality.page import write_page
from uic.pipelines.settings import QualitySettings

DAY = date(2024, 3, 3)
RULES = LogRules(QualitySettings(), "UTC", 300)


def report_of(folder, fault):
    if fault:
        folder.behaviors[DAY][5]["item_id"] = -987
    return gate_behaviors(folder.publish(), folder.days[0], folder.days[-1], RULES)


def test_the_page_shows_the_failing_expectation_and_its_row(tmp_path, log_folder):
    path = write_page(tmp_path / "quality", report_of(log_folder, fault=True))
    page = path.read_text()
    assert path.name == "behaviors.html"
    assert "1 of 24 expectations failed" in page
    assert "item_id: item_id is at least 0 (at most 0 rows)" in page  # by Great Expectations
    assert "1 unexpected values found" in page
    assert "<td>-987</td>" in page
    assert page.index("item_id.negative") < page.index("<h2>Expectations</h2>")


def test_the_page_says_so_when_all_is_well(tmp_path, log_folder):
    page = write_page(tmp_path, report_of(log_folder, fault=False)).read_text()
    assert "all 24 expectations passed" in page
    assert "could not be rendered" not in page
    assert "every day of the range has rows" in page


def test_the_page_loads_nothing(tmp_path, log_folder):
    page = write_page(tmp_path, report_of(log_folder, fault=True)).read_text()
    assert "<script" not in page
    assert re.findall(r"https?://|<link|<img|src=", page) == []
    assert re.findall(r'href="[^#]', page) == []


def test_the_same_report_gives_the_same_bytes(tmp_path, log_folder):
    report = report_of(log_folder, fault=True)
    first = write_page(tmp_path / "a", report).read_bytes()
    assert write_page(tmp_path / "b", report).read_bytes() == first


def test_values_are_escaped(tmp_path, log_folder):
    log_folder.behaviors[DAY][5]["behavior"] = "<script>alert(1)</script>"
    page = write_page(tmp_path, report_of(log_folder, fault=False)).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
