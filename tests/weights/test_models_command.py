"""`ex4d models`: what is here, whether it is whole, and how the rest gets here."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import pytest

from ex4d.cli.main import main
from ex4d.weights.catalogue import PARTS, Part, PublishedFile, part
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.fetch import fetch_part
from ex4d.weights.inventory import check_part
from ex4d.weights.places import path_of
from ex4d_core.wan_settings import STEP_DISTILLED_LORA

WAN_FOLDER = "Wan-AI/Wan2.1-I2V-14B-480P"


def models_command(folder: Path, *words: str) -> int:
    return main(["models", *words, "--models", str(folder)])


def test_the_list_says_what_is_here_and_what_it_may_be_used_for(wan_models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (wan_models / WAN_FOLDER / "Wan2.1_VAE.pth").unlink()
    (wan_models / WAN_FOLDER / "diffusion_pytorch_model-00002-of-00007.safetensors").unlink()
    assert models_command(wan_models, "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert " yes " in lines["text_encoder"] or "files" in lines["text_encoder"]
    assert " no " in lines["vae"] and "6 of 7 files" in lines["dit"]
    assert all("Apache-2.0" in lines[entry.name] for entry in PARTS if entry.kind in ("wan", "lora"))
    assert lines["folder"].endswith(wan_models.name)


def test_loras_that_a_request_can_name_are_listed(wan_models, capsys):
    (wan_models / "loras").mkdir()
    (wan_models / "loras" / "mine.safetensors").write_bytes(b"")
    models_command(wan_models, "list", "vae")
    assert re.search(r"^loras +mine$", capsys.readouterr().out, re.MULTILINE)


def test_converted_weights_are_listed_with_what_removes_them(wan_models, capsys):
    folder = wan_models / ".converted"
    folder.mkdir()
    (folder / "vae-ab12.safetensors").write_bytes(bytes(2000))
    models_command(wan_models, "list", "vae")
    assert re.search(r"^converted +1 files, 2 kB; ex4d clean", capsys.readouterr().out, re.MULTILINE)
    assert models_command(wan_models, "list", "vae", "--json") == 0
    converted = json.loads(capsys.readouterr().out)["result"]["converted"]
    assert converted == {"files": [str(folder / "vae-ab12.safetensors")], "bytes": 2000}


def test_toy_models_are_not_the_published_ones_and_the_check_says_so(wan_models, capsys):
    assert models_command(wan_models, "check", "vae", "dit") == 1
    out = capsys.readouterr().out
    assert "Wan2.1_VAE.pth is damaged" in out and "published 507609880" in out
    assert "keys and shapes are not those of the published model" in out
    assert "no hash is known for it" in out


def test_a_quick_check_reads_no_bytes(wan_models, capsys):
    assert models_command(wan_models, "check", "vae", "--quick") == 1
    out = capsys.readouterr().out
    assert "damaged" not in out and "keys and shapes are not those" in out


def test_missing_parts_are_wrong_unless_they_are_optional(wan_models, capsys):
    (wan_models / "EX-4D" / "ex4d.ckpt").unlink()
    assert models_command(wan_models, "check", "--quick") == 1
    out = capsys.readouterr().out
    assert "ex4d models fetch ex4d" in out and "fetch fast" not in out
    assert models_command(wan_models, "check", "fast") == 1
    assert "ex4d models fetch fast" in capsys.readouterr().out


def test_bytes_are_compared_with_the_published_hash_and_with_the_hubs(tmp_path):
    right = hashlib.sha256(b"weights").hexdigest()
    wrong = "0" * 64
    for number, (sha256, noted, verdict) in enumerate(
        ((right, "", True), (wrong, "", False), ("", right, True), ("", wrong, False))
    ):
        folder = tmp_path / str(number)
        (folder / "x").mkdir(parents=True)
        (folder / "x" / "file.txt").write_bytes(b"weights")
        (folder / "hashes.json").write_text(json.dumps({"x/file.txt": noted}))
        entry = Part("thing", "", "lora", "", True, (PublishedFile("some/where", "file.txt", 0, sha256, "x"),))
        findings = list(check_part(folder, entry))
        assert findings[0].right is verdict, (sha256, noted)


def test_files_that_are_here_are_not_fetched_again(wan_models, capsys):
    assert models_command(wan_models, "fetch", "vae", "ex4d") == 0
    out = capsys.readouterr().out
    assert "Wan2.1_VAE.pth" in out and "ex4d.ckpt" in out and "Apache-2.0" in out


class Hub(ThreadingHTTPServer):
    """A hub on this machine with one file, which it names by its hash, as the real one does.

    Attributes:
        downloads: how often somebody asked for the file's bytes.
        closes_after: bytes of the next answer after which the connection is gone.
    """

    content = b"weights" * 10_000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.downloads = 0
        self.closes_after: int | None = None


class HubRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        known = self.path == "/some/where/resolve/main/folder/file.bin"
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(Hub.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(Hub.content) if known else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if not self.path.endswith("file.bin"):
            return
        self.server.downloads += 1
        self.wfile.write(Hub.content[: self.server.closes_after])
        if self.server.closes_after is not None:
            self.close_connection, self.server.closes_after = True, None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def thing(path: str, size: int = 0, sha256: str = "") -> Part:
    """A part of one file of the hub."""
    return Part("thing", "", "lora", "", True, (PublishedFile("some/where", path, size, sha256, "x"),))


THING = thing("folder/file.bin")


def test_a_part_is_fetched_and_its_hash_is_kept(hub, tmp_path):
    hub.closes_after = 100  # a connection that is lost on the way is taken up again
    (path,) = fetch_part(tmp_path, THING)
    assert path == tmp_path / "x" / "folder" / "file.bin" and path.read_bytes() == Hub.content
    assert list(fetch_part(tmp_path, THING)) == [path] and hub.downloads == 2
    assert next(check_part(tmp_path, THING)).right
    path.write_bytes(Hub.content[:-1])
    finding = next(check_part(tmp_path, THING))
    assert not finding.right and f"{path} is damaged" in finding.text and "ex4d models fetch thing" in finding.text


def test_a_file_that_the_hub_does_not_have_is_named(hub, tmp_path):
    with pytest.raises(WeightsMissingError, match=r"some/where/gone.bin"):
        list(fetch_part(tmp_path, thing("gone.bin")))


def test_a_published_file_that_was_replaced_is_said_to_be_another(hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"the hub now has another folder/file.bin"):
        list(fetch_part(tmp_path, thing("folder/file.bin", sha256="0" * 64)))


def test_a_network_that_fails_on_the_way_is_said_in_one_sentence(tmp_path, monkeypatch):
    """Releases of huggingface_hub rest on different HTTP libraries, whose errors are no OSError in some."""
    from huggingface_hub.errors import HfHubHTTPError

    def lost(*_: object, **__: object) -> str:
        raise HfHubHTTPError.__bases__[0]("the connection was lost")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", lost)
    with pytest.raises(WeightsMissingError, match="the connection was lost"):
        list(fetch_part(tmp_path, THING))


def test_without_its_hash_a_fetched_file_is_here_all_the_same(tmp_path, monkeypatch):
    from huggingface_hub.errors import HfHubHTTPError

    def fetched(url: str, stream: BinaryIO, **_: object) -> None:
        stream.write(Hub.content)

    def lost(*_: object) -> None:
        raise HfHubHTTPError.__bases__[0]("the connection was lost")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fetched)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lost)
    assert list(fetch_part(tmp_path, THING)) == [tmp_path / "x" / "folder" / "file.bin"]
    assert next(check_part(tmp_path, THING)).text.startswith("file.bin: no hash is known for it")


def test_without_a_network_the_file_and_its_place_are_named(tmp_path, capsys, monkeypatch):
    """The hub's own switch for it; the message says where the file belongs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert models_command(tmp_path / "models", "fetch", "vae") == 1
    error = capsys.readouterr().err
    assert "Wan2.1_VAE.pth" in error


def test_a_disk_that_is_too_small_is_said_before_the_download(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"thing needs .* GB free; set EX4D_MODELS"):
        next(fetch_part(tmp_path, thing("file", size=10**18)))


def test_an_unknown_part_is_named(tmp_path, capsys):
    assert models_command(tmp_path, "fetch", "everything") == 1
    assert "unknown part 'everything': expected dit, text_encoder" in capsys.readouterr().err


def test_the_fast_presets_lora_is_fetched_to_where_requests_find_it():
    models = Path("models")
    (file,) = part("fast").files
    assert path_of(models, file) == models / "loras" / f"{STEP_DISTILLED_LORA}.safetensors"
