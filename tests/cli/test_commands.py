"""The commands as a user types them: what they print, return and leave behind."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result

from blin.data.catalog import DATASETS
from blin.evaluation import evaluator
from blin.training import baselines
from cli.conftest import Blin


def value_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_preprocess_says_what_it_understood(blin: Blin) -> None:
    result = blin("preprocess", "shop.csv", "--name", "again")
    assert result.exit_code == 0
    for line in (
        r"format +table, fields separated by \",\", with a header",
        r"columns +user customer, item product, time bought_at",
        r"times +2024-\d\d-\d\dT.* to .*, in s",
        r"5-core +users +items +interactions",
        r"as read +300 ",
        r"round 1 ",
        r"dataset +data/again",
        r"density +\d+\.\d+%",
        r"peak memory +\d+\.\d [MG]B",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), line
    assert "blin train --dataset again" in result.stderr


def test_preprocess_json(blin: Blin) -> None:
    report = value_of(blin("preprocess", "shop.csv", "--name", "again", "--json"))
    assert report["dataset"] == "again"
    assert report["k_core_rounds"][-1] == {
        key: report[key] for key in ("users", "items", "interactions")
    }
    assert report["rows_read"] == report["k_core_rounds"][0]["interactions"]
    assert report["fingerprint"].startswith("sha256:")
    assert report["seconds"] > 0 and report["peak_memory_bytes"] > 0
    assert not report["reused"]
    assert value_of(blin("preprocess", "shop.csv", "--name", "again", "--json"))["reused"]


def test_preprocess_knows_the_catalogue(blin: Blin) -> None:
    entry = DATASETS["beauty"]
    log = Path("data/downloads", f"{entry.name}-{entry.sha256[:8]}", entry.log_name)
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{user} 1 2 3 4 5\n" for user in range(9)), encoding="utf-8")
    result = blin("preprocess", "beauty", "--min-interactions", 2)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^dataset +data/beauty$", result.stdout, re.MULTILINE)
    assert f"beauty: from {entry.url}" in result.stderr and entry.terms in result.stderr
    other = blin("preprocess", "beauty", "--name", "mine", "--min-interactions", 2, "--json")
    assert value_of(other)["dataset"] == "mine"
    Path("beauty").write_text("user,item,time\n" + "u,i,1\nu,j,2\nu,k,3\n", encoding="utf-8")
    own = value_of(blin("preprocess", "beauty", "--min-interactions", 1, "--json"))
    assert (own["users"], own["items"]) == (1, 3)


def test_preprocess_of_a_log_with_odd_columns_and_several_parts(blin: Blin) -> None:
    first = "Käufer|Wann|Was\n" + "".join(f"k{n}|{n}|Tee {n % 2}\n" for n in range(1, 9))
    Path("a.txt").write_text(first, encoding="utf-8")
    Path("b.txt").write_text(first.replace("Tee", "Brot"), encoding="utf-8")
    columns = ("--user-column", "Käufer", "--item-column", "Was", "--time-column", "Wann")
    report = value_of(
        blin("preprocess", "a.txt", "b.txt", "--min-interactions", 1, *columns, "--json")
    )
    assert (report["users"], report["items"], report["interactions"]) == (8, 4, 16)


def test_preprocess_says_what_the_data_can_be_trusted_with(blin: Blin) -> None:
    for again in ("", ", reused"):
        result = blin("preprocess", "shop.csv", "--name", "again")
        for line in (
            rf"took +[\d.]+ s{again}",
            r"repeats +[\d,]+ interactions with an item that the user had before \(\d+\.\d%\)",
            r"ties +",
            r"lengths +\d+ to \d+ interactions per user, median \d+, mean \d+\.\d",
            r"popularity +\d+ to \d+ per item, median \d+, mean \d+\.\d; the top 10% of items",
            r"leakage +\S+ of test items are older than somebody else's last training interaction",
            r"cold +\S+ of valid items and \S+ of test items never occur in training",
            r"baseline +popularity reaches HR@10 0\.\d{4}, NDCG@10 0\.\d{4}",
        ):
            assert re.search(f"^{line}", result.stdout, re.MULTILINE), line
        assert "leave-one-out lets a model see the future" in result.stderr


def test_preprocess_reports_on_a_page(blin: Blin) -> None:
    assert value_of(blin("preprocess", "shop.csv", "--json"))["report"] is None
    told = value_of(blin("preprocess", "shop.csv", "--report", "--json"))
    assert (told["reused"], told["report"]) == (True, "data/shop/report.html")
    page = Path("data/shop/report.html").read_text(encoding="utf-8")
    assert "shop: data health" in page
    result = blin("preprocess", "--report=page.html", "shop.csv")
    assert Path("page.html").read_text(encoding="utf-8") == page
    assert "report: page.html" in result.stderr
    assert blin("train", "--dataset", "shop", "--epochs", 1, "--dim", 8).exit_code == 0


@pytest.mark.parametrize("logs", [[], ["shop.csv"]])
def test_a_log_is_not_taken_for_the_page(blin: Blin, logs: list[str]) -> None:
    before = Path("shop.csv").read_bytes()
    result = blin("preprocess", "--report", "shop.csv", *logs, "--name", "again")
    assert result.exit_code == 2
    assert 'report: expected a name that ends in .html, found "shop.csv"' in result.stderr
    assert Path("shop.csv").read_bytes() == before
    assert not Path("data", "again").exists()


def test_inspect_shows_the_types_of_columns(blin: Blin) -> None:
    table = pyarrow.csv.read_csv("shop.csv")
    pq.write_table(table, "shop.parquet")
    result = blin("inspect", "shop.parquet")
    for line in (
        r"format +columns of Parquet or Arrow",
        r"rows +4,504$",
        r"times +2024-\d\d-\d\dT.* to .*, in s",
        r"column +type +role +first values",
        r"customer +string +user +\S+, \S+, \S+",
        r"bought_at +timestamp\S+ +time +2024-",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), line
    assert "--user-column" in result.stderr and "--delimiter" not in result.stderr
    told = value_of(blin("inspect", "shop.parquet", "--json"))
    of_text = value_of(blin("inspect", "shop.csv", "--json"))
    assert told.keys() == of_text.keys()
    assert told["columns"][0]["type"] == "string"
    shown = [(column["name"], column["role"]) for column in told["columns"]]
    assert shown == [(column["name"], column["role"]) for column in of_text["columns"]]


def test_inspect_shows_columns_roles_and_what_to_try(blin: Blin) -> None:
    result = blin("inspect", "shop.csv")
    assert result.exit_code == 0, result.stderr
    for line in (
        r"format +table, fields separated by \",\", with a header",
        r"rows +[\d,]+$",
        r"times +2024-\d\d-\d\dT.* to .*, in s",
        r"column +role +first values",
        r"customer +user +\S+, \S+, \S+",
        r"product +item +sku-\d+, ",
        r"bought_at +time +2024-",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), line
    assert "--user-column" in result.stderr
    assert value_of(blin("inspect", "shop.csv", "--json"))["rows"] == 4504


def test_skipped_rows_are_counted_and_shown(blin: Blin) -> None:
    rows = Path("shop.csv").read_text().splitlines()
    rows[2] = "nonsense"
    Path("shop.csv").write_text("\n".join(rows) + "\n")
    result = blin("preprocess", "shop.csv", "--on-bad-row", "skip")
    assert result.exit_code == 0
    assert "warning: skipped: shop.csv:3: expected 3 fields" in result.stderr
    assert re.search(r"^rows +[\d,]+, 1 unreadable$", result.stdout, re.MULTILINE)


def test_train_prints_a_line_per_epoch_and_ends_with_the_test_metrics(blin: Blin) -> None:
    result = blin("train", "--dataset", "shop", "--dim", 8, "--epochs", 2, "--lambda", 0.5)
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert re.fullmatch(
        r"epoch 1/2  sequence \d\.\d{3}  kl \d\.\d{3}  [\d,]+ users/s  "
        r"valid NDCG@10 0\.\d{4} \(best\)  \d+\.\d s",
        next(line for line in lines if line.startswith("epoch 1/2")),
    )
    assert re.search(r"^NDCG@10 +0\.\d{4}$", result.stdout, re.MULTILINE)
    assert "blin evaluate --k 10 20" in result.stderr


def test_train_json(blin: Blin) -> None:
    told = value_of(blin("train", "--dataset", "shop", "--dim", 8, "--epochs", 1, "--json"))
    assert told.keys() == {
        *("run", "epochs", "best_epoch", "seconds"),
        *("metrics", "valid_metrics", "protocol", "baselines"),
    }
    assert told["valid_metrics"].keys() == told["metrics"].keys()
    assert (told["protocol"]["split"], told["protocol"]["ranking"]) == ("test", "full")
    assert (told["epochs"], told["best_epoch"]) == (1, 1)
    assert {"HR@10", "NDCG@10", "HR@20", "NDCG@20"} <= told["metrics"].keys()
    assert Path(told["run"], "model", "model.safetensors").is_file()


def test_curves_for_tensorboard_are_written_when_asked_for(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "--dataset", "shop", "--dim", 8, "--epochs", 1, "--json", "--tensorboard")
    assert list(Path(value_of(blin(*train))["run"], "tb").glob("events.out.tfevents.*"))
    runs = sorted(Path("runs").rglob("*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for extra in ((), ("--dry-run",)):
        result = blin(*train, *extra)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            "error: the curves need TensorBoard: pip install 'blin-rec[tensorboard]'\n"
        )
    assert sorted(Path("runs").rglob("*")) == runs


def test_settings_come_from_the_file_then_the_options_then_set(blin: Blin) -> None:
    Path("my.toml").write_text("dim = 8\ndropout = 0.1\nmax_len = 10\nepochs = 1\n")
    told = value_of(
        blin(
            *("train", "--dataset", "shop", "--config", "my.toml", "--max-len", 20),
            *("--set", "dropout=0.2", "--set", "activation=gelu", "--json"),
        )
    )
    config = Path(told["run"], "config.toml").read_text()
    for line in ("dim = 8", "max_len = 20", "dropout = 0.2", 'activation = "gelu"'):
        assert line in config
    again = blin("train", "--dataset", "shop", "--config", Path(told["run"], "config.toml"))
    assert again.exit_code == 0, again.stderr


def test_a_finished_run_can_be_trained_for_longer(blin: Blin) -> None:
    result = blin("train", "--resume", "latest", "--epochs", 3)
    assert result.exit_code == 0, result.stderr
    assert "epoch 3/3" in result.stderr and "epoch 2/3" not in result.stderr


@pytest.mark.parametrize("k", [("10", "20"), ("10,20",), ("10", "--k", "20")])
def test_evaluate_takes_k_in_every_spelling(blin: Blin, k: tuple[str, ...]) -> None:
    told = value_of(blin("evaluate", "--json", "--k", *k))
    assert told.keys() == {"run", "metrics", "intervals", "protocol"}
    assert told["intervals"].keys() == told["metrics"].keys()
    assert told["metrics"].keys() == {"HR@10", "HR@20", "NDCG@10", "NDCG@20", "MRR"}
    assert all(0 <= value <= 1 for value in told["metrics"].values())
    assert told["protocol"]["ranking"] == "full"


def test_sampled_metrics_have_names_of_their_own(blin: Blin) -> None:
    metrics = value_of(blin("evaluate", "--negatives", 50, "--json"))["metrics"]
    assert all(name.endswith("[uniform-50]") for name in metrics)


def test_evaluate_cuts_histories_to_several_lengths(blin: Blin) -> None:
    told = value_of(blin("evaluate", "--last", "1", "3,1", "--k", 5, "--groups", "--json"))
    assert told.keys() == {"run", "evaluations"}
    kept = Path(told["run"]) / "eval"
    for last, each in zip((1, 3), told["evaluations"], strict=True):
        assert each["metrics"].keys() == {
            f"{name}[last-{last}]" for name in ("HR@5", "NDCG@5", "MRR")
        }
        assert each["protocol"]["history"] == f"last-{last}"
        assert each["groups"].keys() == {"history", "popularity", "repeats"}
        stored = json.loads((kept / f"test-last-{last}.json").read_text())
        assert (stored["metrics"], stored["protocol"]) == (each["metrics"], each["protocol"])
    shown = blin("evaluate", "--last", 1, 3, "--k", 5, "--negatives", 9)
    names = [line.split()[0] for line in shown.stdout.splitlines()[2:]]
    assert names == [
        f"{name}[uniform-9,last-{last}]" for last in (1, 3) for name in ("HR@5", "NDCG@5", "MRR")
    ]


def test_an_evaluation_of_weights_that_were_replaced_is_refused(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Path("runs/latest/model/model.safetensors").resolve()
    found = evaluator.evaluate

    def evaluate(*given: Any, **options: Any) -> Any:
        weights.with_name("new").write_bytes(weights.read_bytes())
        weights.with_name("new").replace(weights)
        return found(*given, **options)

    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    result = blin("evaluate", "--last", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "its training has found a better epoch meanwhile: evaluate again" in result.stderr
    assert not list(Path("runs/latest/eval").glob("*last*"))


@pytest.mark.parametrize("last", ["0", "-2", "three", "1.5", "2,0", "2147483648"])
def test_what_is_no_length_of_a_history_is_a_wrong_usage(blin: Blin, last: str) -> None:
    result = blin("evaluate", f"--last={last}")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "last" in result.stderr
    assert not list(Path("runs").glob("*/*/eval/*last*"))


@pytest.mark.parametrize(
    "command", [("evaluate", "--k", 10), ("recommend", "--history", "i1", "--k", 5)]
)
def test_as_many_threads_compute_as_were_asked_for(
    blin: Blin, command: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert blin(*command, "--device", "cpu").exit_code == 0
    assert threads == []
    assert blin(*command, "--device", "cpu", "--threads", 2).exit_code == 0
    assert threads == [2]


def test_the_baselines_of_a_training_have_as_many_threads(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, seen = baselines.measure_baselines, []

    def measured(*given: Any, **how: Any) -> Any:
        seen.append(torch.get_num_threads())
        return measure(*given, **how)

    monkeypatch.setattr(baselines, "measure_baselines", measured)
    options = ("--dataset", "shop", "--dim", 8, "--epochs", 1, "--threads", 2)
    try:
        assert blin("train", *options).exit_code == 0
    finally:
        torch.set_num_threads(1)
    assert seen == [2]


def test_evaluate_prints_a_table(blin: Blin) -> None:
    result = blin("evaluate", "--k", 5, "--split", "valid")
    first = r"^metric +valid +95% interval\nHR@5 +0\.\d{4} +0\.\d{4} to 0\.\d{4}\n"
    assert re.search(first, result.stdout, re.MULTILINE), result.stdout


def test_evaluate_shows_groups_and_lists(blin: Blin) -> None:
    options = ("evaluate", "--k", 5, "--groups", "--beyond-accuracy")
    result = blin(*options)
    for line in (
        r"history +users +targets +HR@5 +NDCG@5 +MRR\n\d+-\d+ +\d+ +\d+ +0\.\d{4} ",
        r"popularity +users ",
        r"repeats +users .*\nnew +\d",
        r"of the lists +test\ncoverage@5 +[01]\.\d{4}\nnovelty@5 +\d+\.\d{4}\n",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), (line, result.stdout)
    told = value_of(blin(*options, "--json"))
    assert (
        sum(group["users"] for group in told["groups"]["repeats"].values())
        == (told["protocol"]["users"])
    )
    assert set(told["beyond_accuracy"]) == {
        f"{name}@5" for name in ("coverage", "novelty", "popular-share", "gini")
    }
    wrong = blin("evaluate", "--beyond-accuracy", "--negatives", 5)
    assert wrong.exit_code == 2 and "leave out --negatives" in wrong.stderr


def test_evaluate_keeps_each_protocol_in_files_of_its_own(blin: Blin) -> None:
    told = value_of(blin("evaluate", "--repeats", "miss", "--negatives", 9, "--seed", 3, "--json"))
    assert set(told["metrics"]) == set(told["intervals"])
    assert all(name.endswith("[uniform-9,repeats-miss]") for name in told["metrics"])
    files = {file.name for file in Path(told["run"], "eval").iterdir()}
    assert files == {
        f"{name}{suffix}"
        for name in ("test", "test-uniform-9-repeats-miss-s3")
        for suffix in (".json", ".per_user.parquet")
    }


def test_recommend_to_users(blin: Blin) -> None:
    users = pq.read_table("data/shop/users.parquet")["id"].to_pylist()[:2]
    rows = value_of(blin("recommend", "--user", users[0], "--user", users[1], "--k", 3, "--json"))
    assert [row["user_id"] for row in rows] == [users[0]] * 3 + [users[1]] * 3
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2
    assert rows[0].keys() == {"user_id", "item_id", "score", "rank"}
    assert all(row["item_id"].startswith("sku-") for row in rows)


def test_recommend_to_a_history_names_what_it_does_not_know(blin: Blin) -> None:
    items = pq.read_table("data/shop/items.parquet")["id"].to_pylist()
    result = blin("recommend", "--history", f"{items[0]},nonsense,{items[1]}", "--k", 5, "--json")
    recommended = [row["item_id"] for row in value_of(result)]
    assert len(recommended) == 5 and not {items[0], items[1]} & set(recommended)
    assert result.stderr == (
        "warning: 1 item is unknown to the model and left out of the history: nonsense\n"
    )
    spaced = blin("recommend", "--history", f" {items[0]} , {items[1]}", "--k", 5, "--json")
    as_json = blin("recommend", "--history", json.dumps(items[:2]), "--k", 5, "--json")
    assert value_of(spaced) == value_of(as_json) == value_of(result)
    blank = blin("recommend", "--history", json.dumps([f" {items[0]}", items[1]]))
    assert f"left out of the history:  {items[0]}" in blank.stderr


def test_seen_items_come_back_only_when_asked_for(blin: Blin) -> None:
    items = pq.read_table("data/shop/items.parquet")["id"].to_pylist()
    asked = ("recommend", "--history", items[0], "--k", len(items), "--json")
    assert len(value_of(blin(*asked))) == len(items) - 1
    assert len(value_of(blin(*asked, "--include-seen"))) == len(items)


def test_recommend_to_all_writes_a_file(blin: Blin) -> None:
    num_users = pq.read_table("data/shop/users.parquet").num_rows
    assert value_of(blin("recommend", "--all", "--k", 4, "--out", "recs.parquet", "--json")) == {
        "out": "recs.parquet",
        "rows": 4 * num_users,
    }
    assert blin("recommend", "--all", "--k", 4, "--out", "recs.csv").exit_code == 0
    table = pq.read_table("recs.parquet")
    assert table.column_names == ["user_id", "item_id", "score", "rank"]
    with Path("recs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["item_id"] for row in rows] == table["item_id"].to_pylist()


def test_datasets_lists_what_is_there_and_what_could_be(blin: Blin) -> None:
    told = value_of(blin("datasets", "--json"))
    assert told["prepared"] == ["shop"]
    assert {"ml-1m", "beauty", "sports", "yelp"} <= {entry["name"] for entry in told["catalogue"]}
    assert re.search(r"^shop +yes ", blin("datasets").stdout, re.MULTILINE)


def test_directories_come_from_options_or_the_environment(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data").rename("elsewhere")
    Path("runs").rename("others")
    assert blin("evaluate", "--runs-dir", "others").exit_code == 0, "the run knows its dataset"
    assert blin("evaluate").exit_code == 4
    monkeypatch.setenv("BLIN_DATA_DIR", "elsewhere")
    monkeypatch.setenv("BLIN_RUNS_DIR", "others")
    assert blin("evaluate").exit_code == 0
    assert value_of(blin("datasets", "--json"))["prepared"] == ["shop"]


def test_quiet_leaves_only_the_results_and_warnings(blin: Blin) -> None:
    result = blin("train", "--dataset", "shop", "--dim", 8, "--epochs", 1, "-q")
    assert result.stderr.startswith("warning: test NDCG@10 0.")
    assert result.stderr.count("\n") == 1
    assert "NDCG@10" in result.stdout


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes stdout and stderr look like a terminal of 80 columns to rich."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_training_moves_a_bar(blin: Blin) -> None:
    train = ("train", "--dataset", "shop", "--dim", 8, "--epochs", 2)
    result = blin(*train, "--verbose")
    assert "  dim = 8\n" in result.stderr
    assert result.exit_code == 0, result.stderr
    lines = re.split(r"[\r\n]", result.stderr)
    bars = [line for line in lines if "━" in line and "epoch" in line]
    assert not any("…" in bar for bar in bars), "cut short"
    for part in ("epoch 2/2", "sequence ", "kl ", " users/s", "NDCG@10 0."):
        assert part in bars[-1]
    assert "━" not in blin(*train, "--no-progress").stderr
    assert "━" not in blin(*train, "--quiet").stderr


@pytest.mark.usefixtures("terminal")
def test_no_color_is_obeyed(blin: Blin, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = re.compile(r"\x1b\[[\d;]*3[0-7]m")
    wrong = ("evaluate", "--run", "nowhere")
    progress = ("preprocess", "shop.csv", "--name", "again")
    assert coloured.search(blin(*progress).stderr)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(blin(*progress, "--min-interactions", 4).stderr)
    assert not coloured.search(blin(*wrong).stderr)


def test_version(blin: Blin) -> None:
    assert re.fullmatch(r"blin \d+\.\d+\.\d+\n", blin("--version").stdout)


def test_a_table_without_times_is_warned_of(blin: Blin) -> None:
    rows = [f"c{user},p{step},11/1{step}/2023 01:02" for user in range(6) for step in range(6)]
    Path("us.csv").write_text("customer,product,bought_at\n" + "\n".join(rows) + "\n")
    result = blin("preprocess", "us.csv")
    assert result.exit_code == 0
    assert "none: in the order of the file" in result.stdout
    assert "warning: no column of times was found" in result.stderr


def test_another_log_under_an_old_name_is_warned_of(blin: Blin) -> None:
    rows = [f"u{user},i{step},{step}" for user in range(6) for step in range(6)]
    Path("other.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    result = blin("preprocess", "other.csv", "--name", "shop")
    assert result.exit_code == 0
    told = " ".join(result.stderr.split())
    assert "data/shop was prepared from shop.csv before and is replaced" in told
