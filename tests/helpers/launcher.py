"""Launches one container with a monitor, says "launching" before and "launched" after, and ends.

    python3 launcher.py TREE STATE_ROOT DURABLE ID COMMAND...

A process of its own, so that it can be killed at any instruction.
"""

import sys

sys.path.insert(0, sys.argv[1])

from runtime.config import ContainerConfig, make_spec, raw_config
from runtime.container import Container
from runtime.host import Host
from runtime.launch import Options
from runtime.monitor import Log, make_monitor
from runtime.spec import Bundle


def main(root: str, durable: str, name: str, *command: str) -> None:
    config = ContainerConfig(list(command), id=name, userns="host", network="none")
    spec = make_spec(config, Host.probe(), 0, {})
    monitor, _ = make_monitor(log=Log(durable, "log"), exit_directory=durable)
    print("launching", flush=True)
    Container(name, root).run(Bundle("/", spec, raw_config(spec)), Options(monitor=monitor, cgroup_manager="auto"))
    monitor.close()
    print("launched", flush=True)


if __name__ == "__main__":
    main(*sys.argv[2:])
