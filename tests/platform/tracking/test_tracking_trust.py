"""A run folder is data: nothing in it names a server, a file outside it, or somebody else's run; and secrets stay out of it."""

import json
import os
import pickle
import shlex
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from elf_platform.cli import error_paragraph
from elf_platform.config import DataConfig, TrackingConfig
from elf_platform.config_io import flatten
from elf_platform.recipes import tiny
from elf_platform.redact import CREDENTIALS, redact, with_password
from elf_platform.tracking import RunHandle, book_event, finish, load_handle, open_run, start_tracker
from elf_platform.tracking.journal import UPLOADS_FILE, append
from elf_platform.tracking.runs import artifacts_of, flush_command, store_uri, ui_command
from elf_platform.tracking.status import flush_run

SECRET = "hunter2%s3cret"


ODD = "a?b%41%c d#e[f]{g}üñ&x=1;'y"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storages that all tests share: a new database costs seconds."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(autouse=True)
def home(stores: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage of the user's own, and an environment without secrets."""
    monkeypatch.setenv("ELF_HOME", str(stores / "home"))
    for name in (*CREDENTIALS, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return stores / "home"


def tracked(storage: Path, name: str = "") -> tuple[RunHandle, Path]:
    """A run with a point that was sent, in a real store of ``storage``."""
    folder = storage / "runs" / (name or uuid.uuid4().hex)
    handle = open_run(TrackingConfig(), storage=storage, run_folder=folder, run_name="one", params={"a": "1"})
    tracker = start_tracker(handle, folder)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    return handle, folder


def held(handle: RunHandle) -> set[str]:
    """The files that the store has of a run."""
    from mlflow.tracking import MlflowClient

    client, found, folders = MlflowClient(handle.uri), set(), [""]
    while folders:
        for file in client.list_artifacts(handle.run_id, folders.pop() or None):
            (folders.append if file.is_dir else found.add)(file.path)
    return found


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////tmp/elsewhere/mlflow.db", "postgresql://db.example.org/mlflow"])
def test_a_folder_that_names_another_store_is_refused_with_the_command_that_names_it(home: Path, uri: str) -> None:
    handle, folder = RunHandle(kind="mlflow", uri=uri, experiment="elf", key="k"), home / "runs" / "elsewhere"
    handle.save(folder)
    with pytest.raises(ValueError, match="may name any server") as refused:
        flush_run(folder)
    command = str(refused.value).splitlines()[-1]
    assert command == f"    {flush_command(handle, folder)}" and shlex.split(command)[-2:] == ["--tracking.uri", uri]
    with pytest.raises(ValueError, match="may name any server"):
        flush_run(folder, "http://localhost:1")


def test_the_users_own_store_and_one_that_is_named_are_sent_to(home: Path, stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = tracked(home)
    assert flush_run(folder)[0] and "--tracking.uri" not in flush_command(load_handle(folder) or RunHandle(kind="null"), folder)
    handle, folder = tracked(stores / ODD)
    with pytest.raises(ValueError, match="may name any server"):
        flush_run(folder)
    assert flush_run(folder, handle.uri)[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", handle.uri)
    assert flush_run(folder)[0]


def test_nothing_outside_the_folder_is_sent(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handle, folder = tracked(home)
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_text("secret")
    (folder / "ours").mkdir()
    (folder / "ours" / "report.html").write_text("ours")
    (folder / "link").symlink_to(private / "key")
    (folder / "linked").symlink_to(private)
    (folder / "holds").mkdir()
    (folder / "holds" / "link").symlink_to(private / "key")
    names = [str(private / "key"), os.path.relpath(private / "key", folder), "/etc/hostname", "a\0b", ".", ""]
    names += ["link", "linked", "linked/key", "holds"]
    for name in names:
        append(folder / UPLOADS_FILE, {"path": name, "folder": ""})
    append(folder / UPLOADS_FILE, {"path": "ours/report.html", "folder": "../../../../up"})
    append(folder / UPLOADS_FILE, {"path": "ours", "folder": "ours"})
    capfd.readouterr()
    assert flush_run(folder)[0]
    assert held(handle) == {"ours/report.html"}
    assert capfd.readouterr().err.count("leads out of it") == len(names) - 1 + 1  # the empty name is no upload
    assert not list(home.rglob("up")) and not (home.parent / "up").exists()


def test_the_place_of_artefacts_is_not_what_the_folder_says(home: Path, tmp_path: Path) -> None:
    _, folder = tracked(home)
    kept = load_handle(folder)
    assert kept is not None
    replace(kept, experiment="new", run_id="", artifact_root=(tmp_path / "taken").as_uri()).save(folder)
    (folder / "report.html").write_text("ours")
    append(folder / UPLOADS_FILE, {"path": "report.html", "folder": ""})
    assert flush_run(folder)[0]
    assert not (tmp_path / "taken").exists() and list((home / "mlartifacts" / "new").rglob("report.html"))
    replace(kept, experiment="../../up").save(folder)
    with pytest.raises(ValueError, match="path out of"):
        flush_run(folder)


def test_a_folder_cannot_write_to_somebody_elses_run(home: Path) -> None:
    from mlflow.tracking import MlflowClient

    victim, _ = tracked(home, "victim")
    _, folder = tracked(home, "hostile")
    kept = load_handle(folder)
    assert kept is not None
    replace(kept, run_id=victim.run_id).save(folder)
    start_tracker(RunHandle(kind="jsonl"), folder).log(2, {"loss": -9.0})
    assert flush_run(folder)[0]
    assert [point.value for point in MlflowClient(victim.uri).get_metric_history(victim.run_id, "loss")] == [1.0]


def test_files_from_elsewhere_are_copied_into_the_folder_first(home: Path, tmp_path: Path) -> None:
    handle, folder = tracked(home)
    (tmp_path / "score.json").write_text("{}")
    assert finish(handle, folder, "FINISHED", [tmp_path / "score.json"])
    assert held(handle) == {"score.json"}


ADDRESSES = {
    f"http://me:{quote(SECRET)}@127.0.0.1:9": "http://127.0.0.1:9",
    f"https://{quote(SECRET)}@host/path": "https://host/path",
    f"postgresql://me:{quote(SECRET)}@db:5/mlflow?sslmode=require": "postgresql://me@db:5/mlflow?sslmode=require",
}


@pytest.mark.parametrize("uri", ADDRESSES)
def test_a_password_is_in_no_form_of_the_configuration(uri: str) -> None:
    config = replace(tiny(), tracking=TrackingConfig(uri=uri))
    assert config.tracking.uri == ADDRESSES[uri]
    for form in (repr(config), json.dumps(flatten(config)), repr(pickle.dumps(config))):
        assert SECRET not in form and quote(SECRET) not in form
    given = {name: os.environ.get(name) for name in CREDENTIALS}
    assert SECRET in given.values(), "the driver and what it starts can still open the store"
    if uri.startswith("postgresql"):
        assert with_password(config.tracking.uri) == uri


def test_a_server_that_wants_a_password_gets_it_and_nothing_else_does(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.utils.credentials import get_default_host_creds

    uri = f"http://me:{quote(SECRET)}@127.0.0.1:9"
    folder = home / "runs" / "guarded"
    handle = open_run(TrackingConfig(uri=uri), storage=home, run_folder=folder, run_name="one", params={"tracking.uri": uri})
    creds = get_default_host_creds(handle.uri)
    assert (creds.username, creds.password) == ("me", SECRET)
    book_event(folder, 1, "note", f"could not reach {uri}")
    for file in (path for path in folder.rglob("*") if path.is_file() and path.name != "tracking.json"):
        assert quote(SECRET) not in file.read_text()
    handle = replace(handle, params={})
    handle.save(folder)
    assert SECRET not in (folder / "tracking.json").read_text()
    assert SECRET not in repr(handle) + ui_command(handle) + flush_command(handle, folder)
    assert SECRET not in capfd.readouterr().err
    # A worker on another machine has an environment of its own: the handle brings the secret, in memory alone.
    code = (
        "import os, pickle, sys; from pathlib import Path; from elf_platform.tracking import start_tracker\n"
        "start_tracker(pickle.load(sys.stdin.buffer), Path(sys.argv[1])); print(os.environ['MLFLOW_TRACKING_PASSWORD'])"
    )
    clean = {name: value for name, value in os.environ.items() if name not in CREDENTIALS} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, input=pickle.dumps(handle), env=clean, capture_output=True, timeout=240)
    assert done.stdout.decode().strip() == SECRET, done.stderr


def test_secrets_among_the_parameters_and_in_data_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="among its parameters") as refused:
        TrackingConfig(uri=f"postgresql://db/mlflow?password={SECRET}")
    assert SECRET not in str(refused.value)
    for path in (f"s3://key:{SECRET}@bucket/a.txt", f"s3://bucket/a.txt?secret_key={SECRET}", f"https://host/a.txt?X-Amz-Signature={SECRET}"):
        with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY") as refused:
            DataConfig(paths=(path,))
        assert SECRET not in str(refused.value)
    assert DataConfig(paths=("/data/a?token=b.txt", "s3://bucket/a.txt?region=eu-west-1&endpoint_override=x")).paths


@pytest.mark.parametrize("sign", ["/", "?", "#"])
def test_a_password_that_ends_the_host_is_refused(sign: str) -> None:
    with pytest.raises(ValueError, match="%2F") as refused:
        TrackingConfig(uri=f"http://me:a{sign}{SECRET}@host:5000")
    assert SECRET not in str(refused.value)
    assert TrackingConfig(uri="sqlite:////home/a@b/mlflow.db").uri == "sqlite:////home/a@b/mlflow.db"


def test_texts_that_a_model_wrote_stay_as_they_are(tmp_path: Path) -> None:
    text = "see http://a:b@host/?token=abc"
    start_tracker(RunHandle(kind="jsonl"), tmp_path).text("sample", text, 1)
    assert [path.read_text() for path in (tmp_path / "texts").rglob("*.txt")] == [text]


def test_secrets_in_errors_are_blotted_out() -> None:
    said = error_paragraph(OSError(f"cannot reach http://me:{SECRET}@host/a?b=1&access_token={SECRET} (HTTP 500)"))
    assert SECRET not in said and "http://***@host/a?b=1&access_token=***" in said.replace("\n", " ")
    assert redact("mail me@host, see http://host/a@b and s3://bucket/key") == "mail me@host, see http://host/a@b and s3://bucket/key"
    assert redact("x" * 200_000 + "&" + "y" * 200_000).startswith("x")  # in no time


def test_a_storage_of_any_name_holds_its_own_database(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, elsewhere = stores / ODD, tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    handle, folder = tracked(storage, "odd")
    (folder / "report.html").write_text("ours")
    assert finish(handle, folder, "FINISHED", [folder / "report.html"])
    assert not handle.pending and (storage / "mlflow.db").is_file()
    assert sorted(path.name for path in storage.iterdir()) == ["mlartifacts", "mlflow.db", "runs"]
    assert {path.name for path in stores.iterdir()} <= {ODD, "home"} and not list(elsewhere.iterdir())
    assert held(handle) == {"report.html"} and list((storage / "mlartifacts").rglob("report.html"))
    again, _ = tracked(storage, "odd")
    assert again.run_id == handle.run_id
    # What is printed is one word of a shell, and is read back as this very store.
    shown = shlex.split(ui_command(handle))[-1]
    assert shown == handle.uri == store_uri(shown, tmp_path) == store_uri("", storage)


@pytest.mark.parametrize("name", ["plain", "with space", "ünï", "a[b]", "a#b", "a;b&c"])
def test_ordinary_storages_keep_their_plain_address(tmp_path: Path, name: str) -> None:
    """As it was before, so that runs find themselves again."""
    assert store_uri("", tmp_path / name) == f"sqlite:///{tmp_path / name}/mlflow.db"


def test_an_experiment_lies_in_its_storage(tmp_path: Path) -> None:
    assert artifacts_of(tmp_path, "elf") == (tmp_path / "mlartifacts" / "elf").as_uri()
    for name in ("..", "../x", "/etc", "a/../../b"):
        with pytest.raises(ValueError, match="path out of"):
            artifacts_of(tmp_path, name)
