"""The report of a run: everything is on the page, the untrained network is the run's own, a browser can show it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import train
from pixpro.checkpoints.trunk import trunk_of
from pixpro.monitor.metrics import Rows
from pixpro.monitor.report import main, report_line, write_report
from pixpro.run import resuming
from pixpro.visualize.ends import untrained
from tests.helpers.pictures import folder

TITLES = ["Verdict", "Scores", "Curves", "Before and after training", "What to do next", "Settings"]


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a small run with --report, and the weights that it began with."""
    place = tmp_path_factory.mktemp("report")
    data, held_out = folder(place / "data", 8), folder(place / "held_out", 4, side=64)
    first = {}

    def begin(trainer, *arguments, **options):
        text = original(trainer, *arguments, **options)
        first.update({name: value.clone() for name, value in trainer.core.state_dict().items()})
        return text

    original = resuming.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming, "begin", begin)
        patch.setenv("PIXPRO_CACHE", str(place / "cache"))
        command = f"--data {data} --val_data {held_out} --output_dir {place / 'run'} --report --seed 3 --epochs 2"
        command += " --arch resnet18 --hidden_dim 16 --dim 8 --image_size 64 --batch_size 4 --workers 0 --amp off"
        assert train.main([*command.split(), "--log_every", "1", "--eval_every", "1", "--warmup_epochs", "0"]) == 0
    return place / "run", first


def rows_in(run: Path, *rows: dict) -> Path:
    """A run's folder with these rows and hardly any settings."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.json").write_text(json.dumps({"loss": "pixpro", "arch": "resnet18", "data": [str(run / "gone")]}))
    return run


def test_a_run_writes_a_page_with_all_its_parts_that_needs_nothing_else(trained):
    text = (trained[0] / "report.html").read_text()
    page = Page(text)
    assert re.findall(r"<h2>(.*?)</h2>", text) == TITLES
    assert not page.all("script") and not page.all("link") and "http:" not in text and "https:" not in text
    images = page.all("img")
    assert len(images) > 3 * 3 + 6 and all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert sum("before training and after training" in image["alt"] for image in images) == 2 * 3
    assert all(f"#s{number}" in [a["href"] for a in page.all("a")] for number in range(1, 7))
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements


def test_the_scores_stand_beside_those_of_the_untrained_network(trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    matching = [(row["step"], row["matching"]) for row in rows if "matching" in row]
    assert [step for step, _ in matching] == [0, 2, 4]
    text = (trained[0] / "report.html").read_text()
    assert "<th>untrained</th><th>step 4</th>" in text
    assert f"<td>{matching[0][1]:.4g}</td><td>{matching[-1][1]:.4g}</td>" in text


def test_the_untrained_network_is_the_one_that_the_run_began_with(trained):
    run, first = trained
    state = torch.get_rng_state()
    network = untrained(json.loads((run / "config.json").read_text()))
    assert torch.equal(torch.get_rng_state(), state)
    trunk = trunk_of(first)
    assert network.trunk.state_dict().keys() == {f"pyramid.body.{name}" for name in trunk}
    for name, value in network.trunk.state_dict().items():
        assert torch.equal(value, trunk[name.removeprefix("pyramid.body.")]), name
    for name, value in network.projector.state_dict().items():
        assert torch.equal(value, first[f"encoder.projector.{name}"]), name
    assert torch.equal(network.propagation.transform.weight, first["propagation.transform.weight"])
    last = trunk_of(torch.load(run / "last.pth.tar", weights_only=True)["model"])
    assert not torch.equal(last["conv1.weight"], trunk["conv1.weight"])


def test_what_was_said_is_told_once_with_its_last_step(tmp_path):
    rows = [{"step": step, "epoch": 1, "loss": -1.0, "target_rank": 1.0} for step in (5, 10, 15, 20)]
    rows[1]["remarks"], rows[2]["remarks"] = ["collapse: rank 1.2"], ["collapse: rank 1.1", "data wait: 40 %"]
    text = write_report(rows_in(tmp_path / "run", *rows)).read_text()
    assert "rank 1.2" not in text and "collapse: rank 1.1 (said 2 times, last at step 15)" in text
    assert "data wait: 40 % (said 1 times" in text and "First do what the verdict says." in text
    clean = write_report(rows_in(tmp_path / "run", {"step": 5, "loss": -1.0})).read_text()
    assert "Nothing looked wrong in 1 reports." in clean


def test_a_run_whose_images_or_checkpoints_are_gone_has_a_report_without_pictures(trained, tmp_path):
    run = rows_in(tmp_path / "run", {"step": 5, "loss": -1.0}, {"step": 10, "loss": -1.1})
    assert f"No pictures: {run / 'gone'}: no such folder" in Page(write_report(run).read_text()).text
    held_out = str(trained[0].parent / "held_out")
    assert "holds no checkpoint" in write_report(run, images=[held_out]).read_text()
    shutil.copy(trained[0] / "last.pth.tar", run)
    assert "config.json makes no network here" in write_report(run, images=[held_out]).read_text()


def test_names_in_settings_and_remarks_cannot_add_to_the_page(tmp_path):
    hostile = "<script>alert(1)</script>\x1b[2J\n"
    run = rows_in(tmp_path / "<b>run", {"step": 5, "loss": 1.0, "remarks": [hostile]})
    (run / "config.json").write_text(json.dumps({"data": [hostile], "loss": hostile, hostile: hostile}))
    text = write_report(run).read_text()
    page = Page(text)
    assert not page.all("script") and not page.all("b") and "\x1b" not in text
    assert page.text.count("<script>alert(1)</script>\\x1b[2J\\n") >= 4


@pytest.mark.parametrize("case", ["missing", "no rows", "no settings", "bad settings", "list", "unwritable"])
def test_wrong_input_is_one_line_and_exit_code_2(case, tmp_path, capsys):
    run = rows_in(tmp_path / "run", {"step": 5, "loss": 1.0})
    if case == "no rows":
        (run / "metrics.jsonl").write_text("")
    elif case == "no settings":
        (run / "config.json").unlink()
    elif case in ("bad settings", "list"):
        (run / "config.json").write_text("[1]" if case == "list" else "{")
    out = ["--out", str(tmp_path / "no" / "page.html")] if case == "unwritable" else []
    assert main([str(tmp_path / "none" if case == "missing" else run), *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (run / "report.html").exists()


def test_a_report_that_cannot_be_written_is_a_warning_at_the_end_of_a_run(tmp_path):
    assert report_line(tmp_path / "none").startswith("warning: no report was written: ")


def test_a_run_that_begins_again_in_its_folder_drops_all_rows_of_its_earlier_life(tmp_path):
    for _ in range(2):
        rows = Rows(tmp_path / "metrics.jsonl", 0)
        rows.append({"step": 0, "matching": 0.2})
    Rows(tmp_path / "metrics.jsonl", 5)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "matching": 0.2}\n'


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# The page tells how it was laid out and the frame around it writes that down: a window cannot be as narrow as a phone.
ASK = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
    window: innerWidth, page: document.documentElement.scrollWidth,
    shown: [...document.images].filter(image => image.naturalWidth > 0).length,
    narrow: [...document.images].filter(image => image.getBoundingClientRect().right <= innerWidth).length
}), "*"))</script>"""
FRAME = """<title></title><script>addEventListener("message", event => { document.title = event.data })</script>
<iframe src="page.html" style="border: 0; width: %dpx; height: 900px"></iframe>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on the PATH")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_on_a_phone_and_on_a_desk(trained, width, tmp_path):
    """A copy of the page says how it was laid out: nothing is wider than the window, and every picture is there."""
    text = (trained[0] / "report.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{ASK}</body>"))
    (tmp_path / "frame.html").write_text(FRAME % width)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    command += [
        "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"file://{tmp_path}/frame.html",
    ]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    said = json.loads(re.search(r"<title>(\{.*?\})</title>", dump)[1])
    count = len(Page(text).all("img"))
    assert said == {"window": width, "page": width, "shown": count, "narrow": count}
