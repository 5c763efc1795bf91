"""csv and text_csv: values right, and every mistake with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigopt.data.table import read_table
from bigopt.data.text import encode
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets.csv import csv
from bigopt_plugins.datasets.text_csv import text_csv


def table(tmp_path: Path, n: int = 60, change: dict[int, str] | None = None) -> str:
    """Row i: i, i² + 0.5, one of two colours, one of two kinds; ``change`` replaces lines, by number."""
    lines = ["size,price,colour,kind"]
    lines += [f"{i},{i * i}.5,{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'}" for i in range(n)]
    for line, text in (change or {}).items():
        lines[line - 1] = text
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_classification_on_numbers_and_categories(tmp_path: Path) -> None:
    data = csv(path=table(tmp_path), target="kind")
    assert data.schema.kind == "tabular" and data.schema.shape == (4,) and data.schema.class_names == ("no", "yes")
    assert data.details["columns"] == ["size", "price", "colour=blue", "colour=red"]
    assert (len(data.train), len(data.val), len(data.test or [])) == (36, 12, 12)
    x = data.train.take(torch.arange(36))
    assert torch.equal(x[:, 0].long() % 2, data.train.y)
    assert torch.equal(x[:, 1], x[:, 0] ** 2 + 0.5)
    assert torch.equal(x[:, 2], (x[:, 0] % 3 == 0).float())
    assert torch.equal(x[:, 2] + x[:, 3], torch.ones(36))
    assert data.mean is not None and torch.allclose(data.mean, x.mean(0))


def test_regression_with_one_and_two_targets(tmp_path: Path) -> None:
    path = table(tmp_path)
    data = csv(path=path, target="price", task="regression", drop=("kind",))
    assert data.schema.num_classes == 1 and data.schema.class_names == ()
    x = data.train.take(torch.arange(36))
    assert torch.equal(data.train.y, x[:, :1] ** 2 + 0.5)
    both = csv(path=path, target="price, size", task="regression")
    assert both.schema.num_classes == 2 and both.details["targets"] == ["price", "size"]
    assert torch.equal(both.train.y[:, 0], both.train.y[:, 1] ** 2 + 0.5)


def test_numbers_as_categories_and_classes_in_numeric_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("code;y\n" + "".join(f"{i % 4};{(9, 10, 100)[i % 3]}\n" for i in range(60)))
    data = csv(path=str(path), target="y", separator=";", categorical=("code",))
    assert data.schema.class_names == ("9", "10", "100")
    assert data.details["columns"] == ["code=0", "code=1", "code=2", "code=3"]
    tabs = tmp_path / "tabs.csv"
    tabs.write_text(path.read_text().replace(";", "\t"))
    assert csv(path=str(tabs), target="y", separator="\\t").schema.shape == (1,)


def test_categories_are_learned_from_training_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("c,y\n" + "".join(f"{'ab'[i % 2]},{i % 2}\n" for i in range(60)))
    first = csv(path=str(path), target="y", categorical=("c",))
    rows = path.read_text().splitlines()
    from bigopt.data import split_indices

    tested = split_indices(torch.arange(60) % 2, 0.2, 0.2, 0)[2]
    rows[1 + int(tested[0])] = f"strange,{int(tested[0]) % 2}"
    path.write_text("\n".join(rows) + "\n")
    second = csv(path=str(path), target="y", categorical=("c",))
    assert second.schema.shape == first.schema.shape == (2,)
    assert "column 'c': 1 categories do not occur in training" in second.notes
    assert second.test is not None and second.test.take(torch.tensor([0])).sum() == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({7: "5,25.5,red"}, "table.csv, line 7: 3 fields, but the header has 4"),
        ({7: "5,25.5,red,yes,more"}, "table.csv, line 7: 5 fields"),
        ({9: "seven,49.5,red,yes"}, "line 9, column 'size': 'seven' is not a number .*dataset.categorical"),
        ({9: "1_0,49.5,red,yes"}, "line 9, column 'size': '1_0' is not a number"),
        ({9: "inf,49.5,red,yes"}, "line 9, column 'size': 'inf' is not finite"),
        ({9: "NaN,49.5,red,yes"}, "line 9, column 'size': the value is missing"),
        ({9: "7,,red,yes"}, "line 9, column 'price': the value is missing"),
        ({9: "7,49.5,,yes"}, "line 9, column 'colour': the value is missing"),
        ({9: "7,49.5,red,"}, "line 9, column 'kind': the value is missing"),
        ({9: "7,49.5,red,maybe"}, "column 'kind': this label has one sample only.*'maybe'"),
        ({9: '7,49.5,"red,yes'}, "table.csv, line 61: unexpected end of data"),
        ({9: '7,49.5,"red"x,yes'}, "table.csv, line 9: "),
        ({1: "size,size,colour,kind"}, "line 1: the header has the column 'size' more than once"),
        ({1: "1,2,3,4"}, "line 1: expected a header"),
    ],
)
def test_wrong_rows_are_named_by_line(tmp_path: Path, change: dict[int, str], says: str) -> None:
    with pytest.raises(RequestError, match=says) as error:
        csv(path=table(tmp_path, change=change), target="kind")
    assert "\n" not in str(error.value)


def test_lines_are_those_of_the_file_after_quoted_line_breaks(tmp_path: Path) -> None:
    path = table(tmp_path, change={3: '1,1.5,"re\nd",yes', 9: "x,49.5,red,yes"})
    with pytest.raises(RequestError, match="line 10, column 'size'"):
        csv(path=path, target="kind")


def test_wrong_arguments(tmp_path: Path) -> None:
    path = table(tmp_path)
    with pytest.raises(RequestError, match=r"dataset.target: .* no column 'kid' \(it has: size.*; nearest: kind"):
        csv(path=path, target="kid")
    with pytest.raises(RequestError, match="dataset.drop: .*'color'.*nearest: colour"):
        csv(path=path, target="kind", drop=("color",))
    with pytest.raises(RequestError, match="different numbers in 60 rows are no classes: set dataset.task=regression"):
        csv(path=path, target="price")
    with pytest.raises(RequestError, match="line 2, column 'kind': 'no' is not a number .*classification"):
        csv(path=path, target="kind", task="regression")
    with pytest.raises(RequestError, match="no columns are left"):
        csv(path=path, target="kind", drop=("size", "price", "colour"))
    with pytest.raises(RequestError, match="column 'size': 36 categories, more than dataset.max_categories=10"):
        csv(path=path, target="kind", categorical=("size",), max_categories=10)
    with pytest.raises(RequestError, match="labels_per_class.*regression"):
        csv(path=path, target="price", task="regression", labels_per_class=3)
    with pytest.raises(RequestError, match="dataset.separator"):
        csv(path=path, target="kind", separator="::")
    with pytest.raises(RequestError, match="table.csv: the val split of 60 samples is empty"):
        csv(path=path, target="kind", val=0.0)
    with pytest.raises(RequestError, match="dataset.path: the file .*tabel.csv does not exist; nearest: table.csv"):
        csv(path=path.replace("table", "tabel"), target="kind")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content, says in (
        (b"", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,\xff\n", "not UTF-8"),
        (b"a,b\n1,\0\n", "line 2: a NUL"),
    ):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=says):
            csv(path=str(path), target="a")


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('ab,"\n\r\0 1', max_size=40).map(str.encode)))
def test_any_bytes_give_a_table_or_a_request_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    try:
        found = read_table(path)
    except RequestError as error:
        assert "fuzz.csv" in str(error)
    else:
        assert all(len(column) == len(found) for column in found.columns.values())


TOPICS = {
    "space": ("the rocket orbits mars", "a star and a moon"),
    "food": ("bread with butter", "she cooks rice, slowly"),
}


def texts(tmp_path: Path, n: int = 40) -> str:
    path = tmp_path / "texts.csv"
    rows = [f'"{TOPICS[label][i % 2]} {i}",{label}' for i in range(n // 2) for label in TOPICS]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return str(path)


def test_texts_with_a_small_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    data = text_csv(path=texts(tmp_path), val=0.2, test=0.2)
    assert data.schema.kind == "text" and data.schema.class_names == ("food", "space")
    assert data.mean is None and data.schema.vocab_size is not None
    x = data.train.take(torch.arange(len(data.train)))
    assert x.dtype is torch.int64 and x.shape[1] % 8 == 0 and x.shape[1:] == data.schema.shape
    assert int(x.max()) < data.schema.vocab_size
    tokenizer = Tokenizer.from_str(data.details["tokenizer"]["json"])
    assert bool((x[:, 0] == tokenizer.token_to_id("[CLS]")).all())
    for row, label in zip(x.tolist(), data.train.y.tolist(), strict=True):
        words = tokenizer.decode(row)
        assert any(words.startswith(text) for text in TOPICS[data.schema.class_names[label]])
    again = text_csv(path=texts(tmp_path), val=0.2, test=0.2)
    assert again.fingerprint == data.fingerprint


def test_the_small_tokenizer_is_the_same_each_time() -> None:
    # Words with equal counts: their order must not come from the library's hash maps, each randomly seeded.
    rows = [f"{a}{b}{c} {c}{a}er, {b}{c}ing" for a in "abcdef" for b in "ghijk" for c in "lmnop"]
    found = {encode(rows, range(100), folder=None, max_length=32, vocab_size=150).tokenizer["json"] for _ in range(10)}
    assert len(found) == 1


def test_the_small_tokenizer_sees_training_texts_alone() -> None:
    rows = ["cat sat"] * 6 + ["zebra zebra zebra"] * 4
    tokens = encode(rows, range(6), folder=None, max_length=16)
    vocabulary = json.loads(tokens.tokenizer["json"])["model"]["vocab"]
    assert "▁cat" in vocabulary and not any("z" in token for token in vocabulary)
    assert int((tokens.ids[7] == vocabulary["[UNK]"]).sum()) > 3
    assert not bool((tokens.ids[:6] == vocabulary["[UNK]"]).any())


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    data = text_csv(path=texts(tmp_path), max_length=4)
    assert data.schema.shape == (4,) and "of 40 texts were cut to 4 tokens" in data.notes[0]
    vocabulary = json.loads(data.details["tokenizer"]["json"])["model"]["vocab"]
    assert bool((data.train.take(torch.arange(4))[:, -1] == vocabulary["[SEP]"]).all())


def test_a_tokenizer_from_a_folder(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rocket", "mars", "bread", "butter", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tokenizer")
    data = text_csv(path=texts(tmp_path), tokenizer=str(tmp_path / "tokenizer"))
    assert data.details["tokenizer"] == {"folder": str(tmp_path / "tokenizer")}
    ids = set(data.train.take(torch.arange(len(data.train))).unique().tolist())
    assert {2, 3, 5, 6, 7, 8} <= ids and max(ids) < 10 and data.schema.vocab_size == 10
    with pytest.raises(RequestError, match="dataset.tokenizer: .*holds no tokenizer") as error:
        (tmp_path / "empty").mkdir()
        text_csv(path=texts(tmp_path), tokenizer=str(tmp_path / "empty"))
    assert "\n" not in str(error.value)
    with pytest.raises(RequestError, match="dataset.tokenizer: the folder .* does not exist; nearest: tokenizer"):
        text_csv(path=texts(tmp_path), tokenizer=str(tmp_path / "tokeniser"))


def test_wrong_texts(tmp_path: Path) -> None:
    path = Path(texts(tmp_path))
    with pytest.raises(RequestError, match="dataset.text: .*no column 'txt'.*nearest: text"):
        text_csv(path=str(path), text="txt")
    with pytest.raises(RequestError, match="dataset.max_length: got 2"):
        text_csv(path=str(path), max_length=2)
    with pytest.raises(RequestError, match="dataset.vocab_size: got 5"):
        text_csv(path=str(path), vocab_size=5)
    lines = path.read_text().splitlines()
    lines[4] = '" ",food'
    path.write_text("\n".join(lines))
    with pytest.raises(RequestError, match="texts.csv, line 5, column 'text': the text is empty"):
        text_csv(path=str(path))
