"""The page in a real browser."""

import threading
import time

import pytest
from chromium import PROGRAM, Chromium
from made_runs import made_front, made_networks, write, write_search

from nat2deploy.report.dashboard import Dashboard
from nat2deploy.report.write import write_report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium here; apt-get install chromium")

DRAWN = ("front", "latency", "search", "stages", "finetuning", "exits")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Chromium(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def page(pipeline, tmp_path_factory):
    written = write_report(pipeline, tmp_path_factory.mktemp("page") / "report.html")
    assert written.problems == ()
    return written.report.as_uri()


def count(browser, selector):
    return browser.evaluate(f"document.querySelectorAll({selector!r}).length")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_every_picture_is_drawn_without_complaints_or_network(browser, page, tmp_path, width, dark):
    browser.open(page, width=width, dark=dark)
    for name in DRAWN:
        browser.wait_for(f"document.querySelector('#plot-{name} .main-svg') !== null")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.complaints == []
    assert [r for r in browser.requests if not r.startswith(("data:", "blob:"))] == [page]
    # A phone's page is as wide as the phone: only tables and drawings scroll.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (not dark)
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_networks_id_stays_on_one_line(browser, page):
    """Where its card is as narrow as they get."""
    browser.open(page)
    browser.evaluate("document.querySelector('.cards').style.gridTemplateColumns = '9.5rem'")
    browser.evaluate("document.querySelector('.card .id').textContent = '2ab6a23bd4'")
    height = "parseFloat(getComputedStyle(document.querySelector('.card .id')).lineHeight)"
    assert browser.evaluate(f"document.querySelector('.card .id').offsetHeight < 1.5 * {height}")


def test_the_scheme_may_change_while_the_page_is_open(browser, page):
    browser.open(page)
    browser.wait_for("document.querySelector('#plot-front .main-svg') !== null")
    ink = "document.querySelector('#plot-front')._fullLayout.font.color"
    light = browser.evaluate(ink)
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait_for(f"{ink} !== {light!r}")
    assert browser.complaints == []


def test_another_cost_can_be_shown(browser, page, made):
    browser.open(page)
    browser.evaluate(
        "{ const s = document.getElementById('axis'); s.value = 'macs'; s.dispatchEvent(new Event('change')) }"
    )
    shown = "document.querySelector('#plot-front').layout.xaxis.title.text"
    assert browser.evaluate(shown) == "MACs (M)"
    front = "document.querySelector('#plot-front').data.find(t => t.name.startsWith('front')).x"
    assert browser.evaluate(front) == pytest.approx(sorted(n["costs"]["macs"] / 1e6 for n in made))


def test_limits_filter_the_front(browser, page, made):
    browser.open(page)
    rows = "tr[data-id]:not([hidden])"
    assert count(browser, rows) == len(made)
    limit = made[4]["costs"]["latency_ms"] * 1.0001
    browser.evaluate(
        "{ const i = document.querySelector(\"[data-limit='latency_ms']\"); "
        f"i.value = {limit}; i.dispatchEvent(new Event('input')) }}"
    )
    assert count(browser, rows) == 5
    assert "5 of 12" in browser.evaluate("document.getElementById('front-count').textContent")
    browser.evaluate("document.getElementById('reset').click()")
    assert count(browser, rows) == len(made)


def test_a_click_on_a_row_shows_the_network(browser, page, made):
    browser.open(page)
    chosen = made[2]["id"]
    browser.evaluate(f"document.querySelector(\"tr[data-id='{chosen}'] td:last-child\").click()")
    assert count(browser, "#picked svg") == 1
    assert chosen in browser.evaluate("document.getElementById('picked-words').textContent")


def test_hovering_over_a_point_tells_its_costs(browser, page, made):
    browser.open(page)
    browser.evaluate("Plotly.Fx.hover('plot-front', [{curveNumber: 0, pointNumber: 0}])")
    browser.wait_for("document.querySelector('#plot-front .hovertext') !== null")
    assert made[0]["id"] in browser.evaluate("document.querySelector('#plot-front .hovertext').textContent")


def test_fine_tuning_shows_accuracies_beside_losses(browser, page, made):
    browser.open(page)
    plot = "document.querySelector('#plot-finetuning')"
    browser.wait_for(f"{plot}.querySelector('.main-svg') !== null")
    shown = browser.evaluate(f"{plot}.data.map(t => [t.name, t.yaxis || 'y', t.x, t.y])")
    accuracies, validation, training = shown
    assert {name for name, *_ in shown} == {made[-1]["id"]}
    assert accuracies[1:] == ["y", [0, 1, 2, 3, 4, 5], [0.95, 0.951, 0.958, 0.962, 0.969, 0.97]]
    assert validation[1:3] == training[1:3] == ["y2", [1, 2, 3, 4, 5]] and training[3][:2] == [0.9, 0.45]
    browser.evaluate("Plotly.Fx.hover('plot-finetuning', [{curveNumber: 0, pointNumber: 2}])")
    browser.wait_for(f"{plot}.querySelector('.hovertext') !== null")
    told = browser.evaluate(f"{plot}.querySelector('.hovertext').textContent")
    assert "95.80 %" in told and "learning rate 0.005" in told


def test_without_scripts_there_are_still_pictures_and_tables(browser, page, made):
    browser("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        time.sleep(0.5)
        assert count(browser, ".plot img") == len(DRAWN)
        assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 300)")
        assert count(browser, "tr[data-id]") == len(made)
        assert browser.evaluate("getComputedStyle(document.querySelector('.needs-script')).display") == "none"
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)


def test_markup_in_names_stays_text_in_pictures(browser, made, tmp_path):
    nasty = "<img src=x onerror=document.title='owned'>"
    run = write_search(tmp_path / "run", [{**made[0], "id": nasty}, *made[1:]])
    browser.open(write_report(run).report.as_uri())
    browser.evaluate("Plotly.Fx.hover('plot-front', [{curveNumber: 0, pointNumber: 0}])")
    browser.wait_for("document.querySelector('#plot-front .hovertext') !== null")
    assert nasty in browser.evaluate("document.querySelector('#plot-front .hovertext').textContent")
    assert count(browser, "img[src=x]") == 0
    assert "owned" not in browser.evaluate("document.title")
    assert browser.complaints == []


def test_the_dashboard_follows_a_run(browser, tmp_path):
    networks = made_networks(6)
    run = write_search(tmp_path / "run", networks)
    with Dashboard(run, port=0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            browser.open(server.url)
            browser.wait_for("document.querySelector('#plot-front .main-svg') !== null")
            browser.wait_for("run.tag !== undefined")
            browser.evaluate(
                "{ const i = document.querySelector(\"[data-limit='macs']\"); "
                "i.value = '999'; i.dispatchEvent(new Event('input')) }"
            )
            write(run / "front.json", made_front(networks[:2]))
            browser.wait_for("document.querySelectorAll('tr[data-id]').length === 2")
            assert browser.evaluate("document.querySelector(\"[data-limit='macs']\").value") == "999"
            browser.wait_for("document.querySelector('#plot-front .main-svg') !== null")
            assert browser.complaints == []
        finally:
            server.stop()
            thread.join()
