"""Credentials in addresses, messages and errors: found however they are written, and shown nowhere."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest

from nightloom.core.errors import InputError, NightloomError
from nightloom.core.secrets import has_secret, hidden, hidden_in, hide_in_logs, public, secrets_hidden

ADDRESSES = [
    "postgresql://reader:pl4nted@host/shop?table=events",
    "postgresql://reader:pl4nted/s3@host/shop?table=events",
    "postgresql://reader@host/shop?table=events&password=pl4nted",
    "postgresql://reader@host/shop?p%61ssword=pl4nted&table=events",
    "postgresql://reader@host/shop?p%2561ssword=pl4nted&table=events",
    "postgresql://reader@host/shop?sslpassword=pl4nted&table=events",
    "snowflake://reader@host/shop?token=pl4nted&table=events",
    "s3://bucket/file?X-Amz-Signature=pl4nted",
    "https://host/file.csv?api_key=pl4nted",
    "https://host/file.csv?apiKey=pl4nted",
    "https://host/file.csv?sv=2024&sig=pl4nted",
    "https://host/file.csv#access_token=pl4nted",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Dreader%3BPWD%3Dpl4nted",
]
PLAIN = [
    "postgresql://reader@host:5432/shop?table=events",
    "postgresql://host/shop?query=SELECT a AS user_id FROM t WHERE mail = 'a@b' AND kind=3",
    "postgresql://host/shop?sslmode=require&sslrootcert=/etc/root.crt&table=events",
    "sqlite:////data/shop.db?table=tokens",
    "s3://bucket/nightloom",
    "/data/keys/password.csv",
    "file:///mnt/a:b@c/shared",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_credential_in_an_address_is_found_and_hidden(address: str) -> None:
    assert has_secret(address)
    for text in (address, f"can not reach '{address}' ({address}), so nothing was read"):
        assert "pl4nted" not in hidden(text)
    assert "host" in hidden(address) or "bucket" in hidden(address) or "odbc" in hidden(address)


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_one_stays_as_it_is(address: str) -> None:
    assert not has_secret(address)
    assert hidden(address) == address


def test_a_link_has_neither_user_nor_secret_parameters() -> None:
    assert public("http://reader:pl4nted@host:5000/ui?token=pl4nted&tab=2#/runs") == "http://host:5000/ui?tab=2#/runs"
    assert public("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert public("") == ""


def test_secrets_of_the_environment_are_hidden_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_URI", "postgresql://night:pl4nted%2Fs3cret@host/mlflow")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:auth-w0rd")
    monkeypatch.setenv("PGPASSWORD", "postgr3s")
    said = hidden("FATAL: pl4nted/s3cret (pl4nted%2Fs3cret) is wrong, so are 'auth-w0rd' and <postgr3s>")
    assert said == "FATAL: *** (***) is wrong, so are '***' and <***>"
    assert hidden_in({"a": ["pl4nted/s3cret", 1, None, ("postgr3s",)]}) == {"a": ["***", 1, None, ["***"]]}


def test_short_values_and_other_programs_variables_change_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_SQL_PASSWORD", "night")
    monkeypatch.setenv("SOME_TOKEN", "a whole sentence")
    assert hidden("one night of a whole sentence in max_tokens=64") == "one night of a whole sentence in max_tokens=64"


def whole(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error.__cause__)


def test_an_error_of_another_library_loses_its_credentials_with_all_its_causes() -> None:
    address = "http://night:pl4nted@host/api"

    def fails() -> None:
        with secrets_hidden():
            try:
                raise ConnectionError(f"{address} refused")
            except ConnectionError as error:
                raise ValueError(f"{address}: no answer") from error

    with pytest.raises(NightloomError, match=r"ValueError: http://night:\*\*\*@host/api: no answer") as caught:
        fails()
    assert "pl4nted" not in whole(caught.value)
    assert "in fails" in str(caught.value), "the traceback is still told"


def test_our_own_errors_keep_their_kind_and_others_are_left_alone() -> None:
    address = "https://host/?token=pl4nted"
    with pytest.raises(InputError, match=r"\?token=\*\*\*") as caught, secrets_hidden():
        raise InputError(f"{address} is refused") from OSError(address)
    assert "pl4nted" not in whole(caught.value)
    plain = KeyError("column")
    with pytest.raises(KeyError) as same, secrets_hidden():
        raise plain
    assert same.value is plain


@pytest.fixture
def _logs_as_they_were() -> Iterator[None]:
    make, hook = logging.getLogRecordFactory(), sys.excepthook
    yield
    logging.setLogRecordFactory(make)
    sys.excepthook = hook


@pytest.mark.usefixtures("_logs_as_they_were")
def test_log_records_and_their_tracebacks_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    hide_in_logs()
    hide_in_logs()  # twice is as good as once
    log = logging.getLogger("other.library")
    address = "http://night:pl4nted@host/api"
    log.warning("retrying %s (%d)", address, 3)
    try:
        raise OSError(address)
    except OSError:
        log.exception("failed")
    assert "retrying http://night:***@host/api (3)" in caplog.text
    assert "OSError: http://night:***@host/api" in caplog.text
    assert "pl4nted" not in caplog.text


def test_an_uncaught_error_of_a_process_is_printed_without_them() -> None:
    code = (
        "from nightloom.core.secrets import hide_in_logs\nhide_in_logs()\n"
        "try:\n    raise OSError('http://night:pl4nted@host/')\nexcept OSError as error:\n    raise KeyError('x') from error\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError: http://night:***@host/" in done.stderr
    assert "KeyError: 'x'" in done.stderr
