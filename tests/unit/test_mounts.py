"""What -v, --mount and --tmpfs mean, and the configuration of an image."""

from typing import Any

import pytest

from runtime.config import ContainerConfig, image_config, mounts
from runtime.config.mounts import Wish, entry, merge, mount_option, tmpfs, volume
from runtime.errors import ImageError, UnsupportedError, UsageError


@pytest.mark.parametrize(
    ("text", "kind", "name", "source", "target", "options"),
    [
        ("/a:/b", "bind", "", "/a", "/b", []),
        ("/a:/b:ro,U,z", "bind", "", "/a", "/b", ["ro", "U", "z"]),
        ("/a:/b/../c/", "bind", "", "/a", "/c", []),
        ("name:/b", "volume", "name", "", "/b", []),
        ("name:/b:nocopy,rslave", "volume", "name", "", "/b", ["nocopy", "rslave"]),
        ("/b", "volume", "", "", "/b", []),
        ("/b:ro", "volume", "", "", "/b", ["ro"]),
        ("/a:/b:", None, "", "", "", []),
        ("a:b", None, "", "", "", []),
        ("a:/b:c:d", None, "", "", "", []),
        ("-a:/b", None, "", "", "", []),
        ("é:/b", None, "", "", "", []),
        ("a/b:/b", None, "", "", "", []),
        ("a:/b:z,Z", None, "", "", "", []),
        ("a:/", None, "", "", "", []),
    ],
)
def test_volume(text: str, kind: str | None, name: str, source: str, target: str, options: list[str]) -> None:
    if kind is None:
        with pytest.raises(UsageError):
            volume(text)
        return
    wish = volume(text)
    assert (wish.type, wish.name, wish.source, wish.target, wish.options) == (kind, name, source, target, options)
    assert wish.anonymous == (kind == "volume" and not name)
    assert wish.make == (kind == "bind")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=volume,src=v,dst=/x", ("volume", "v", "/x", [], False)),
        ("dst=/x", ("volume", "", "/x", [], True)),
        ("source=v,target=/x,readonly", ("volume", "v", "/x", ["ro"], False)),
        ("src=v,destination=/x,ro=false,U=true", ("volume", "v", "/x", ["U"], False)),
        ("src=v,dst=/x,volume-nocopy", ("volume", "v", "/x", ["nocopy"], False)),
        ("type=bind,src=/etc,dst=/x,bind-propagation=rslave", ("bind", "", "/x", ["rslave"], False)),
        ("type=bind,src=/etc,dst=/x,bind-nonrecursive,relabel=private", ("bind", "", "/x", ["Z", "bind"], False)),
        ("type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=1770", ("tmpfs", "", "/x", ["size=1048576", "mode=1770"], False)),
    ],
)
def test_mount_option(text: str, expected: tuple[Any, ...]) -> None:
    wish = mount_option(text)
    assert (wish.type, wish.name, wish.target, wish.options, wish.anonymous) == expected


def test_labels_of_a_new_volume() -> None:
    assert mount_option("src=v,dst=/x,volume-label=a=b").labels == {"a": "b"}


def test_wishes_survive_being_kept() -> None:
    for wish in (volume("v:/x:ro"), mount_option("dst=/x,volume-label=a=b"), tmpfs("/t:size=1m"), volume("/a:/b:U")):
        assert Wish.from_dict(wish.to_dict()).to_dict() == wish.to_dict()


def test_entries() -> None:
    named = volume("v:/x:ro,z")
    with pytest.raises(UnsupportedError):
        entry(named, [], (0, 0))
    named.source = "/s"
    assert entry(named, ["ridmap"], (0, 0))["options"] == ["bind", "ro", "ridmap"]
    named.options += ["copyup"]
    assert entry(named, [], (0, 0))["options"] == ["bind", "ro", "copyup"]
    assert entry(volume("/a:/b:ro,U"), [], (0, 0))["options"] == ["rbind", "rro", "U"]
    assert entry(volume("/a:/b:O"), [], (0, 0))["options"] == ["O"]
    assert entry(tmpfs("/t:exec,U"), [], (5, 6))["options"] == ["nosuid", "nodev", "exec", "uid=5", "gid=6"]


def test_the_later_wish_wins_and_outer_places_come_first() -> None:
    image, user = Wish("volume", "/v", anonymous=True), volume("mine:/v")
    assert merge([image, volume("/a:/v/below")], [user])[0] is user
    config = ContainerConfig([], id="x", volumes=["/a:/v/w/x", "/a:/v"], tmpfs=["/v/w"])
    assert [wish.target for wish in mounts.resolved(config)] == ["/v", "/v/w", "/v/w/x"]
    config.resolved_mounts = [volume("/only:/this").to_dict()]
    assert [wish.source for wish in mounts.resolved(config)] == ["/only"]


def test_what_the_image_says_comes_below_what_the_user_says() -> None:
    told = {
        "Cmd": ["x"], "Labels": {"a": "image", "b": "image"}, "StopSignal": "SIGINT", "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}, "53": {}}, "Healthcheck": {"Test": ["CMD", "true"]},
    }  # fmt: skip
    config = ContainerConfig([], id="x", labels=["a=user"], stop_signal="9")
    image_config.apply(config, {"config": told})
    assert config.labels == ["a=image", "b=image", "a=user"]
    assert (config.stop_signal, config.image_volumes, config.exposed_ports) == ("9", ["/v"], ["53/tcp", "80/tcp"])
    assert config.image_health == told["Healthcheck"]
    config = ContainerConfig([], id="x", no_healthcheck=True)
    image_config.apply(config, {"config": told})
    assert (config.stop_signal, config.image_health) == ("SIGINT", None)
    image_config.apply(config, {"config": {"Cmd": ["x"], "Labels": None, "Volumes": None}})
    with pytest.raises(ImageError):
        image_config.apply(config, {"config": {"Cmd": ["x"], "Volumes": ["/v"]}})


def test_what_may_be_an_image_is_no_way_out() -> None:
    config = ContainerConfig([], id="x")
    image_config.apply(
        config, {"config": {"Cmd": ["x"], "Volumes": {"relative": {}, "/": {}, "/a/../..": {}, "/ok": {}}}}
    )
    assert [wish.target for wish in mounts.wishes_of_image(config)] == ["/ok"]
