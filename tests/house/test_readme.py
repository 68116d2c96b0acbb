"""The pages: every command and every Python block in them works with the programs as they are."""

import os
import subprocess
import sys

import pytest

from tests.helpers.commands import check, check_names
from tests.helpers.page import ROOT, Wrong, blocks, commands, inline_commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A block of any other kind fails, so that no command hides in one: "python fragment" is compiled, not run.
KINDS = {"bash", "python", "python fragment", "text", "mermaid"}


def blocks_of(kind: str) -> list:
    """One parameter per block of this kind on all pages, named after its first line."""
    found = [(page, block) for page in PAGES for block in blocks(page.read_text()) if block.info.startswith(kind)]
    return [pytest.param(block, id=f"{page.name}: {block.text.splitlines()[0]}") for page, block in found]


def commands_of_pages() -> list:
    """One parameter per different command of all pages."""
    texts = [block.text for page in PAGES for block in blocks(page.read_text()) if block.info == "bash"]
    texts += [span for page in PAGES for span in inline_commands(page.read_text())]
    found = {(*command.words, command.folder): command for text in texts for command in commands(text)}
    return [pytest.param(command, id=" ".join(command.words)) for command in found.values()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    unknown = [block for block in blocks(page.read_text()) if block.info not in KINDS]
    assert not unknown, f"blocks of a kind that is not checked (known: {sorted(KINDS)}): {unknown}"


@pytest.mark.parametrize("command", commands_of_pages())
def test_the_command_is_accepted_by_its_program(command):
    check(command)


@pytest.mark.parametrize("block", blocks_of("python"))
def test_the_python_block_runs(block, tmp_path):
    check_names(block.text)
    if block.info == "python":
        script = tmp_path / "block.py"
        script.write_text(block.text)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script)]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr


GOOD = [
    "python train.py --demo",
    "python train.py --help",
    "OMP_NUM_THREADS=1 python train.py \\\n    --data A B --batch_size 64 > log 2>&1",
    "torchrun --nnodes 2 --nproc_per_node=8 train.py --data DIR --loss pixcontrast",
    "git clone https://example.org/x/our-name.git\ncd our-name && source install_packages.sh --no-detectron2",
    "cd downstream\npython convert-pretrain-to-detectron2.py CHECKPOINT OUT.pkl",
    "python downstream/train_voc.py --weights OUT.pkl SOLVER.MAX_ITER 100 --resume",
    "source downstream/train_voc_pixpro.sh SOLVER.MAX_ITER 100",
    "cd tests && cd .. && pytest -m soak tests/house/test_readme.py",
    "python -c 'import pixpro; print(1)' | tensorboard --logdir output",
    "ruff check tests/helpers/page.py; ruff format tests/helpers/page.py",
]
BAD = [  # and a word of what is said about it
    ("make all", "not known here"),
    ("python train.py --demo && make all", "not known here"),
    ("python train.py --dame", "unrecognized arguments: --dame"),
    ("python train.py --data DIR --loss pixpo", "invalid choice"),
    ("torchrun --nproc_per_node=8 train.py --dame", "unrecognized arguments: --dame"),
    ("torchrun --no_such_flag=8 train.py --demo", "--no_such_flag"),
    ("python trian.py --demo", "No such file"),
    ("python -m pixpro.no_such_module", "no module"),
    ("python -m pixpro.errors", "parsed no command line"),
    ("cd downstream; python convert-pretrain-to-detectron2.py --no-such-flag", "error"),
    ("python downstream/train_voc.py --no-such-flag", "unrecognized arguments"),
    ("source no_such_script.sh", "No such file"),
    ("bash LICENSE", "syntax error"),
    ("source install_packages.sh --no-detectron", "unknown option"),
    ("cd no_such_folder", "no such folder"),
    ("pytest -m soek", "not declared"),
    ("pytest --soak", "unrecognized arguments"),
    ("pytest tests/test_no_such_thing.py", "No such file"),
    ("python -c 'import'", "invalid syntax"),
    ("if true; then", "bash cannot read"),
    ("git push --force", "only `git clone"),
    ("ruff check no_such_folder", "exit code"),
]


@pytest.mark.parametrize("text", GOOD)
def test_commands_that_work_pass_the_check(text):
    found = commands(text)
    assert found
    for command in found:
        check(command)


@pytest.mark.parametrize(("text", "said"), BAD)
def test_commands_that_do_not_work_fail_the_check(text, said, capsys):
    with pytest.raises(Wrong) as error:
        for command in commands(text):
            check(command)
    assert said in str(error.value) + capsys.readouterr().err


def test_blocks_in_lists_and_commands_in_prose_are_found():
    page = "1. Do\n   ```bash\n   python train.py --demo\n   ```\nor `python train.py ... --plan`, not `--plan`.\n"
    assert [(block.info, block.text) for block in blocks(page)] == [("bash", "python train.py --demo\n")]
    assert inline_commands(page) == ["python train.py --plan"]


def test_a_name_that_the_package_does_not_have_fails_the_check():
    check_names("from pixpro import PixPro\nfrom pixpro.method.losses import consistency_loss")
    for text in [
        "from pixpro import PixPo",
        "from pixpro.method.losses import no_such_loss",
        "from pixpro.no import x",
    ]:
        with pytest.raises(Wrong):
            check_names(text)
