"""The connection says how it stands, never blocks, and leaves nothing behind."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from pathlib import Path

import addon_utils  # comes with bpy
import bpy
import pytest
import zmq

import blender_addon
from blender_addon.cameras.panel import EX4D_PT_camera
from blender_addon.connection import session as session_module
from blender_addon.connection.operators import WALK_THROUGH
from blender_addon.connection.panel import wrapped
from blender_addon.connection.preferences import ConnectionSettings, chosen_licence, is_loopback
from blender_addon.connection.session import NotConnectedError, session
from blender_addon.scheduler import BUSY_INTERVAL_SECONDS, IDLE_INTERVAL_SECONDS, tick
from blender_addon.takes import thumbnails
from ex4d_core import client as client_module
from ex4d_core.client_socket import ClientKeys
from ex4d_core.messages import Hello, ListJobs

from .conftest import backend_environment, backend_process, free_address, tick_round, tick_until
from .enabled import add_on, preferences


def test_without_a_backend_it_says_so_and_keeps_trying(monkeypatch):
    monkeypatch.setattr(client_module, "UNREACHABLE_SECONDS", 0.05)
    preferences().address = free_address()
    tick_round()
    assert session().state_text() == f"connecting to {preferences().address}"
    tick_until(lambda: session().state_text().startswith("unreachable since "), "the connection to be given up")
    assert session().state_text().endswith(f"no backend answers at {preferences().address}")


def test_it_connects_when_the_backend_comes_up(connected):
    tick_until(lambda: session().state_text().startswith("connected to "), "the backend")
    assert " with cpu" in session().state_text().lower()


def test_ticks_come_fast_only_while_something_is_under_way(connected):
    def ask():
        return (yield ListJobs())

    tick_until(lambda: session().client is not None and session().client.server is not None, "the backend")
    task = session().start(ask())
    assert session().busy
    assert tick() in (BUSY_INTERVAL_SECONDS, IDLE_INTERVAL_SECONDS)
    tick_until(lambda: task.done, "the list of jobs")
    assert task.error is None
    tick_round()
    assert not session().busy


def test_another_protocol_version_is_named():
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        preferences().address = f"tcp://127.0.0.1:{port}"
        tick_round()
        tick_until(lambda: router.poll(0), "the hello")
        name, _ = router.recv_multipart()
        import msgpack

        router.send_multipart([name, msgpack.packb({"v": 99, "type": "Welcome", "id": 1})])
        tick_until(lambda: session().state_text().startswith("wrong version: "), "the answer to be judged")
        assert "install matching versions" in session().state_text()
    finally:
        context.destroy(linger=0)


def test_a_refused_key_is_named(backend_python, tmp_path):
    address, keys = free_address(), tmp_path / "keys"
    made = [backend_python, "-m", "ex4d", "serve", "--keys", str(keys), "--create-keys"]
    subprocess.run(made, check=True, env=backend_environment(), capture_output=True)
    preferences().address = address
    with backend_process(backend_python, address, tmp_path / "backend", "--keys", str(keys)):
        tick_until(lambda: session().state_text().startswith("refused: "), "the backend's refusal")
        assert "the backend requires keys" in session().state_text()


@pytest.mark.skipif(os.name == "nt", reason="a user's files are private there")
def test_a_secret_key_that_others_can_use_is_not_used(tmp_path, monkeypatch):
    secret = tmp_path / "anna.key_secret"
    secret.touch()
    secret.chmod(0o644)
    keys = ClientKeys(secret, tmp_path / "server.key")
    settings = ConnectionSettings("tcp://192.0.2.1:47747", keys, True)
    monkeypatch.setattr(session_module, "connection_settings", lambda: settings)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as on a file system without permissions
    tick_round()
    assert session().client is None
    assert f"other users of this computer can use the secret key {secret}" in session().state_text()


def test_an_invalid_address_is_named():
    preferences().address = "the big machine"
    tick_round()
    assert "invalid address 'the big machine'" in session().state_text()
    with pytest.raises(NotConnectedError, match="tcp://HOST:PORT"):
        session().start(iter([Hello()]))


def test_other_machines_are_only_asked_with_online_access():
    assert not bpy.app.online_access
    preferences().address = "tcp://192.0.2.1:47747"
    tick_round()
    assert session().client is None
    assert session().state_text().startswith("online access is off, so tcp://192.0.2.1:47747 is not used")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:47747", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://127.1.2.3:1", True),
        ("ipc:///run/ex4d", True),
        ("tcp://192.168.0.7:47747", False),
        ("tcp://127.0.0.1.example.org:1", False),
        ("tcp://gpu:47747", False),
        ("", False),
    ],
)
def test_what_stays_on_this_machine(address, local):
    assert is_loopback(address) is local


def test_an_add_on_that_failed_to_register_can_be_enabled_again(monkeypatch, capsys):
    def failing() -> None:
        raise OSError("no room")

    addon_utils.disable("blender_addon")
    monkeypatch.setattr(thumbnails, "register", failing)
    assert addon_utils.enable("blender_addon") is None
    assert "no room" in capsys.readouterr().err
    assert not hasattr(bpy.types.Scene, "ex4d_shots") and not bpy.app.timers.is_registered(tick)
    monkeypatch.undo()
    assert addon_utils.enable("blender_addon") is not None
    assert hasattr(bpy.types.Scene, "ex4d_shots") and bpy.app.timers.is_registered(tick)


def test_the_licence_setting_is_what_requests_state():
    assert chosen_licence() == "commercial"
    preferences().licence = "RESEARCH"
    assert chosen_licence() == "research"


def everything_registered() -> dict[str, object]:
    """All that an add-on could leave behind."""
    kinds = (
        bpy.types.Operator,
        bpy.types.Panel,
        bpy.types.UIList,
        bpy.types.Menu,
        bpy.types.PropertyGroup,
        bpy.types.AddonPreferences,
    )
    return {
        "classes": {kind.__name__ for base in kinds for kind in base.__subclasses__() if kind.is_registered},
        "scene": set(bpy.types.Scene.bl_rna.properties.keys()),
        "object": set(bpy.types.Object.bl_rna.properties.keys()),
        "operators": set(dir(bpy.ops.ex4d)),
        "handlers": {
            name: [handler.__module__ for handler in getattr(bpy.app.handlers, name)]
            for name in dir(bpy.app.handlers)
            if isinstance(getattr(bpy.app.handlers, name), list)
        },
        "menu": [
            draw.__module__
            for menu in (
                bpy.types.TOPBAR_MT_file_import,
                bpy.types.TOPBAR_MT_file_export,
                bpy.types.STATUSBAR_HT_header,
            )
            for draw in menu._dyn_ui_initialize()
        ],
        "manager": set(bpy.types.WindowManager.bl_rna.properties.keys()),
        "attributes": {name for name in dir(bpy.types.Scene) if "ex4d" in name},
        "previews": thumbnails._previews is not None,
        "timer": bpy.app.timers.is_registered(tick),
        "session": session_module._session is not None,
    }


def test_a_hundred_rounds_leave_nothing_behind():
    registered = everything_registered()
    add_on().unregister()
    bare = everything_registered()
    for _ in range(100):
        add_on().register()
        assert everything_registered() == registered
        add_on().unregister()
        assert everything_registered() == bare
    assert not any("ex4d" in name.lower() for name in bare["classes"] | bare["scene"] | bare["object"])
    assert not any("blender_addon" in owner for owners in bare["handlers"].values() for owner in owners)
    assert not bare["timer"] and not bare["session"] and not bare["previews"] and not bare["attributes"]
    add_on().register()


def test_the_walk_through_comes_with_the_add_on():
    text = WALK_THROUGH.read_text(encoding="utf-8")
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) == 4
    for name in pictures:
        assert 10_000 < (WALK_THROUGH.parent / name).stat().st_size < 150_000
    # What it tells people to press is what the buttons say.
    labels = {getattr(getattr(bpy.types, name), "bl_label", "") for name in dir(bpy.types) if name.startswith("EX4D_")}
    assert "<i>Add Move</i>" in text and 'text="Add Move"' in inspect.getsource(EX4D_PT_camera)
    for said in ("Move to This View", "Preview", "Final", "Use These Settings", "Scale and Ground"):
        assert f"<i>{said}</i>" in text or f"<b>{said}</b>" in text
        assert said in labels


def test_a_strangers_text_reads_as_it_is_written():
    assert wrapped("a\u202eb\x1b[2J\nc", 40) == ["a\ufffdb\ufffd[2J c"]


def test_texts_of_any_script_are_broken_to_the_sidebars_width():
    assert wrapped("the prompt has 601 tokens", 12) == ["the prompt", "has 601", "tokens"]
    # Eight letters that are twice as wide, in lines with room for twelve narrow ones; nothing is lost.
    assert wrapped("一丁七万丈三上下", 12) == ["一丁七万丈三", "上下"]
    # Persian is drawn from its last letter to its first: "one two three" reads "two one", then "three".
    assert wrapped("\ufeea\ufeb3 \ufeed\ufea9 \ufb8f\ufbfe", 6) == ["\ufeed\ufea9 \ufb8f\ufbfe", "\ufeea\ufeb3"]
    assert (
        "".join(wrapped("begins with '一丁七万丈三上下不与'", 13)).replace(" ", "")
        == "beginswith'一丁七万丈三上下不与'"
    )


def test_every_operator_and_property_describes_itself():
    for module in blender_addon.MODULES:
        for kind in getattr(module, "CLASSES", ()):
            if issubclass(kind, bpy.types.Operator):
                assert kind.bl_description and not kind.bl_description.endswith("."), kind
            for prop in kind.bl_rna.properties:
                if prop.identifier in kind.__annotations__ and not prop.is_hidden:
                    assert prop.description, f"{kind.__name__}.{prop.identifier}"
