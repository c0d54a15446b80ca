"""The page: self-contained, inert whatever people are called, readable by everyone."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clearinghouse.report import charts, charts_market, charts_scores, drawing
from clearinghouse.report import html as page_module
from clearinghouse.report.headline import headline
from clearinghouse.report.html import LIMITS, render_html

SHAPES = [
    {},
    {"n_sources": 60, "n_developers": 9, "baseline_wins": True},
    {"n_sources": 1, "n_developers": 1, "covered": True, "awarded": False},
    {"gap_reason": "too small", "undetermined": True, "dummies": 4},
    {"hostile": True},
]
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article"),
    *("aside", "nav", "div", "figure", "figcaption", "h1", "h2", "h3", "p", "b", "i", "br", "a"),
    *("ul", "li", "dl", "dt", "dd", "data", "span", "code", "pre", "details", "summary", "table"),
    *("caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "path", "defs", "use", "text"),
    *("clippath", "rect"),
}
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects what a browser would see; refuses elements that are not closed in order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text, self.data = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "data":
            self.data.append(dict(attrs)["value"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def rendered(request, sample):
    report = sample(**request.param)
    source = render_html(report)
    return report, source, Page(source)


def test_only_known_elements_and_no_handlers(rendered):
    _, _, page = rendered
    assert set(page.tags) <= ALLOWED
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.tags.count("h1") == 1


def test_nothing_is_loaded_from_anywhere(rendered):
    _, source, page = rendered
    assert not [name for _, name, _ in page.attributes if name in ("src", "srcset", "action")]
    for _, name, value in page.attributes:
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    for target in re.findall(r"url\(([^)]*)\)", source):
        assert target.startswith("#")
    assert "@import" not in source
    assert "http" not in source.replace("http-equiv", "")
    policies = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policies


def test_links_and_labels_point_to_ids_that_exist_once(rendered):
    _, _, page = rendered
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = [v.removeprefix("#") for _, name, v in page.attributes if name == "href"]
    wanted += [v for _, name, v in page.attributes if name == "aria-labelledby"]
    assert set(wanted) <= set(ids)


def test_tables_have_captions_and_scoped_heads_and_charts_have_words(rendered):
    _, _, page = rendered
    assert page.tags.count("caption") == page.tags.count("table") > 0
    scopes = [v for t, name, v in page.attributes if t == "th" and name == "scope"]
    assert len(scopes) == page.tags.count("th")
    labels = [v for t, name, v in page.attributes if t == "svg" and name == "aria-label"]
    assert len(labels) == page.tags.count("svg") >= 10
    assert all(len(label) > 20 for label in labels)


def test_headline_numbers_are_the_report_s(rendered):
    report, _, page = rendered
    facts = [f for card in headline(report).cards for f in (card.figure, *card.facts)]
    assert page.data == [fact.exact for fact in facts]
    text = "".join(page.text)
    for fact in facts:
        assert fact.shown in text


def test_every_row_of_the_report_is_on_the_page(rendered):
    report, _, page = rendered
    text = " ".join("".join(page.text).split())
    for source in report["clearing"]["quotas"]:
        assert (
            " ".join(source.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd").split()) in text
        )
    for score in report["scores"]:
        assert score["receipt"] in text
    for cell in report["match"]["uncovered"]:
        assert cell["words"] in text
    for line in report["verify"]:
        assert line in text
    for line in report["statement"]:
        assert line["amount"].rstrip("0").rstrip(".") in text
    assert report["log"]["checkpoint"].split()[0] in text
    for limit in LIMITS:
        assert limit in text


def test_no_missing_number_is_written_as_nan(rendered):
    _, _, page = rendered
    text = "".join(page.text)
    assert not re.search(r"\b(nan|NaN|None|null|inf|undefined)\b", text)


def test_the_same_report_gives_the_same_page(sample):
    assert render_html(sample()) == render_html(sample())


def test_hostile_names_are_text_and_carry_no_control_characters(sample):
    source = render_html(sample(hostile=True))
    page = Page(source)
    text = "".join(page.text)
    assert "<script>alert('x')</script>" in text
    assert "onerror=alert(1)" in text
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "u" not in page.tags
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_a_bad_report_is_shown_as_bad(sample):
    report = sample()
    assert "NOT" not in render_html(report)
    report["ledger"]["balanced"] = False
    report["log"]["verified"] = False
    report["scores"][0]["exact_counts_match"] = False
    source = render_html(report)
    assert "NOT balanced" in source
    assert "NOT verified" in source
    assert '<span aria-hidden="true">✗</span> NO' in source


def test_a_winning_baseline_is_said_in_every_place_and_covered_markets_say_so(sample):
    page = render_html(sample(baseline_wins=True))
    parts = [page.index('id="steps"'), page.index('id="match"'), page.index('id="people"')]
    parts += [page.index('id="downstream"'), page.index('id="privacy"')]
    for start, end in ((0, parts[0]), (parts[1], parts[2]), (parts[3], parts[4])):
        assert page[start:end].count("A baseline wins: use every record") == 1
    assert "A baseline wins" not in render_html(sample())
    assert "Every group of the target was served" in render_html(sample(covered=True))


@pytest.fixture
def drawn_once(monkeypatch):
    """A chart is painted again only if anything that its painter sees has changed."""
    found = {}

    def draw(name, title, summary, paint, *, note=""):
        seen = repr([cell.cell_contents for cell in paint.__closure__ or ()])
        key = (paint.__code__, name, title, summary, note, seen)
        if key not in found or " at 0x" in seen:  # an address says nothing of what is there
            found[key] = drawing.draw(name, title, summary, paint, note=note)
        return found[key]

    for module in (charts, charts_market, charts_scores):
        monkeypatch.setattr(module, "draw", draw)
    return found


def test_a_missing_section_shortens_the_page_and_breaks_nothing(sample, drawn_once):
    assert Page(render_html({})).tags.count("h1") == 1
    for key in sample():
        report = sample()
        del report[key]
        assert Page(render_html(report)).tags.count("h1") == 1


def luminance(colour):
    """WCAG 2 relative luminance of `#rrggbb`."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_colours_have_contrast_in_light_and_dark():
    css = Path(page_module.__file__).with_name("templates").joinpath("report.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for name in ("ink", "muted", "blue", "orange", "good", "bad"):
            for ground in ("paper", "panel"):
                assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
        assert contrast(colour["ink"], colour["caution"]) >= 4.5
        for name in ("green", "purple", "amber", "sky"):
            assert contrast(colour[name], colour["paper"]) >= 3, name
