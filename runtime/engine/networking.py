"""The network of a container that is launched: which mode it has, and what the launch needs for it.

Of the modes none, host, container: and ns: nothing is loaded.
"""

import posix

from ..config import ContainerConfig
from ..container import default_root
from ..errors import NotFoundError, StateError, UnsupportedError, UsageError, WarrenError
from ..host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..launch import Options
    from ..network.attachment import Attachment, Request
    from ..spec import Spec

    Json = dict[str, Any]

_PRIVATE = ("private", "pasta", "slirp4netns")
_MODES = ("none", "host", *_PRIVATE)


def settle_mode(config: ContainerConfig, options: "Options") -> None:
    """Turn what was said, or nothing, into a mode: bridge for root, a private network for ordinary users.

    The default of an ordinary user is none where he can have no network, and that is noted.  UnsupportedError.
    """
    _split(config)
    root = Host.probe().privileged and Host.probe().initial_userns
    if config.network == "":
        config.network = "bridge" if root else _private_or_none(config, options)
    elif config.network == "private" and root:
        config.network = "bridge"
    elif config.network == "bridge" and not root:
        raise UnsupportedError("--network bridge: networks of bridges need root", hint="use --network private")
    if config.network in _PRIVATE:
        from ..network import private

        private.check(config.network)


def _split(config: ContainerConfig) -> None:
    """The library names networks in `network`, too."""
    word = config.network
    if word and word not in (*_MODES, "bridge") and not word.startswith(("ns:", "container:")):
        config.network, config.networks = "bridge", [word, *config.networks]


def _private_or_none(config: ContainerConfig, options: "Options") -> str:
    from ..network import private

    try:
        private.check("private")
        return "private"
    except WarrenError as error:
        if config.publish or config.publish_all or config.egress:
            raise
        options.enforced["network"] = f"none: {error}"
        return "none"


def attach(config: ContainerConfig, options: "Options", root: str, owner: int) -> "Attachment | None":
    """Take what the container needs of networks; with its files in `config.files`.  None where it has none."""
    if config.network == "bridge":
        from ..network.attachment import prepare

        found = prepare(_request(config), config.id, root, owner)
    elif config.network in _PRIVATE:
        from ..network.private import prepare as prepare_private

        found = prepare_private(config.network, _request(config), config.id, root, owner)
    elif directory := _own_directory(config):
        config.files = _own_files(config, directory, owner)
        return None
    elif config.layers and config.network in ("host", "none") and not config.write:
        from ..network.attachment import files_only

        found = files_only(_request(config), config.id, root, owner, host=config.network == "host")
    else:
        if config.dns or config.dns_search or config.dns_option or config.add_host:
            raise UsageError(f"--dns, --add-host: not with --network {config.network} and this root")
        return None
    config.files = found.mounts
    options.connect = found.connect
    options.enforced.update(found.notes)
    return found


def _own_directory(config: ContainerConfig) -> str:
    """Where a kept container without a network has its names: beside its record, with which they go; "" for others."""
    if config.network != "none" or not config.layers or config.write:
        return ""
    if config.dns or config.dns_search or config.dns_option or config.add_host:
        return ""
    from .records import containers_root

    directory = f"{containers_root()}/{config.id}"
    return directory if posix.access(directory, posix.F_OK) else ""


def _own_files(config: ContainerConfig, directory: str, owner: int) -> "list[tuple[str, str]]":
    from ..network import names

    hostname = config.hostname or config.id[:12]
    contents = {"hosts": names.hosts(["127.0.1.1"], [hostname], [], ""), "hostname": hostname + "\n"}
    return names.write(directory, contents, owner)


def _request(config: ContainerConfig) -> "Request":
    from ..network.attachment import Request

    return Request(
        config.networks, publish=config.publish, publish_all=config.publish_all, expose=config.exposed_ports,
        egress=config.egress, dns=config.dns, dns_search=config.dns_search, dns_option=config.dns_option,
        add_host=config.add_host, aliases=config.network_alias, hostname=config.hostname, name=config.name,
        ip=config.ip, ip6=config.ip6, mac=config.mac_address,
    )  # fmt: skip


def name_links(spec: "Spec", found: "Attachment | None") -> None:
    if found is not None:
        spec.links = found.links


def release(container_id: str, root: str) -> None:
    """Give back what a container that is gone had of networks; idempotent, and nothing is loaded without any."""
    try:
        posix.lstat(f"{root}/.networks/containers/{container_id}")
    except OSError:
        return
    from ..network.attachment import release as release_attachment

    release_attachment(container_id, root)


def settings(container_id: str, root: str = "") -> "Json":
    """NetworkSettings of `inspect`, in docker's keys."""
    from ..network.view import settings as look

    return look(container_id, root or default_root())


def published(container_id: str, root: str = "") -> "dict[str, list[dict[str, str]]]":
    """NetworkSettings.Ports of a container that runs: those that are published."""
    from ..network.view import ports

    return ports(container_id, root or default_root())


def connect(network: str, container: str, options: "dict[str, Sequence[str]]") -> None:
    """Give a container a further network: one that runs at once, another from its next start on."""
    from ..network.live import connect as connect_live
    from .records import find

    record = find(container)
    with record:
        config = record.config()
        if config.network != "bridge":
            raise StateError(f"container {record.name!r} has no network to add to: --network {config.network}")
        word = network + _options_text(options)
        if pid := record.state_dir.process():
            connect_live(word, record.id, record.root, pid)
        config.networks = [*(config.networks or ["bridge"]), word]
        record.write({**record.data, "config": _plain(record.data["config"], config)})


def disconnect(network: str, container: str, *, force: bool = False) -> None:
    """Take a container from a network."""
    from ..network import definitions
    from ..network.live import disconnect as disconnect_live
    from .records import find

    record = find(container)
    with record:
        config = record.config()
        name = definitions.load(network).name
        kept = [word for word in config.networks or ["bridge"] if word.partition(":")[0] not in (network, name)]
        if len(kept) == len(config.networks or ["bridge"]) and not force:
            raise NotFoundError(f"container {record.name!r} is not on network {name!r}")
        if pid := record.state_dir.process():
            disconnect_live(name, record.id, record.root, pid)
        config.networks = kept
        config.network = config.network if kept else "none"
        record.write({**record.data, "config": _plain(record.data["config"], config)})


def _options_text(options: "dict[str, Sequence[str]]") -> str:
    parts = [f"{key}={value}" for key, values in options.items() for value in values if value]
    return f":{','.join(parts)}" if parts else ""


def _plain(old: "Json", config: ContainerConfig) -> "Json":
    return {**old, "networks": list(config.networks), "network": config.network}
