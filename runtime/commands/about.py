"""`version` and `info`."""

from typing import Any

import click

from ..engine import about
from ..jsontext import dump_json
from ..quantities import format_binary_size
from .printing import FORMAT, print_each, printable

_LINES = {
    "Containers": "Containers", "ContainersRunning": " Running", "ContainersPaused": " Paused",
    "ContainersStopped": " Stopped", "Images": "Images", "ServerVersion": "Version", "Driver": "Storage Driver",
    "LoggingDriver": "Logging Driver", "CgroupDriver": "Cgroup Driver", "CgroupVersion": "Cgroup Version",
    "KernelVersion": "Kernel Version", "OperatingSystem": "Operating System", "OSType": "OSType",
    "Architecture": "Architecture", "NCPU": "CPUs", "MemTotal": "Total Memory", "Name": "Name",
    "DataRoot": "Data Root Dir", "StateRoot": "State Root Dir", "Rootless": "Rootless",
}  # fmt: skip


@click.command()
@FORMAT
def version(template: str) -> None:
    """Print the version, and those of what Warren stands on."""
    found = about.version()
    if template:
        _print_as(found, template)
        return
    client, init = found["Client"], found["Init"]
    click.echo(
        f"Client:\n Version:        {client['Version']}\n OCI version:    {client['OCIVersion']}\n"
        f" Python version: {client['Python']}\n OS/Arch:        {client['Os']}/{client['Arch']}\n"
        f" Kernel:         {client['KernelVersion']}\n"
        f"Init:\n Digest:         {init['Digest']}\n Size:           {init['Size']} bytes"
    )


@click.command()
@FORMAT
def info(template: str) -> None:
    """Print what there is on this host: containers, images, drivers, kernel; `doctor` tells what it lacks."""
    found = about.info()
    if template:
        _print_as(found, template)
        return
    for key, heading in _LINES.items():
        value = format_binary_size(found[key]) if key == "MemTotal" else found[key]
        click.echo(f"{heading}: {printable(str(value))}")
    click.echo("Security Options:")
    for option in found["SecurityOptions"]:
        click.echo(f" {option.removeprefix('name=')}")
    for warning in found["Warnings"]:
        click.echo(f"WARNING: {printable(warning)}", err=True)


def _print_as(found: Any, template: str) -> None:
    if template == "json":
        click.echo(dump_json(found))
    else:
        print_each([found], template)
