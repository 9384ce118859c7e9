"""A configuration file that cannot be used: every command names the file, the key and what it can be."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import aws_cdk
import pytest

import app
from cdk import config
from cdk.config import ConfigError, load
from local.__main__ import main as local_main
from operations.__main__ import main as operations_main

DESK = "destinations: [{name: desk}]"
MANY = [f"{{name: rule-{n}, when: drift, to: desk}}" for n in range(50)]
# What is wrong with it, the text of dev.yaml, and what the message says of it.
WRONG = {
    "tab": ("log_level: INFO\nlake:\n\tbronze_days: 30\n", r"line 3, column 1: a tab.*indent with spaces"),
    "malformed": ("symbols: [BTCUSDT\naws: {}\n", r"line 2, column 4: not valid YAML: expected ',' or ']'"),
    "empty": ("# nothing\n", r"it is empty; it should have keys and values"),
    "list": ("- BTCUSDT\n", r"it is '\[\"BTCUSDT\"\]'; it should be keys and values"),
    "twice": ("aws: {}\nlog_level: INFO\naws: {}\n", r"line 3: aws a second time, it is in line 1"),
    "encoding": ("log_level: \udcff\n", r"not encoded in UTF-8"),
    "key": ("aws: {}\nstream: {shard: 2}\n", r"no setting stream\.shard \(did you mean stream\.shards\?\)"),
    "keys there are": ("aws: {}\nstream: {x: 2}\n", r"stream can have shards, fan_out, parallelism, reten"),
    "key elsewhere": ("aws: {}\nalarm_email: a@b.c\n", r"alarm_email \(did you mean aws\.alarm_email"),
    "key of no text": ("aws: {}\n1: 2\n", r"no setting 1; the file can have region, symbols"),
    "name": ("name: prod\naws: {}\n", r"no setting name: an environment is called like its file"),
    "choice": ("log_level: LOUD\n", r"log_level is 'LOUD'; it should be one of DEBUG, INFO, WARN, ERROR"),
    "number of choices": ("aws: {ingest: {cpu: 3}}\n", r"aws\.ingest\.cpu is 3; .* one of 256, 512, 1024"),
    "zone": (
        "aws: {network: {zone_ids: [ap-northeast-1a, apne1-az1]}}\n",
        r"aws\.network\.zone_ids\[0\] is 'ap-northeast-1a'; it should be the id of a zone, like apne1-az1",
    ),
    "number": (
        "stream: {parallelism: 11}\n",
        r"stream\.parallelism is 11; it should be a whole number from 1 to 10",
    ),
    "steps": ("tables: {grid_ms: 150}\n", r"tables\.grid_ms is 150; .* from 100 to 60000, a multiple of 100"),
    "null or": ("tables: {keep_days: x}\n", r"keep_days is 'x'; .* null or a whole number from 1 to 3650"),
    "switch": ("stream: {fan_out: 1}\n", r"stream\.fan_out is 1; it should be true or false"),
    "section": ("stream: [1]\n", r"stream is \[1\]; it should be keys and values of shards, fan_out"),
    "missing": ("functions: {load_history: {timeout_s: 9}}\n", r"load_history\.memory_mb is missing; .* 128"),
    "no list": ("symbols: BTCUSDT\n", r"symbols is 'BTCUSDT'; it should be a list of symbols, like \["),
    "symbols twice": ("aws: {}\nsymbols: [BTCUSDT, ETHUSDT, BTCUSDT]\n", r"symbols: BTCUSDT more than once"),
    "symbols of no text": ("symbols: [1]\n", r"symbols\[0\] is 1; it should be a text"),
    "too many": (f"aws: {{}}\nsymbols: [{', '.join(f'S{n}' for n in range(300))}]\n", r"300 symbols need"),
    "check": ("aws: {}\nprediction: {lateness_ms: 1000, stale_after_s: 1}\n", r"prediction: lateness_ms is"),
    "rule": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{{name: a, when: never, to: desk}}]}}\n",
        r"signals\.rules\[0\]\.when is 'never'; it should be one of worth_trading, confidence, fallback",
    ),
    "key of a rule": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{{name: a, when: drift, to: desk, symbol: X}}]}}\n",
        r"no setting signals\.rules\[0\]\.symbol \(did you mean .*symbols\?\); .* can have name, when, to",
    ),
    "name of a rule": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{{when: drift, to: desk}}]}}\n",
        r"signals\.rules\[0\]\.name is missing; it should be a name of up to 32 lower-case letters",
    ),
    "rule without sense": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{{name: a, when: confidence, to: desk}}]}}\n",
        r"signals\.rules\[0\]: rule a: min_confidence is missing",
    ),
    "destination": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{{name: a, when: drift, to: disk}}]}}\n",
        r"signals: rule a: it is sent to 'disk', which should be one of desk",
    ),
    "too many rules": (
        f"aws: {{}}\nsignals: {{{DESK}, rules: [{', '.join(MANY)}]}}\n",
        r"signals: the rules and destinations are \d+ characters of JSON, .* have room for 2000",
    ),
    "no account": ("log_level: INFO\n", r"aws is missing: dev is deployed into an account; `aws: \{\}`"),
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes dev.yaml of a folder with otherwise the real files, and the commands read that folder."""
    for path in config.FOLDER.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(config, "FOLDER", tmp_path)

    def write(text: str) -> None:
        (tmp_path / "dev.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))

    return write


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_with_its_key(case: str, write: Callable[[str], None]) -> None:
    text, message = WRONG[case]
    write(text)
    with pytest.raises(ConfigError) as raised:
        load("dev")
    assert str(raised.value).startswith("cdk/config/dev.yaml: ")
    assert re.search(message, str(raised.value)), str(raised.value)


OPERATIONS = (
    *(["deploy", "dev"], ["diff", "dev"], ["destroy", "dev", "--confirm", "dev"], ["doctor", "dev"]),
    *(["cost", "--env", "dev"], ["rehearse", "dev"]),
)


@pytest.mark.parametrize("case", ["tab", "empty", "key", "zone", "symbols twice", "too many"])
def test_every_command_says_it_by_its_message_alone(
    case: str,
    write: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, message = WRONG[case]
    write(text)
    said = []
    for arguments in OPERATIONS:
        assert operations_main(arguments) == 2
        said.append(capsys.readouterr().err)
    assert local_main(["models", "--aws", "dev"]) == 2
    said.append(capsys.readouterr().err)
    with pytest.raises(SystemExit) as left:  # what `make synth` runs
        app.main(aws_cdk.App(context={"env": "dev"}))
    said.append(str(left.value.code))
    for each in said:
        assert each.startswith("tickcast: cdk/config/dev.yaml: ")
        assert re.search(message, each)


def test_what_is_wrong_with_an_argument_is_not_said_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^symbols: BTCUSDT more than once"):
        load("dev", symbols="BTCUSDT,ETHUSDT,BTCUSDT")
    with pytest.raises(
        ConfigError, match=r"^history\.rest_url is 'ftp://x'; it should be an address like https://host"
    ):
        load("dev", rest_url="ftp://x")
