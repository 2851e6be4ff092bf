"""No secret leaves, whatever it is wrapped in; what is none stays readable."""

import subprocess
import sys
from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, tree, write_config, write_documents
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.console import guarded
from preprocessing.redaction import HIDDEN, redact, redact_values
from preprocessing.storage import InputError

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://AKIA:s3cr3t@bucket/a b", "s3://***@bucket/a b"),
        ("https://ann@host/a", "https://***@host/a"),
        ("https://u:p@h/a and ftp://x:y@z", "https://***@h/a and ftp://***@z"),
        (
            f"https://h/a?part=2&X-Amz-Signature={SECRET}&X-Amz-Date=1",
            "https://h/a?part=2&X-Amz-Signature=***&X-Amz-Date=1",
        ),
        (
            f"https://h/a?X-Amz-Credential={SECRET}%2F1&X-Amz-Security-Token={SECRET}",
            "https://h/a?X-Amz-Credential=***&X-Amz-Security-Token=***",
        ),
        (f"https://h/a?sv=2024&sig={SECRET}&se=1", "https://h/a?sv=2024&sig=***&se=1"),
        (f"https://h?TOKEN={SECRET}'", "https://h?TOKEN=***'"),
        (f"{{'key': 'AB', 'secret': '{SECRET}', 'anon': False}}", None),
        (f'{{"aws_secret_access_key": "{SECRET}"}}', '{"aws_secret_access_key": ***}'),
        (f"password={SECRET} user=ann", "password=*** user=ann"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        ("id AKIAIOSFODNN7EXAMPLE used", "id *** used"),
        (f"login with hf_{'a' * 30} failed", "login with *** failed"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str | None) -> None:
    hidden = redact(text)
    assert SECRET not in hidden
    assert expected is None or hidden == expected
    assert redact(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "corpus.allowed_reject_share=0.25",
        "no key 'text' among its keys: title, body",
        "an override reads key.path=value",
        "tokenizer.vocab_size: 200 then, 300 now",
        "[MASK] tokens: 12; max_tokens 512",
        "set tokenizer.path=voc and tokenizer.vocab_size=300, num_tokens = 5",
        '{"tokenizer": "abc", "max_tokens": 5}',
        "mail to ann@example.org",
        "/data/token/part-00000.arrow",
        "s3://bucket/key/part-00000.arrow",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/ann/key.json")
    assert redact(f"the server said: {SECRET}!") == f"the server said: {HIDDEN}!"
    assert redact("a short word in /home/ann/key.json") == "a short word in /home/ann/key.json"


def test_plain_values_are_redacted_all_the_way_down() -> None:
    plain = {"a": [f"https://h?token={SECRET}", 1, None], "b": {"c": True}}
    assert redact_values(plain) == {"a": ["https://h?token=***", 1, None], "b": {"c": True}}


@given(st.from_regex(r"[A-Za-z0-9+/_.~-]{16,40}", fullmatch=True))
def test_any_value_in_the_usual_places(value: str) -> None:
    for text in (
        f"s3://id:{value}@b/k",
        f"https://h/a?X-Amz-Signature={value}",
        f"https://h/a?x=1&access_token={value}#top",
        f"S3FileSystem(secret='{value}', anon=False)",
        f"{{'password': '{value}'}}",
    ):
        assert value not in redact(text)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", [InputError, OSError, RuntimeError])
def test_errors_of_commands(
    capsys: pytest.CaptureFixture[str], debug: bool, kind: type[Exception]
) -> None:
    def command() -> dict[str, object]:
        raise kind(f"https://ann:{SECRET}@host/a?token={SECRET}: no")

    assert guarded(command, debug=debug, as_json=True) in (1, 2)
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    assert "https://***@host/a" in out
    assert "https://***@host/a" in err


def test_worker_in_trouble_tells_no_secret(tmp_path: Path) -> None:
    """A source with credentials that cannot be reached, from the command to the workers."""
    url = f"http://ann:{SECRET}@127.0.0.1:9/a.txt?token={SECRET}"
    recipe = write_config(tmp_path, corpus={"inputs": [url], "retries": 0})
    for words in ([], ["--debug"], ["--print-config"]):
        command = [sys.executable, "-m", "preprocessing", "ingest", str(recipe), "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == (0 if "--print-config" in words else 2), done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert HIDDEN in done.stdout


def test_manifests_hold_no_secret(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(30))
    preparation = prepare_config(
        tmp_path, corpus={"text_field": f"https://h?token={SECRET}", "language": "en"}
    )
    (outcome,) = run_stages(preparation, ["ingest"])
    written = {name: data for name, data in tree(outcome.directory).items() if ".json" in name}
    assert written
    assert not [name for name, data in written.items() if SECRET.encode() in data]
