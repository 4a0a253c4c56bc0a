"""docker's HostConfig: what of a container depends on the host, with numbers where people write words."""

from ..errors import UsageError
from ..quantities import size
from .connections import bindings_of, networks_of
from .policy import RestartPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..config import ContainerConfig

    Json = dict[str, Any]


def host_config(config: "ContainerConfig") -> "Json":
    return {**_process(config), **_network(config), **_isolation(config), **_limits(config)}


def _process(config: "ContainerConfig") -> "Json":
    options, policy = dict(entry.partition("=")[::2] for entry in config.log_opts), RestartPolicy(config.restart)
    return {
        "Binds": [text for text in config.volumes if ":" in text] or None,
        "Mounts": list(config.mounts) or None,
        "Tmpfs": {text.partition(":")[0]: text.partition(":")[2] for text in config.tmpfs} or None,
        "VolumesFrom": list(config.volumes_from) or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log_driver or "json-file", "Config": options},
        "RestartPolicy": {"Name": policy.name, "MaximumRetryCount": policy.maximum},
        "AutoRemove": config.auto_remove,
        "Init": config.init,
        "Runtime": "warren",
        "ShmSize": size(config.shm_size, "--shm-size"),
    }


def _network(config: "ContainerConfig") -> "Json":
    return {
        "NetworkMode": networks_of({"network": config.network, "networks": config.networks})[0],
        "PortBindings": bindings_of(config),
        "PublishAllPorts": config.publish_all,
        "Dns": list(config.dns),
        "DnsOptions": list(config.dns_option),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": list(config.add_host) or None,
    }


def _isolation(config: "ContainerConfig") -> "Json":
    return {
        "CapAdd": list(config.cap_add) or None,
        "CapDrop": list(config.cap_drop) or None,
        "Privileged": config.privileged,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": list(config.security_opt) or None,
        "CgroupnsMode": config.cgroupns or "private",
        "IpcMode": config.ipc or "private",
        "PidMode": config.pid,
        "UTSMode": config.uts,
        "UsernsMode": config.userns,
        "Devices": [_device(text) for text in config.devices],
        "DeviceCgroupRules": list(config.device_cgroup_rule) or None,
        "Sysctls": dict(entry.partition("=")[::2] for entry in config.sysctl) or None,
        "Ulimits": [_ulimit(text) for text in config.ulimits] or None,
    }


def _limits(config: "ContainerConfig") -> "Json":
    memory = _bytes(config.memory)
    return {
        "CgroupParent": config.cgroup_parent,
        "Memory": memory,
        "MemoryReservation": _bytes(config.memory_reservation),
        "MemorySwap": _bytes(config.memory_swap) or 2 * memory,
        "MemorySwappiness": config.memory_swappiness,
        "OomKillDisable": config.oom_kill_disable,
        "NanoCpus": int(float(config.cpus) * 1e9) if config.cpus else 0,
        "CpuShares": config.cpu_shares,
        "CpuPeriod": config.cpu_period,
        "CpuQuota": config.cpu_quota,
        "CpusetCpus": config.cpuset_cpus,
        "CpusetMems": config.cpuset_mems,
        "PidsLimit": config.pids_limit,
        "BlkioWeight": config.blkio_weight,
        "BlkioWeightDevice": _rates(config.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": _rates(config.device_read_bps, "Rate"),
        "BlkioDeviceWriteBps": _rates(config.device_write_bps, "Rate"),
        "BlkioDeviceReadIOps": _rates(config.device_read_iops, "Rate"),
        "BlkioDeviceWriteIOps": _rates(config.device_write_iops, "Rate"),
    }


def _bytes(text: str) -> int:
    return -1 if text == "-1" else size(text, "size", zero=True) if text else 0


def _rates(texts: "Sequence[str]", key: str) -> "list[Json]":
    found = []
    for text in texts:
        path, _, value = text.rpartition(":")
        found.append({"Path": path, key: size(value, "rate", zero=True)})
    return found


def _device(text: str) -> "Json":
    """HOST[:CONTAINER[:PERMISSIONS]]; a CDI device has a name only."""
    parts = text.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts.insert(1, parts[0])
    return {
        "PathOnHost": parts[0],
        "PathInContainer": parts[1] if len(parts) > 1 else parts[0],
        "CgroupPermissions": parts[2] if len(parts) > 2 else "rwm",
    }


def _ulimit(text: str) -> "Json":
    kind, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": kind, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise UsageError(f"--ulimit {text!r} is malformed", hint="TYPE=SOFT[:HARD]") from None
