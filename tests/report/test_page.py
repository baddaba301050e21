"""report.html in a real browser: it sorts, filters, answers the pointer, asks for nothing, and fits a telephone."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time

import pytest
from made_runs import make_run, reported
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    reason = "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"
    if os.environ.get("BENCH_NEED_BROWSER"):
        raise RuntimeError(reason)
    pytest.skip(reason, allow_module_level=True)

EVIL = "</script><script>document.title='pwned'</script>"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    for n_way, k_shot in ((5, 1), (20, 5)):
        for i, algo in enumerate(("alpha", "beta", EVIL)):
            for seed in range(2):
                name = f"run{i}-{n_way}-{seed}"
                make_run(out, algo, seed, 0.8 + 0.04 * i, 60, 1 + i, n_way=n_way, k_shot=k_shot, run_id=name)
    for i in range(30):
        make_run(out, "beta", 100 + i, status="failed", error=f"{EVIL} {i}", run_id=f"broken{i}")
    return reported(out) / "report.html"


def emulate(browser, width=1280, scheme="light"):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})


def wait_for(browser, script):
    end = time.monotonic() + 60
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return found


def ready(browser, path):
    browser.get(path.as_uri())
    return int(wait_for(browser, "return document.documentElement.dataset.ready"))


def column(browser, table, place):
    script = f"return [...document.querySelectorAll('#{table} tbody tr')].map(r => r.cells[{place}].textContent.trim())"
    return browser.execute_script(script)


LONG = "a longer name than most (inner_lr=0.05, inner_steps=12)"


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    out = tmp_path_factory.mktemp("long")
    for i, algo in enumerate(("a", LONG, f"{LONG} too", "b")):
        make_run(out, algo, 0, 0.8 + 0.04 * i, 60, 1 + i, run_id=f"run{i}")
    with pytest.MonkeyPatch.context() as patch:  # these runs have no configuration to make one of
        for module in ("report_html", "tables"):
            patch.setattr(
                f"bench.report.page.{module}.repeat_command", lambda *runs: "python run_bench.py" + " --flag value" * 40
            )
        return reported(out) / "report.html"


@pytest.fixture
def opened(browser, report):
    emulate(browser)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    ready(browser, report)
    return browser


def test_a_click_and_enter_sort_by_number(opened):
    head = opened.find_elements(By.CSS_SELECTOR, "#results-table thead th")
    place = [h.text.strip() for h in head].index("step ms")
    order_of = f"return document.querySelectorAll('#results-table thead th')[{place}].getAttribute('aria-sort')"
    show(opened, head[place])
    head[place].click()
    wait_for(opened, f"{order_of} == 'ascending'")
    found = [float(text) for text in column(opened, "results-table", place)]
    assert found == sorted(found)
    assert len(set(found)) == 3
    order = head[place].find_element(By.CSS_SELECTOR, "[role=button]")
    order.send_keys(Keys.ENTER)
    wait_for(opened, f"{order_of} == 'descending'")
    assert [float(text) for text in column(opened, "results-table", place)] == sorted(found, reverse=True)
    order.send_keys(Keys.SPACE)  # back to the order of the page
    wait_for(opened, f"{order_of} == null")


@pytest.mark.parametrize("width", [360, 1280])
def test_a_command_unfolds_in_a_row_of_its_own_in_sight(browser, long_names, width):
    emulate(browser, width)
    ready(browser, long_names)
    for table in ("results", "runs"):
        cell = browser.find_element(By.CSS_SELECTOR, f"#{table}-table tbody tr td details")
        show(browser, cell)
        cell.find_element(By.TAG_NAME, "summary").click()
        shown = f"document.querySelector('#{table}-table td.unfolded > *')"
        box = wait_for(browser, f"return {shown}?.getBoundingClientRect()")
        assert box["left"] >= 0
        assert box["right"] <= width
        assert len(browser.execute_script(f"return {shown}.textContent")) > 40
        cell.find_element(By.TAG_NAME, "summary").click()
        wait_for(browser, f"return !{shown}")


WIDE = """return [...document.querySelectorAll('.scroll table')].filter(t => t.offsetWidth && (
    t.scrollWidth > t.closest('.scroll').clientWidth + 1
    || [...t.querySelectorAll('tbody *')].some(c => c.getBoundingClientRect().right > innerWidth + 1)
)).map(t => t.closest('section').id)"""


@pytest.mark.parametrize("width", [360, 800, 1400])
@pytest.mark.parametrize("page", ["report", "long_names"])
def test_no_table_scrolls_sideways_and_each_value_says_what_it_is(browser, request, page, width):
    emulate(browser, width)
    ready(browser, request.getfixturevalue(page))
    assert browser.execute_script(WIDE) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cards = "[...document.querySelectorAll('table.cards')]"
    found = browser.execute_script(f"return {cards}.map(t => t.closest('section').id)")
    assert width == 1400 or "paired-differences" in found
    label = "getComputedStyle(c, '::before').content.slice(1, -1)"
    named = browser.execute_script(
        f"return {cards}.flatMap(t => [...t.tBodies[0].rows].flatMap(r => [...r.cells].slice(1)"
        f".filter(c => c.offsetWidth).map(c => [{label}, t.tHead.rows[0].cells[c.cellIndex].textContent.trim()])))"
    )
    assert all(said == head for said, head in named)


@pytest.mark.parametrize("width", [360, 800])
def test_accuracies_and_verdicts_stand_first_after_the_name(browser, report, width):
    emulate(browser, width)
    ready(browser, report)
    for table, first, last in (
        ("#results-table", "plain", "step ms"),
        ("#paired-differences table", "verdict", "pairs"),
    ):
        places = browser.execute_script(
            f"return [...document.querySelector('{table} tbody').rows[0].cells].map(c => ["
            "c.dataset.label, c.getBoundingClientRect().top, c.getBoundingClientRect().right])"
        )
        at = {label: (top, right) for label, top, right in places}
        assert at[first][0] <= at[last][0]
        assert at[first][1] <= width
        assert max(right for *_, right in places) <= width


def test_no_row_is_tall_and_blank(browser, long_names):
    """Where a table stays one, the tallest row has no more lines than its longest cell needs at 14 letters a line."""
    for width in (800, 1280):
        emulate(browser, width)
        ready(browser, long_names)
        rows = browser.execute_script(
            "return [...document.querySelectorAll('.scroll table:not(.cards, .examples) tbody tr')]"
            ".filter(r => r.offsetWidth).map(r => ["
            "r.offsetHeight, Math.max(...[...r.cells].map(c => c.textContent.trim().length))])"
        )
        assert rows
        assert [row for row in rows if row[0] > 34 + 20 * (row[1] // 14)] == []


def test_the_winner_of_a_setting_has_a_star_and_is_bold(opened):
    wins = "return [...document.querySelectorAll('#results-table .wins')].map(w => "
    assert opened.execute_script(f"{wins}w.closest('tr').cells[0].textContent.trim())") == [EVIL] * 4
    assert opened.execute_script(f"{wins}w.textContent.slice(0, 2))") == ["★\xa0"] * 4
    assert opened.execute_script(f"{wins}getComputedStyle(w).fontWeight >= 600)") == [True] * 4
    assert "★ and bold: beats all others" in opened.find_element(By.CSS_SELECTOR, "#results .note").text


def test_the_test_modes_are_explained_before_they_are_named(opened):
    text = opened.find_element(By.CSS_SELECTOR, "#verdict").text
    told = text.index("Plain: the network answers each query image alone"), text.index("Transductive: it answers all")
    assert told[0] < text.index("\nplain")
    assert told[1] < text.index("\ntransductive")


def test_typing_filters_and_long_tables_have_pages(opened):
    assert len(column(opened, "runs-table", 0)) == 25  # of 42
    opened.find_element(By.CSS_SELECTOR, "#runs .dt-search input").send_keys("20-way alpha")
    assert column(opened, "runs-table", 0) == ["alpha", "alpha"]
    assert set(column(opened, "runs-table", 1)) == {"20-way 5-shot"}


def test_words_are_found_by_their_beginnings_and_lines_chosen_whole(opened):
    search = opened.find_element(By.CSS_SELECTOR, "#results .dt-search input")
    search.send_keys("lpha")
    assert column(opened, "results-table", 0) == ["no row has all of these words"]
    search.send_keys(Keys.HOME, "a")
    assert all(text.startswith("alpha") for text in column(opened, "results-table", 0))
    search.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    for table, label, value, count in (("results", "algorithm", "beta", 2), ("runs", "status", "ok", 12)):
        chosen = opened.find_element(By.CSS_SELECTOR, f"#{table} select[aria-label='Only this {label}']")
        Select(chosen).select_by_value(value)
        place = opened.execute_script(f"return document.querySelectorAll('#{table}-table tbody tr').length")
        assert place == count


def show(browser, element):
    """Scroll there at once: the page does so smoothly, and a click of WebDriver does not wait for that."""
    place = "{block: 'center', inline: 'center', behavior: 'instant'}"
    browser.execute_script(f"arguments[0].scrollIntoView({place})", element)


def drawn(browser, kind):
    figure = browser.find_element(By.CSS_SELECTOR, f"figure[data-kind='{kind}']")
    show(browser, figure)
    wait_for(browser, f"return document.querySelector(\"figure[data-kind='{kind}'] [data-drawn]\")")
    return figure


def test_pointing_at_a_curve_shows_its_values(opened):
    figure = drawn(opened, "curves-tasks_seen")
    point = figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")[11 + 4]  # of the second of three curves
    ActionChains(opened).move_to_element(point).perform()
    text = wait_for(opened, "return document.querySelector('.hoverlayer .hovertext')?.textContent")
    assert "alpha" in text
    assert "1,280 tasks" in text  # fifth validation: 160 meta-steps of 8 tasks


def test_the_numbers_of_a_figure_are_in_a_table_below_it(opened):
    figure = drawn(opened, "adaptation-plain")
    figure.find_element(By.TAG_NAME, "summary").click()
    wait_for(opened, "return document.querySelector('figure[data-kind=adaptation-plain] details table')")
    head, first, *_ = figure.find_elements(By.CSS_SELECTOR, "details tr")
    assert head.text == "adaptation steps test accuracy, plain (fraction) from to"
    step, mean, low, high = map(float, first.text.removeprefix(EVIL).split())
    assert step == 1
    assert low <= mean <= high


def test_every_kind_of_figure_is_there_and_follows_setting_and_choice(opened):
    kinds = {f.get_attribute("data-kind") for f in opened.find_elements(By.CSS_SELECTOR, "figure")}
    wanted = {"curves-tasks_seen", "curves-train_s", "step_ms_median", "peak_mem_mib", "cost", "differences"}
    assert kinds == wanted | {"adaptation-plain", "adaptation-transductive"}
    figure = drawn(opened, "curves-tasks_seen")
    assert len(figure.find_elements(By.CSS_SELECTOR, ".legend li")) == 3
    opened.find_element(By.CSS_SELECTOR, "#shown input[value=beta]").send_keys(Keys.SPACE)
    assert [li.text for li in figure.find_elements(By.CSS_SELECTOR, ".legend li")] == [EVIL, "alpha"] or len(
        figure.find_elements(By.CSS_SELECTOR, ".legend li")
    ) == 2
    before = opened.execute_script("return document.querySelector('figure .plot').data[1].y.at(-1)")
    opened.execute_script(
        "const s = document.getElementById('setting'); s.value = '1'; s.dispatchEvent(new Event('change'))"
    )
    drawn(opened, "curves-tasks_seen")
    assert opened.execute_script("return document.querySelector('figure .plot').data[1].y.at(-1)") != before


def test_nothing_leaves_the_page_and_nothing_goes_wrong(opened):
    for kind in ("curves-train_s", "differences", "adaptation-plain"):
        drawn(opened, kind)
    assert opened.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in urls)
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []


def test_text_of_runs_is_text_and_nothing_else(opened):
    assert opened.title == "Comparison on glyphs, protocol quick"
    assert EVIL in opened.execute_script("return document.querySelector('#results-table').textContent")
    assert EVIL in opened.execute_script("return document.querySelector('#runs-table').textContent")
    labels = opened.execute_script("return JSON.parse(document.getElementById('figures-data').textContent)[0].labels")
    assert EVIL in labels


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_without_scrolling_sideways(browser, report, scheme):
    emulate(browser, 360, scheme)
    ready(browser, report)
    drawn(browser, "curves-tasks_seen")
    drawn(browser, "differences")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    wide = "return [...document.querySelectorAll('.plot svg')].some(s => s.getBoundingClientRect().right > 360)"
    assert not browser.execute_script(wide)
    ends = "return [...document.querySelectorAll('#results-table td')].slice(0, 2).map(c => c.getBoundingClientRect())"
    plain, transductive = browser.execute_script(ends)
    assert plain["right"] <= transductive["left"] < transductive["right"] <= 360  # what people came for


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_names_of_rows_are_whole_and_clear_of_each_other_and_of_the_bars(browser, long_names, width):
    emulate(browser, width)
    ready(browser, long_names)
    for kind in ("step_ms_median", "peak_mem_mib", "differences"):
        figure = drawn(browser, kind)
        names = "[...arguments[0].querySelectorAll('.annotation-text, .ytick text')]"
        boxes = browser.execute_script(f"return {names}.map(n => n.getBoundingClientRect())", figure)
        words = browser.execute_script(f"return {names}.map(n => n.textContent)", figure)
        assert len(boxes) == (6 if kind == "differences" else 4)
        assert all(LONG.split()[-1] in text for text in words if "longer" in text)
        edge = figure.find_element(By.CSS_SELECTOR, ".plot").rect
        assert all(edge["x"] - 1 <= box["left"] and box["right"] <= edge["x"] + edge["width"] + 1 for box in boxes)
        boxes.sort(key=lambda box: box["top"])
        assert all(a["bottom"] <= b["top"] + 1 for a, b in itertools.pairwise(boxes))
        bars = browser.execute_script(
            "return [...arguments[0].querySelectorAll('.bars path')].map(b => b.getBoundingClientRect())", figure
        )
        over = [(n, b) for n in boxes for b in bars if min(n["right"], b["right"]) - max(n["left"], b["left"]) > 1]
        assert all(min(n["bottom"], b["bottom"]) - max(n["top"], b["top"]) <= 2 for n, b in over)


def test_paper_shows_every_setting_and_no_figure_is_taller_than_a_page(browser, report):
    emulate(browser)
    ready(browser, report)
    count = "return document.querySelectorAll('#grid figure').length"
    on_screen = browser.execute_script(count)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(count) == 2 * on_screen
    assert browser.execute_script("return document.querySelectorAll('#grid [data-drawn]').length") == 2 * on_screen
    titles = browser.execute_script("return [...document.querySelectorAll('#grid h3')].map(h => h.textContent)")
    assert [title.split(" (")[0] for title in titles] == ["5-way 1-shot", "20-way 5-shot"]
    lines = browser.execute_script("return document.querySelectorAll('#runs-table tbody tr').length")
    assert lines == 42
    tall = "return Math.max(...[...document.querySelectorAll('#grid figure')].map(f => f.offsetHeight))"
    page = 186 / 25.4 * 96  # A4 across, less its margins
    assert browser.execute_script(tall) <= page
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(count) == on_screen


def test_a_legend_shows_each_line_with_its_dash_and_mark(opened):
    figure = drawn(opened, "curves-tasks_seen")
    looks = [
        (path.get_attribute("stroke-dasharray"), mark.get_attribute("points"), mark.get_attribute("transform"))
        for path, mark in zip(*(figure.find_elements(By.CSS_SELECTOR, f".legend {tag}") for tag in ("path", "polygon")))
    ]
    assert len({dash for dash, *_ in looks}) == len({tuple(mark) for _, *mark in looks}) == len(looks) == 3


def test_figures_follow_light_and_dark(browser, report):
    ink = "getComputedStyle(document.querySelector('figure .xtitle')).fill"
    words = "getComputedStyle(document.body).color"
    found = []
    for scheme in ("light", "dark"):
        emulate(browser, 1280, scheme)
        if not found:
            ready(browser, report)
            drawn(browser, "curves-tasks_seen")
        wait_for(browser, f"return {ink} == {words}")  # the words change at once, a figure when it is drawn again
        found.append(browser.execute_script(f"return {words}"))
    assert found[0] != found[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    out = tmp_path_factory.mktemp("many")
    for setting, (n_way, k_shot) in enumerate(((5, 1), (5, 5), (20, 1), (20, 5))):
        for algo in range(5):
            for seed in range(25):
                name = f"{algo}-{setting}-{seed}"
                make_run(out, f"a{algo}", seed, 0.7 + 0.04 * algo, 20, n_way=n_way, k_shot=k_shot, run_id=name)
    return reported(out) / "report.html"


@pytest.mark.slow
def test_a_page_of_500_runs_is_usable_within_two_seconds(browser, many):
    emulate(browser)
    took = min(ready(browser, many) for _ in range(3))
    print(f"500 runs: usable after {took} ms")
    assert len(column(browser, "runs-table", 0)) == 25
    assert took < 2000
