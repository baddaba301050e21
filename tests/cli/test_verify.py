"""``bench.verify``: what holds is verified, and each way to forge a result is found by name.

The forger here knows the code: seals and hashes are made anew wherever that could help.
"""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from commands import run_bench
from places import REPOSITORY, TOY

from bench.cli.verify import main, verify
from bench.records import run as records
from bench.registry import ALGORITHMS, BACKBONES, load_plugin
from bench.settings.config import RunConfig

TASKS = 40
FLAGS = [
    *("--plugin", TOY, "--dataset", "toy", "--backbone", "one-layer", "--device", "cpu", "--threads", 1),
    *("--meta-steps", 6, "--meta-batch", 2, "--test-tasks", TASKS, "--val-tasks", 5, "--val-points", 2),
    *("--adaptation-tasks", 0, "--algos", "maml,reptile", "--set", "reptile.inner_optimizer=adam"),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    out = tmp_path_factory.mktemp("verified")
    done = run_bench(*FLAGS, "--out", out)
    assert done.returncode == 0, done.stderr
    load_plugin(TOY)
    return out


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def asked(folder, tasks=0):
    return verify(folder, folder, folder, tasks, seed=1)


def folder_of(out, algo):
    (found,) = out.glob(f"runs/{algo}-*")
    return found


def forge(folder, change, rename=False):
    """Change a record and seal it again; ``rename`` to what its settings then are called."""
    record = json.loads((folder / "run.json").read_text())
    record.pop("seal")
    change(record)
    if rename:
        record["row"]["run_id"] = RunConfig(**record["config"]).run_id
    record["files"] = {name: records._sha256((folder / name).read_bytes()) for name in record["files"]}
    record["seal"] = records._seal(record)
    (folder / "run.json").write_text(json.dumps(record))
    if rename:
        folder.rename(folder.with_name(record["row"]["run_id"]))


def edit_lines(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def rewritten(folder):
    """Tables of the report made anew, as a forger would."""
    done = run_bench("--plugin", TOY, "--report", "--out", folder)
    assert done.returncode == 0, done.stderr


def test_what_a_command_left_is_verified(original):
    status, line = asked(original, tasks=TASKS)
    assert (status, line) == (
        0,
        f"verified: 2 runs (--draw 1); maml: {TASKS} test tasks answered alike;"
        f" reptile: {TASKS} test tasks answered alike",
    )


def test_without_answers_it_is_verified_in_part_and_says_so(original):
    status, line = asked(original)
    assert status == 3
    assert line.startswith("verified in part: 2 runs; not checked: answers: no test task was answered again")


def flatter(record):
    record["row"]["test_acc"] += 0.01


def another_setting(record):
    record["config"]["hyperparameters"]["inner_lr"] = 0.3
    record["row"]["inner_lr"] = 0.3


def another_row(record):
    record["row"]["meta_lr"] = 0.5


def another_step(record):
    record["row"]["inner_steps"] = 7


def another_number_of_steps_at_test(record):
    record["row"]["eval_inner_steps"] = 7


def no_weights(record):
    del record["weights"]


def another_network(record):
    record["row"]["backbone"] = "conv4"


def another_measure(record):
    record["row"]["measure"] = "accuracy "


def a_missing_field(record):
    del record["config"]["results"]


def other_stream(record):
    record["row"]["stream_sha256"] = "0" * 64


def other_code(record):
    record["config"]["code"] = record["row"]["code"] = "0" * 12


def other_split(record):
    record["config"]["data_code"] = record["row"]["data_code"] = "0" * 12


def other_data(record):
    record["row"]["data_sha256"] = "0" * 64


def more_training(record):
    record["row"]["tasks_seen"] *= 10


RECORDS = {
    "an accuracy is raised in the row": ("scores: ", flatter, False),
    "a setting is exchanged in settings and row": ("name: ", another_setting, False),
    "a setting is exchanged in the row": ("row: ", another_row, False),
    "an inner setting is exchanged in the row": ("row: ", another_step, False),
    "steps at test are exchanged in the row": ("row: ", another_number_of_steps_at_test, False),
    "the hash of the weights is left out": ("weights: ", no_weights, False),
    "another network in the row": ("row: ", another_network, False),
    "another measure": ("scores: ", another_measure, False),
    "a setting is left out": ("name: ", a_missing_field, False),
    "another stream of tasks": ("stream: ", other_stream, False),
    "another file of the algorithm": ("code: ", other_code, True),
    "another split": ("data: ", other_split, True),
    "other data": ("data: ", other_data, False),
    "more training than there was": ("budget: ", more_training, False),
}


@pytest.mark.parametrize("forgery", RECORDS)
def test_a_forged_record_is_found(copy, forgery):
    name, change, rename = RECORDS[forgery]
    forge(folder_of(copy, "maml"), change, rename)
    status, line = asked(copy)
    assert status == 1
    assert line.startswith(f"does not hold: {name}"), line


def test_test_tasks_that_were_dropped_are_missed(copy):
    folder = folder_of(copy, "maml")
    edit_lines(folder / "test_tasks.csv", lambda lines: lines[:-5])
    tasks = np.genfromtxt(folder / "test_tasks.csv", delimiter=",", names=True)

    def lowered(record):
        record["row"]["test_tasks"] -= 5
        record["row"]["test_acc"] = float(tasks["acc"].mean())

    forge(folder, lambda record: None)
    assert asked(copy)[1].startswith("does not hold: record: ")
    forge(folder, lowered)
    assert asked(copy)[1].startswith("does not hold: row: ")


@pytest.mark.parametrize("forged", ["3,0.37,0.4", "2,0.4,0.4"])
def test_a_test_task_that_cannot_be_or_is_there_twice_is_found(copy, forged):
    folder = folder_of(copy, "maml")
    edit_lines(folder / "test_tasks.csv", lambda lines: [*lines[:4], forged, *lines[5:]])
    forge(folder, lambda record: None)
    assert asked(copy)[1].startswith("does not hold: test tasks: ")


def better(line):
    number, *rest = line.split(",")
    return ",".join([number, "1.0", *rest[1:]]) if number != "task" else line


def test_answers_that_were_improved_throughout_are_not_those_of_the_weights(copy):
    folder = folder_of(copy, "maml")
    edit_lines(folder / "test_tasks.csv", lambda lines: [better(line) for line in lines])
    forge(folder, lambda record: record["row"].update(test_acc=1.0, test_acc_ci95=0.0))
    rewritten(copy)
    assert asked(copy)[0] == 3, "nothing but the weights tells"
    status, line = asked(copy, tasks=TASKS)
    assert status == 1
    assert line.startswith("does not hold: answers: maml-")


def test_weights_of_another_run_are_found(copy):
    folder = folder_of(copy, "maml")
    state = torch.load(folder / "weights.pt", weights_only=True)
    torch.save({name: torch.zeros_like(w) for name, w in state.items()}, folder / "weights.pt")
    assert asked(copy)[1].startswith("does not hold: weights: ")

    def told(record):
        record["weights"]["weights.pt"] = records._sha256((folder / "weights.pt").read_bytes())

    forge(folder, told)
    assert asked(copy, tasks=TASKS)[1].startswith("does not hold: answers: maml-")


def test_the_second_moment_of_another_run_is_found(copy):
    folder = folder_of(copy, "reptile")
    state = torch.load(folder / "inner_state.pt", weights_only=True)
    state["carry"]["step"] += 1
    torch.save(state, folder / "inner_state.pt")
    assert asked(copy)[1].startswith("does not hold: weights: ")


def test_a_seal_that_was_copied_and_a_table_of_a_run_that_was_edited_are_found(copy):
    maml, reptile = (folder_of(copy, algo) for algo in ("maml", "reptile"))
    record, other = (json.loads((folder / "run.json").read_text()) for folder in (maml, reptile))
    record["row"]["test_acc"], record["seal"] = 1.0, other["seal"]
    (maml / "run.json").write_text(json.dumps(record))
    assert asked(copy)[1].startswith("does not hold: record: ")
    shutil.rmtree(maml)
    edit_lines(reptile / "test_tasks.csv", lambda lines: lines[:-1])
    assert asked(copy)[1].startswith("does not hold: record: ")


def test_a_table_that_the_records_do_not_give_is_found(copy):
    edit_lines(copy / "summary.csv", lambda lines: [line.replace("maml", "better") for line in lines])
    assert asked(copy)[1].startswith("does not hold: tables: summary.csv")


def test_a_bundle_is_verified_elsewhere_and_holds_no_pictures(original, tmp_path, capsys):
    place = tmp_path / "claim.zip"
    assert main([str(original), "--plugin", str(TOY), "--bundle", str(place)]) == 3
    with zipfile.ZipFile(place) as archive:
        names = archive.namelist()
    assert {name.rpartition("/")[2] for name in names} >= {"run.json", "weights.pt", "inner_state.pt", "summary.csv"}
    assert "plugins/toy_data.py" in names
    assert not [name for name in names if name.endswith((".npz", ".png", ".svg", ".html", "checkpoint.pt"))]
    capsys.readouterr()
    assert main([str(place), "--tasks", str(TASKS)]) == 0
    assert capsys.readouterr().out.startswith("verified: 2 runs (--draw ")


@pytest.mark.parametrize(
    ("registry", "name", "tables"),
    [
        (ALGORITHMS, "maml", "tables: summary.md tells settings of 'maml', which is not known"),
        (BACKBONES, "one-layer", ""),
    ],
)
def test_a_plugin_that_is_not_here_leaves_open_what_it_decides(original, registry, name, tables, monkeypatch):
    """Nothing is wrong with the results of it."""
    names = [other for other in registry.names() if other != name]
    monkeypatch.setattr(registry, "_classes", {other: registry.get(other) for other in names})
    status, line = asked(original, tasks=TASKS)
    assert status == 3, line
    absent = f"{registry.kind} {name!r} is not known here; --plugin loads it"
    assert f"code: {absent}" in line
    assert f"answers: {absent}" in line
    assert tables in line


def test_a_corruption_that_is_not_here_leaves_the_data_open(copy):
    def foggy(record):
        record["config"]["test_corruption"] = record["row"]["test_corruption"] = "my-fog:3"

    forge(folder_of(copy, "maml"), foggy, rename=True)
    rewritten(copy)
    status, line = asked(copy)
    assert status == 3, line
    assert "data: corruption 'my-fog' is not known here; --plugin loads it" in line


@pytest.mark.parametrize("name", ["../outside.csv", "/etc/outside.csv", "runs/a/picture.png", "plugins/a.so"])
def test_a_bundle_that_holds_something_else_is_refused(tmp_path, name, capsys):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(name, "x")
    assert main([str(tmp_path / "b.zip")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "accepted: what --bundle wrote" in line


def test_plugins_of_a_bundle_run_only_if_asked_for(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        code = f"import pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).touch()"
        archive.writestr("plugins/leaves_a_mark.py", code)
        archive.writestr("plugins/entries.json", '["leaves_a_mark.py"]')
    assert main([str(tmp_path / "b.zip")]) == 2
    assert not (tmp_path / "mark").exists()
    assert main([str(tmp_path / "b.zip"), "--run-plugins"]) == 2
    assert (tmp_path / "mark").exists()
    assert capsys.readouterr().err.count("no finished run under") == 2


@pytest.mark.parametrize("content", ["{", "1", "[1]", '["../x.py"]'])
def test_a_list_of_plugins_that_is_none_is_one_line(tmp_path, content, capsys):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("plugins/entries.json", content)
    assert main([str(tmp_path / "b.zip"), "--run-plugins"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no list of file names; accepted: what --bundle wrote" in line


def test_two_plugins_that_hold_one_name_are_not_mixed(original, tmp_path, capsys):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "same.py").write_text(f"PLACE = {place!r}\n")
    plugins = [word for place in ("a", "b") for word in ("--plugin", str(tmp_path / place / "same.py"))]
    assert main([str(original), *plugins, "--bundle", str(tmp_path / "claim.zip")]) == 2
    assert "plugins hold two files 'plugins/same.py'" in capsys.readouterr().err


@pytest.mark.parametrize(("points", "steps"), [(20, 1), (1000, 10), (3, 6), (6, 7), (7, 6), (1, 1)])
def test_a_validation_is_counted_once_however_many_are_asked_for(points, steps):
    """What ``budget`` compares with the length of the curve, against the places where training validates."""
    assert min(points, steps) + 1 == len({round(i * steps / points) for i in range(points + 1)})


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_is_no_bundle_is_one_line(tmp_path, content, capsys):
    (tmp_path / "b.zip").write_bytes(content)
    assert main([str(tmp_path / "b.zip")]) == 2
    assert main([str(tmp_path / "nowhere.zip")]) == 2
    assert main([str(tmp_path), "--tasks", "-1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_rounding_of_another_machine_is_told_and_let_through(copy, monkeypatch):
    """One of forty answers by one image, on a machine of another name."""
    monkeypatch.setattr("bench.cli.claims.device_name", lambda device: "another")
    folder = folder_of(copy, "maml")

    def by_one_image(lines):
        number, acc, *rest = lines[3].split(",")
        moved = round(float(acc) + (-0.2 if float(acc) > 0.5 else 0.2), 1)
        return [*lines[:3], ",".join([number, str(moved), *rest]), *lines[4:]]

    edit_lines(folder / "test_tasks.csv", by_one_image)
    tasks = np.genfromtxt(folder / "test_tasks.csv", delimiter=",", names=True)
    mean, half = records_mean(tasks["acc"])
    forge(folder, lambda record: record["row"].update(test_acc=mean, test_acc_ci95=half))
    rewritten(copy)
    status, line = asked(copy, tasks=TASKS)
    assert status == 0, line
    assert f"maml: {TASKS - 1} of {TASKS} test tasks answered alike; rounding of another machine moved 1" in line


def records_mean(values):
    return float(values.mean()), float(1.96 * values.std(ddof=1) / len(values) ** 0.5)


@pytest.mark.parametrize("name", ["paper-cpu", "precision-cpu", "quick-cpu"])
def test_committed_runs_are_verified_in_part(name, tmp_path):
    """Their data is not here, and their weights are not committed."""
    status, line = verify(REPOSITORY / "results" / "reference" / name, tmp_path, tmp_path, 0, seed=1)
    assert status == 3, line
    assert line.startswith("verified in part: ")


def test_a_damaged_bundle_leaves_no_traceback(original, tmp_path):
    place = tmp_path / "claim.zip"
    assert main([str(original), "--bundle", str(place)]) == 3
    data = place.read_bytes()
    for at in range(60, len(data) - 60, max(1, len(data) // 12)):
        place.write_bytes(data[:at] + bytes([data[at] ^ 255, data[at + 1] ^ 255]) + data[at + 2 :])
        assert main([str(place)]) in (1, 2, 3)
