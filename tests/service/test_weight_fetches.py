"""Clients have weights fetched: from a hub on this machine with random checkpoints, in real processes."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ex4d.machine import MachineSettings
from ex4d.service.refusals import Refusal
from ex4d.service.settings import ServiceSettings
from ex4d.service.weight_fetches import WeightFetches
from ex4d.weights.catalogue import CLIP, DEPTH_ANYTHING, DEPTH_PRO
from ex4d_core.schema import decode, encode
from ex4d_core.weight_messages import ADAPTER_KIND, WeightsPart, WeightsReply

PATIENCE = 120.0
# More than the chunk of 10 MiB in which the hub's client writes.
HALF = 11_000_000
CHECKPOINT = np.random.default_rng(1).bytes(2 * HALF)
FILES = {"config.json": b"{}", "model.safetensors": CHECKPOINT}


class HubRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        body = self.answer()
        first = body[:HALF] if len(body) > HALF else body
        self.wfile.write(first)
        if len(body) > HALF:
            self.wfile.flush()
            self.server.goes_on.wait(PATIENCE)
            with suppress(ConnectionError):  # cancelled
                self.wfile.write(body[HALF:])

    def answer(self) -> bytes:
        """Send the headers of a file, or of the rest of it that is asked for; returns the bytes to send."""
        content = FILES[self.path.rpartition("/")[2]]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.server.starts.append(start)
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        return content[start:]

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub that stops in the middle of a checkpoint until ``goes_on`` is set."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HubRequest) as server:
        server.daemon_threads = True
        server.goes_on, server.starts = threading.Event(), []
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.goes_on.set()
        server.shutdown()


@pytest.fixture
def fetches(tmp_path):
    pytest.importorskip("huggingface_hub")
    one = WeightFetches(MachineSettings(models=tmp_path / "models"), tmp_path / "logs", allowed=True)
    yield one
    one.stop()


def part_in(fetches: WeightFetches) -> WeightsPart:
    return next(part for part in fetches.describe().parts if part.name == DEPTH_ANYTHING)


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_download_tells_its_progress_is_cancelled_and_resumes_where_it_was(hub, fetches, tmp_path):
    before = part_in(fetches)
    assert (before.state, before.done, before.licence) == ("missing", 0, "Apache-2.0") and before.bytes > 10**7
    fetches.fetch(DEPTH_ANYTHING)
    wait_until(lambda: part_in(fetches).done >= HALF // 2)
    assert part_in(fetches).state == "fetching"
    cancelled = fetches.cancel(DEPTH_ANYTHING)
    assert next(one for one in cancelled.parts if one.name == DEPTH_ANYTHING).state == "missing"
    kept = part_in(fetches).done
    assert kept > 0, "what has arrived stays"

    hub.starts.clear()
    hub.goes_on.set()
    fetches.fetch(DEPTH_ANYTHING)
    wait_until(lambda: part_in(fetches).state != "fetching")
    assert (part_in(fetches).state, part_in(fetches).reason) == ("here", "")
    (found,) = (tmp_path / "models").rglob("model.safetensors")
    assert found.read_bytes() == CHECKPOINT
    assert max(hub.starts) > 0, "the bytes that had arrived were not sent again"


def test_a_download_that_fails_says_why_and_can_be_tried_again(fetches, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetches.fetch(DEPTH_ANYTHING)
    wait_until(lambda: part_in(fetches).state != "fetching")
    assert part_in(fetches).state == "failed" and "could not be downloaded" in part_in(fetches).reason


def test_the_operator_can_forbid_it(tmp_path):
    forbidding = WeightFetches(MachineSettings(models=tmp_path), tmp_path / "logs", allowed=False)
    assert not forbidding.describe().allowed
    for ask in (forbidding.fetch, forbidding.cancel):
        with pytest.raises(Refusal, match="--fetch-weights always"):
            ask(DEPTH_ANYTHING)
    assert not list(tmp_path.rglob("*.log"))


@pytest.mark.parametrize(
    ("machine", "accepted", "use"),
    [(None, (), "research"), ("research", (), "research"), ("commercial", (), "none"), (None, (DEPTH_PRO,), "any")],
)
def test_the_answer_says_what_an_estimator_may_be_used_for_here(machine, accepted, use, tmp_path):
    settings = MachineSettings(models=tmp_path, licence=machine, accepted=accepted)
    parts = {part.name: part for part in WeightFetches(settings, tmp_path / "logs", allowed=True).describe().parts}
    assert parts[DEPTH_PRO].use == use
    assert parts[DEPTH_ANYTHING].use == "any"


def test_the_answer_names_the_packages_that_the_backend_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr("ex4d.weights.catalogue.find_spec", lambda name: None if name == "transformers" else name)
    reply = WeightFetches(MachineSettings(models=tmp_path), tmp_path / "logs", allowed=True).describe()
    parts = {part.name: part for part in reply.parts}
    assert "transformers" in parts[DEPTH_ANYTHING].lacks and "with: pip install" in parts[DEPTH_ANYTHING].lacks
    assert "evaluate" in parts[CLIP].lacks
    assert {part.lacks for part in reply.parts if part.kind in ("wan", "lora", "tiny")} == {""}
    assert decode(WeightsReply, encode(reply)) == reply


def test_no_name_from_the_wire_becomes_a_path_or_an_option(fetches):
    for name in ("../../etc", "--models", ""):
        with pytest.raises(Refusal, match="unknown weights"):
            fetches.fetch(name)


@pytest.mark.parametrize(
    ("address", "keys", "choice", "allowed"),
    [
        ("tcp://127.0.0.1:0", False, "auto", True),
        ("tcp://127.0.0.1:0", True, "auto", False),
        ("tcp://0.0.0.0:0", False, "auto", False),
        ("tcp://0.0.0.0:0", False, "always", True),
        ("tcp://127.0.0.1:0", False, "never", False),
    ],
)
def test_on_loopback_it_is_allowed_and_with_keys_forbidden_unless_the_operator_says_otherwise(
    address, keys, choice, allowed, tmp_path
):
    settings = ServiceSettings(address, data=tmp_path, keys=Path(tmp_path) if keys else None, fetch_weights=choice)
    assert settings.weights_allowed is allowed


def test_what_other_programs_have_is_here_and_is_not_fetched_and_adapters_are_named(tmp_path):
    adapter = tmp_path / "RoboNVS_lora16.ckpt"
    adapter.write_bytes(bytes(7))
    found = {"vae": "/comfyui/vae.safetensors"}, {adapter.stem: str(adapter), "no name for a request!": "x"}
    fetches = WeightFetches(MachineSettings(models=tmp_path / "m"), tmp_path / "logs", True, lambda: found)
    parts = {part.name: part for part in fetches.fetch("vae").parts}
    assert (parts["vae"].state, parts["vae"].done) == ("here", parts["vae"].bytes) and not (tmp_path / "logs").exists()
    assert parts["dit"].state == "missing"
    assert [part for part in parts.values() if part.kind == ADAPTER_KIND] == [parts[adapter.stem]]
    assert parts[adapter.stem].bytes == 7 and "licence" in parts[adapter.stem].licence
    assert decode(WeightsReply, encode(fetches.describe())) == fetches.describe()
