"""Two commands that write to one place at the same time."""

from __future__ import annotations

import json
import os
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from dln_momentum.cli.collect import main
from dln_momentum.outputs import files
from tests.faults.children import begun, leftovers

pytestmark = pytest.mark.slow


def test_two_collections_into_one_folder_follow_one_another(
    tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits while the first writes, and what is there in the end is whole."""
    out, words = tmp_path / "out", [str(alone), "--out", str(tmp_path / "out")]
    reader, writer = os.pipe()
    # forked before the first takes the lock, which a later child would inherit
    second = begun(tmp_path, "collect", *words, fault=lambda: os.read(reader, 1))
    usual, written = files.write_dataset, list[Path]()

    def write(path: Path, dataset: Any) -> None:
        usual(path, dataset)
        written.append(path)
        os.write(writer, b"x")
        # a collection takes a fraction of a second
        time.sleep(3)
        assert second.is_running

    monkeypatch.setattr(files, "write_dataset", write)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    other = second.wait()
    assert other.code == 0, other.err
    assert len(written) == 1
    record = json.loads((out / "collect.json").read_text())
    assert "complete" not in record
    digests = {
        path.name: blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in out.iterdir()
        if path.name != "collect.json"
    }
    assert digests == record["files"]
    assert leftovers(out) == []
