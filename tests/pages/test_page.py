"""A page is one file that needs nothing else, says what it was given and has no id twice."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.pages.figures import (
    SERIES,
    compact_ticks,
    drawing_style,
    new_figure,
    prefix_ids,
    render_svg,
)
from headless.pages.numbers import compact, decimals
from headless.pages.page import Cell, Column, Page, TextCard

HOSTILE = """<script>alert("x")</script> & 'quotes' </style> {{ 7 * 7 }} {% raw %}"""
VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and complains about what does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [str(a[attribute]) for _, a in self.tags if attribute in a]


def line(label: str = "a line", log: bool = False) -> object:
    with drawing_style():
        figure = new_figure(4, 2)
        axes = figure.subplots()
        axes.plot([1, 10, 1000], [1, 2, 3], color=SERIES[1], label=label)
        compact_ticks(axes.xaxis, log=log)
        axes.legend()
    return figure


def full_page(text: str = "text") -> Page:
    """Every kind of block, with `text` in every place that takes one."""
    page = Page(text, text, contents=True)
    page.heading(text)
    page.heading(text, level=3)
    page.paragraph(text)
    page.definitions([(text, text)])
    page.notes([text], "warning", text)
    page.notes([text, text])
    page.code(text)
    page.cards([TextCard(text, text, text, 0)])
    page.table(
        [Column(text, text, "left", text), Column(text)],
        [[Cell(text, text, strong=True, swatch=9), text], [Cell(text, code=True), ""]],
        text,
        wide=True,
    )
    page.figure(line(text), text)
    page.figure(line(text), wide=True)
    with page.details(text):
        page.paragraph(text)
        page.figure(line(text), text)
    return page


def test_everything_nests_and_ids_are_unique_and_resolve() -> None:
    html = full_page().render()
    reader = Reader(html)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in reader.tags) == 3
    targets = [v.removeprefix("#") for v in reader.values("href")]
    targets += re.findall(r"url\(#([^)]+)\)", html)
    assert targets
    assert set(targets) <= set(ids)


def test_nothing_is_fetched() -> None:
    html = full_page().render()
    reader = Reader(html)
    assert not reader.values("src")
    assert all(value.startswith("#") for value in reader.values("href"))
    assert not {tag for tag, _ in reader.tags} & {"link", "script", "img", "iframe"}
    assert "//" not in re.sub(r"<(pre|code).*?</\1>", "", html, flags=re.DOTALL)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_text_is_escaped_everywhere() -> None:
    reader = Reader(full_page(HOSTILE).render())
    assert "script" not in {tag for tag, _ in reader.tags}
    # heading and contents, title twice, ...: wherever it stands it stands as it was written.
    assert reader.text.count("<script>alert(\"x\")</script> & 'quotes' </style> {{ 7 * 7 }}") >= 19
    assert "49" not in reader.text.replace(HOSTILE, "")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="`"), min_size=1))
def test_any_text_survives(text: str) -> None:
    page = Page("t")
    page.paragraph(text)
    page.code(text)
    page.table([Column("c")], [[Cell(text, code=True)]])
    assert Reader(page.render()).text.count(text) >= 3


def test_back_quotes_are_code_and_nothing_more() -> None:
    page = Page("t")
    page.paragraph("use `--a <b>` now")
    assert "use <code>--a &lt;b&gt;</code> now" in page.render()


def test_numbering_and_order() -> None:
    page = Page("t")
    page.table([Column("a")], [], "first table")
    page.figure(line(), "first figure")
    page.figure(line())  # without a caption: no number
    with page.details("folded"):
        page.figure(line(), "second figure")
    page.table([Column("a")], [["1"]], "second table")
    text = re.sub(r"\s+", " ", Reader(page.render()).text)
    found = re.findall(r"(?:Table|Figure) \d\. \w+ \w+", text)
    expected = ["Table 1. first table", "Figure 1. first figure", "Figure 2. second figure"]
    assert found == [*expected, "Table 2. second table"]


def test_details_close_although_something_goes_wrong() -> None:
    page = Page("t")
    with pytest.raises(RuntimeError), page.details("folded"):
        raise RuntimeError
    page.paragraph("outside")
    html = page.render()
    assert html.index("</details>") < html.index("outside")


def test_a_row_must_fit_its_columns() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Page("t").table([Column("a")], [["1", "2"]])


def test_group_headings_span_their_columns() -> None:
    page = Page("t")
    columns = [Column("a"), Column("b", group="g"), Column("c", group="g"), Column("d", group="h")]
    page.table(columns, [])
    reader = Reader(page.render())
    spans = [a["colspan"] for tag, a in reader.tags if tag == "th" and "colspan" in a]
    assert spans == ["1", "2", "1"]


def test_the_same_page_is_the_same_bytes() -> None:
    assert full_page().render() == full_page().render()


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    page = full_page()
    page.write(path)
    assert path.read_text(encoding="utf-8") == page.render()
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_drawing_leaves_matplotlib_s_settings_alone() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 13.0, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        render_svg(line())
        assert dict(matplotlib.rcParams) == before


def test_figures_take_the_page_s_colours_and_keep_text() -> None:
    svg = render_svg(line("dollars: $x$ <b>"))
    assert "dollars: $x$ &lt;b&gt;" in svg
    for name, colour in (("ink", "#1c2026"), ("series-1", SERIES[1])):
        assert f"var(--{name}, {colour})" in svg
    style = (Path(__file__).parents[2] / "headless/pages/page.css").read_text()
    for name in set(re.findall(r"var\(--([\w-]+)", svg)):
        assert len(re.findall(rf"--{name}:", style)) == (1 if name == "font" else 2)  # light, dark
    light = style[: style.index("@media screen")]
    for name, colour in set(re.findall(r"var\(--([\w-]+), (#\w+)\)", svg)):
        assert f"--{name}: {colour};" in light


def test_a_figure_is_xml_without_date_or_address() -> None:
    svg = render_svg(line(log=True))
    ET.fromstring(svg)
    assert "http" not in svg
    assert not re.search(r"20\d\d-\d\d-\d\d|[Mm]atplotlib", svg)
    assert "$" not in svg  # logarithmic ticks are text


def test_prefix_reaches_ids_and_references_alike() -> None:
    svg = '<svg><path id="a"/><use href="#a"/><g clip-path="url(#a)" data-id="a"/></svg>'
    expected = '<svg><path id="x-a"/><use href="#x-a"/><g clip-path="url(#x-a)" data-id="a"/></svg>'
    assert prefix_ids(svg, "x-") == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0125, "0.0125"), (999.4, "999"), (999_999, "1M"), (1_234_567, "1.23M")],
)
def test_compact(value: float, text: str) -> None:
    assert compact(value) == text


@given(st.floats(1e-3, 1e20))
def test_compact_keeps_three_digits(value: float) -> None:
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    text = compact(value)
    back = float(text[:-1]) * sizes[text[-1]] if text[-1] in sizes else float(text)
    assert back == pytest.approx(value, rel=0.0051)
    assert len(text) <= 7


def test_decimals() -> None:
    found = [decimals(v, 2) for v in (1234.567, -0.5, -0.001, None, float("nan"))]
    assert found == ["1,234.57", "−0.50", "0.00", "–", "–"]


def test_only_files_nearby_are_links() -> None:
    page = Page("t")
    page.paragraph('[there](../a/b.html), [no](javascript:x), [no](../a"onclick="x)')
    html = page.render()
    assert '<a href="../a/b.html">there</a>' in html
    assert 'href="javascript' not in html
    assert '"onclick' not in html
