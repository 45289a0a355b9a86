"""The pages at `/` and `/docs` in Chromium."""

import base64
import contextlib
import hashlib
import os
import struct
import subprocess
import zlib
from importlib.resources import files

import pytest
import requests
from conftest import ONE_AT_ONCE, ROOT, full, serving
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

GOLDEN = ROOT / "tests/golden"
REAL = GOLDEN / "images/orig_rocket.jpg"
SIDEWAYS = GOLDEN / "images/chelsea_exif6.jpg"
GENERATED = ROOT.parent / "shared/data/val"
SHOTS = ROOT / "target/screenshots"


@pytest.fixture(scope="module")
def server():
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def small():
    """A server with low limits."""
    flags = ["--max-body-bytes", "3MiB", "--max-pixels", "1MP", *ONE_AT_ONCE]
    with serving(*flags) as url:
        yield url


@pytest.fixture(autouse=True)
def no_complaints(browser):
    """Asserts that there are no script errors and no violations of the page's policy."""
    browser.get_log("browser")
    yield
    # Chromium logs every answer other than 2xx; the tests provoke those.
    logged = [entry for entry in browser.get_log("browser") if "Failed to load resource" not in entry["message"]]
    assert logged == []


def visit(browser, url):
    browser.set_window_size(1200, 900)
    browser.get(url)
    return browser.find_element(By.ID, "files")


def until(browser, condition):
    return WebDriverWait(browser, 60).until(lambda _: condition())


def articles(browser, count):
    """The results, once there are `count` finished ones."""
    found = lambda: browser.find_elements(By.CSS_SELECTOR, "article:not([aria-busy=true])")  # noqa: E731
    until(browser, lambda: len(found()) == count)
    until(browser, lambda: all(a.get_attribute("class") == "failed" or a.find_element(By.CSS_SELECTOR, ".answer").is_displayed()
                               for a in found()))  # fmt: skip
    return found()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_head(width, height):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png(path, width, height, compression=9):
    rows = b"".join(b"\0" + os.urandom(width) for _ in range(height))
    path.write_bytes(png_head(width, height) + chunk(b"IDAT", zlib.compress(rows, compression)) + chunk(b"IEND", b""))
    return path


def generated():
    """Generated images; without ../shared two photographs that the bundled model classifies as generated."""
    images = sorted(GENERATED.glob("ldm*/1_fake/*"))
    return images or [ROOT / "tests/golden/images" / name for name in ("astro_420_q95.jpg", "x_coffee_255x257.jpg")]


def test_real_and_generated(browser, server):
    picks = [REAL, *generated()[:2], SIDEWAYS]
    visit(browser, server).send_keys("\n".join(map(str, picks)))
    results = {a.find_element(By.TAG_NAME, "h2").text: a for a in articles(browser, len(picks))}
    assert list(results) == [p.name for p in picks]
    for path in picks:
        expected = requests.post(f"{server}/v1/score", data=path.read_bytes(), timeout=60).json()
        article = results[path.name]
        assert article.get_attribute("class") == expected["verdict"]
        assert f"Score {expected['score']:.4f}" in article.text
        for stage in ["decode", "queue", "inference", "total"]:
            assert f"{stage} " in article.get_attribute("textContent")
        warnings = article.find_elements(By.CSS_SELECTOR, ".warnings li")
        assert len(warnings) == len(expected["warnings"])
    assert results[REAL.name].get_attribute("class") == "real"
    assert "fake" in {results[p.name].get_attribute("class") for p in picks[1:3]}
    shots(browser, "results")


def barriers(browser):
    """What axe-core finds on the page for those who read it by ear, by keyboard or with weak eyes: rules of WCAG 2.1 A
    and AA and axe's good practice, with the elements that break them."""
    browser.execute_script((files("axe_core_python") / "axe.min.js").read_text())
    run = "axe.run(document, { resultTypes: ['violations'] }).then((found) => arguments[0](found.violations))"
    return [(rule["id"], rule["help"], [node["html"] for node in rule["nodes"]]) for rule in browser.execute_async_script(run)]


def shots(browser, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width in [1200, 400]:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(width, min(max(height, 700), 4000))
        wider = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"the page is {wider} pixels wider than a window of {width}"
        browser.save_screenshot(str(SHOTS / f"{name}-{width}.png"))
        assert barriers(browser) == [], f"{name} at {width}"


def test_a_model_that_cannot_be_explained(browser, tmp_path):
    """The page asks for the score where `/v1/explain` answers 501, and says that there are no places to show."""
    graph, model = ROOT / "tests/data/foreign/tiny.onnx", tmp_path / "model"
    command = [ROOT / "target/release/lfm-serve", "import-onnx", graph, "--out", model, "--resize", "both=8x12", "--filter", "bicubic",
               "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--output-kind", "two-logits"]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
    with serving("--model", str(model)) as url:
        assert requests.post(f"{url}/v1/explain", data=REAL.read_bytes(), timeout=60).status_code == 501
        expected = requests.post(f"{url}/v1/score", data=REAL.read_bytes(), timeout=60).json()
        visit(browser, url).send_keys(str(REAL))
        (article,) = articles(browser, 1)
        assert article.get_attribute("class") == expected["verdict"]
        assert f"Score {expected['score']:.4f}" in article.text and "The threshold is 0.5." in article.text
        assert "does not tell which places" in article.text
        for part in (".panels", ".slider", "table"):
            assert not article.find_element(By.CSS_SELECTOR, part).is_displayed(), part
        shots(browser, "not-explained")


def test_every_state_is_without_barriers(browser, server):
    """The page before a picture, one that there is nothing to judge in, and one in which regions are judged apart, with its
    numbers open."""
    visit(browser, server)
    shots(browser, "empty")
    picks = [GOLDEN / "images/x_flat.png", GOLDEN / "images/coffee_420_q75.jpg", GOLDEN / "images/orig_china.jpg"]
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, picks)))
    for article in articles(browser, len(picks)):
        for details in article.find_elements(By.TAG_NAME, "summary"):
            # Those of a flat picture are hidden: it has no places of weight.
            if details.is_displayed():
                details.click()
    shots(browser, "states")


def test_slider(browser, server):
    visit(browser, server).send_keys(str(REAL))
    (article,) = articles(browser, 1)
    style = lambda layer, name: article.find_element(By.CSS_SELECTOR, f"canvas.{layer}").value_of_css_property(name)  # noqa: E731
    slider = article.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.HOME)
    assert style("map", "opacity") == "0" and style("picture", "filter") == "none"
    slider.send_keys(Keys.END)
    assert style("map", "opacity") == "1" and style("picture", "filter") == "none"


def test_overlay_is_upright(browser, server):
    """The file is stored 451 x 300, its left side up: map and picture are shown 300 x 451, rotated clockwise."""
    visit(browser, server).send_keys(str(SIDEWAYS))
    (article,) = articles(browser, 1)
    answer = requests.post(f"{server}/v1/explain", data=SIDEWAYS.read_bytes(), timeout=60).json()
    assert answer["image"]["exif_orientation"] == 6
    attribution = answer["attribution"]
    strongest = attribution["cells"][0]
    x0, y0, x1, y1 = attribution["judged"]
    # The middle of the strongest place, in stored pixels.
    x = x0 + (8 * strongest["col"] + 11.5) / 256 * (x1 - x0)
    y = y0 + (8 * strongest["row"] + 11.5) / 256 * (y1 - y0)
    canvas = article.find_element(By.CSS_SELECTOR, "canvas.map")
    read = "const c = arguments[0]; return [c.width, c.height, ...c.getContext('2d').getImageData(arguments[1], arguments[2], 1, 1).data]"
    width, height, *rgba = browser.execute_script(read, canvas, int(300 - y), int(x))
    assert (width, height) == (300, 451)
    # 0.25 is drawn in full colour; each of several regions contributes its share of the mean.
    full = 0.25 / len(attribution["regions"])
    opacity = 255 * min(1, abs(strongest["contribution"]) / full)
    assert abs(rgba[3] - opacity) <= 2, "the strongest place is not where it is drawn"
    # A canvas stores premultiplied colours: rounding changes them.
    colour = [213, 94, 0] if strongest["contribution"] > 0 else [0, 114, 178]
    assert all(abs(found - expected) <= 3 for found, expected in zip(rgba[:3], colour, strict=True))
    # The picture is rotated with it.
    picture = article.find_element(By.CSS_SELECTOR, "canvas.picture")
    assert "cannot show" not in article.text
    compare = """
        const [canvas, encoded, done] = arguments;
        const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
        createImageBitmap(new Blob([bytes])).then((upright) => {
            const other = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
            other.drawImage(upright, 0, 0);
            const data = (context) => context.getImageData(0, 0, canvas.width, 80).data;
            const [shown, expected] = [data(canvas.getContext('2d')), data(other)];
            done([upright.width, upright.height, shown.filter((value, i) => Math.abs(value - expected[i]) > 2).length]);
        });
    """
    encoded = base64.b64encode(SIDEWAYS.read_bytes()).decode()
    # The rows above the frame of the judged area.
    assert browser.execute_async_script(compare, picture, encoded) == [300, 451, 0]


@pytest.mark.parametrize(
    ("make", "title", "again"),
    [
        (lambda path: GOLDEN / "hostile/truncated.png", "The image cannot be decoded", False),
        (lambda path: png(path / "pixels.png", 1200, 1000, 0), "overload", True),
        (lambda path: png(path / "bytes.png", 2000, 2000), "The body is larger than the limit", False),
    ],
)
def test_failures_are_shown(browser, small, tmp_path, make, title, again):
    path = make(tmp_path)
    with full(small) if again else contextlib.nullcontext():
        visit(browser, small).send_keys(str(path))
        (article,) = articles(browser, 1)
        assert article.get_attribute("class") == "failed"
        assert article.find_element(By.CSS_SELECTOR, ".again").is_displayed() == again
        if again:
            assert "Try again in " in article.text
            article.find_element(By.CSS_SELECTOR, ".again").click()
            (article,) = articles(browser, 1)
            assert "Try again in " in article.text
        else:
            assert title in article.text
    assert path.name in browser.find_element(By.ID, "status").get_attribute("textContent")
    # The page still works.
    browser.find_element(By.ID, "files").send_keys(str(SIDEWAYS))
    assert articles(browser, 2)[1].get_attribute("class") != "failed"
    shots(browser, f"failure-{path.stem}")


def test_too_many_pixels(browser, small, tmp_path):
    path = tmp_path / "flat.png"
    path.write_bytes(png_head(1001, 1000) + bytes(100))
    visit(browser, small).send_keys(str(path))
    (article,) = articles(browser, 1)
    assert "pixels" in article.text and article.get_attribute("class") == "failed"


def test_dropped_and_pasted(browser, server):
    visit(browser, server)
    give = """
        const [event, url, done] = arguments;
        const binary = atob(url);
        const file = new File([Uint8Array.from(binary, (c) => c.charCodeAt(0))], 'given.jpg', { type: 'image/jpeg' });
        const data = new DataTransfer();
        data.items.add(file);
        const name = event === 'paste' ? { clipboardData: data } : { dataTransfer: data };
        const made = event === 'paste' ? new ClipboardEvent(event, { bubbles: true, ...name }) : new DragEvent(event, { bubbles: true, cancelable: true, ...name });
        document.body.dispatchEvent(made);
        done();
    """
    encoded = base64.b64encode(SIDEWAYS.read_bytes()).decode()
    for event in ["paste", "drop"]:
        browser.execute_async_script(give, event, encoded)
    assert {a.get_attribute("class") for a in articles(browser, 2)} <= {"real", "fake", "uncertain"}


def test_keyboard_only(browser, server):
    visit(browser, server)
    focused = lambda: browser.switch_to.active_element  # noqa: E731

    def tab():
        ActionChains(browser).send_keys(Keys.TAB).perform()
        return focused()

    assert tab().get_attribute("href").endswith("/docs")
    picker = tab()
    assert picker.get_attribute("id") == "files"
    # The dialog that Enter opens is the browser's own; WebDriver replaces it.
    picker.send_keys(str(REAL))
    articles(browser, 1)
    assert "Real" in browser.find_element(By.ID, "status").get_attribute("textContent")
    assert tab().get_attribute("aria-label") == f"Remove {REAL.name}"
    slider = tab()
    before = int(slider.get_attribute("value"))
    slider.send_keys(Keys.ARROW_RIGHT)
    assert int(slider.get_attribute("value")) == before + 1
    summary = tab()
    summary.send_keys(Keys.ENTER)
    assert browser.find_element(By.TAG_NAME, "table").is_displayed()
    browser.find_element(By.CSS_SELECTOR, ".remove").send_keys(Keys.ENTER)
    assert browser.find_elements(By.TAG_NAME, "article") == []
    assert focused().get_attribute("id") == "files"


def test_key(browser, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"tester:{hashlib.sha256(b'the-right-key-of-the-test').hexdigest()}\n")
    with serving("--api-keys-file", str(keys)) as url:
        visit(browser, url).send_keys("\n".join(map(str, [REAL, SIDEWAYS])))
        field = browser.find_element(By.ID, "key")
        until(browser, field.is_displayed)
        assert browser.switch_to.active_element == field
        field.send_keys("a wrong one", Keys.ENTER)
        until(browser, lambda: "refused" in browser.find_element(By.ID, "why").text)
        field.send_keys("the-right-key-of-the-test", Keys.ENTER)
        assert "failed" not in {a.get_attribute("class") for a in articles(browser, 2)}
        kept = "return [localStorage.length, sessionStorage.length, document.cookie, document.getElementById('key').value]"
        assert browser.execute_script(kept) == [0, 0, "", ""]
        browser.refresh()
        browser.find_element(By.ID, "files").send_keys(str(REAL))
        until(browser, lambda: browser.find_element(By.ID, "key").is_displayed())


def test_docs(browser, server):
    browser.set_window_size(1200, 900)
    browser.get(f"{server}/docs")
    until(browser, lambda: browser.find_elements(By.ID, "post/v1/score"))
    document = requests.get(f"{server}/openapi.json", timeout=10).json()
    text = browser.find_element(By.TAG_NAME, "main").text
    for path, item in document["paths"].items():
        for method in item:
            assert f"{method.upper()} {path}" in text
    for name in document["components"]["schemas"]:
        assert browser.find_elements(By.ID, f"schema-{name}")
    shots(browser, "docs")
