"""Commands about the host and about all that Warren keeps on it."""

import sys
from typing import Any

import click

from ..doctor import examine
from ..engine.filters import OF_PRUNE, parse_filters
from ..engine.images import image_usage
from ..engine.lifecycle import sweep
from ..host import Host
from ..jsontext import dump_json
from ..quantities import format_size
from .about import info
from .groups import PRUNE_FILTER, prune_containers_of
from .images import prune_images_of
from .networks import prune_networks
from .printing import FORMAT, confirm, print_each, print_rows, warn
from .volumes import prune_volumes


@click.command()
@click.option("--format", "style", default="table", type=click.Choice(["table", "json"]))
def doctor(style: str) -> None:
    """Tell what this machine can do and what not, and what to do about it; exit code 1 if it cannot run containers."""
    findings = examine(Host.probe())
    if style == "json":
        click.echo(dump_json([finding.to_dict() for finding in findings], 2))
    else:
        width = max(len(finding.name) for finding in findings)
        for found in findings:
            remedy = f" ({found.remedy})" if found.remedy else ""
            click.echo(f"{'yes' if found.ok else 'no':4}{found.name:{width}}  {found.text}{remedy}")
    sys.exit(any(finding.essential and not finding.ok for finding in findings))


@click.group()
def system() -> None:
    """What all of it takes on this host, and removing what nobody needs."""


@system.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Each image, container and volume by itself.")
@FORMAT
def disk_usage(verbose: bool, template: str) -> None:
    """Print what images, containers and volumes take on disk.

    Archives and what they are unpacked to are shared by images.
    """
    from ..engine.pruning import container_usage, volume_usage
    from ..images.store import Store

    store = Store()
    images, size, free, partial = image_usage(store)
    containers, used, idle = container_usage()
    volumes = volume_usage()
    stored, unused = sum(one.size for one in volumes), sum(one.size for one in volumes if not one.active)
    warn(store.notes)
    if verbose:
        _print_verbose(images, containers, volumes, template)
        return
    interrupted = format_size(partial)
    running = sum(row.status == "running" for row, _ in containers)
    rows: list[dict[str, Any]] = [
        {"Type": "Images", "Total": len(images), "Active": sum(one.active > 0 for one in images),
         "Size": format_size(size), "Reclaimable": _share(free, size)},
        {"Type": "Containers", "Total": len(containers), "Active": running,
         "Size": format_size(used), "Reclaimable": _share(idle, used)},
        {"Type": "Local Volumes", "Total": len(volumes), "Active": sum(one.active for one in volumes),
         "Size": format_size(stored), "Reclaimable": _share(unused, stored)},
        {"Type": "Interrupted pulls", "Total": "", "Active": "", "Size": interrupted, "Reclaimable": interrupted},
    ]  # fmt: skip
    columns = ("Type", "Total", "Active", "Size", "Reclaimable")
    print_rows(rows, template, {name: name.upper() for name in columns})


def _share(part: int, whole: int) -> str:
    return f"{format_size(part)} ({100 * part // whole if whole else 0}%)"


_VERBOSE = {
    "Images": {
        "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Size": "SIZE", "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
    },
    "Containers": {"ID": "CONTAINER ID", "Image": "IMAGE", "Size": "SIZE", "Status": "STATUS", "Names": "NAMES"},
    "Volumes": {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"},
}  # fmt: skip


def _print_verbose(images: list[Any], containers: list[Any], volumes: list[Any], template: str) -> None:
    """A table for each kind; json, and a template, are for one object of all three, as docker has it."""
    from ..images import reference

    rows: dict[str, list[dict[str, Any]]] = {
        "Images": [
            {"Repository": reference.parse(ref.name).familiar.removesuffix(":latest"), "Tag": ref.tag or "<none>",
             "ID": one.image.id[7:19], "Size": format_size(one.size), "SharedSize": format_size(one.size - one.unique),
             "UniqueSize": format_size(one.unique), "Containers": one.active}
            for one in images for ref in map(reference.parse, one.image.names)
        ],
        "Containers": [
            {"ID": row.record.id[:12], "Image": row.image, "Size": format_size(size), "Status": row.status_text,
             "Names": row.name}
            for row, size in containers
        ],
        "Volumes": [{"Name": one.name, "Links": one.links, "Size": format_size(one.size)} for one in volumes],
    }  # fmt: skip
    if template:
        print_each([rows], "{{json .}}" if template == "json" else template)
        return
    for number, (kind, columns) in enumerate(_VERBOSE.items()):
        if number:
            click.echo()
        print_rows(rows[kind], "", columns)


@system.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Also images with a name that no container uses.")
@click.option("--volumes", "with_volumes", is_flag=True, help="Also anonymous volumes that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@PRUNE_FILTER
def prune_system(every: bool, with_volumes: bool, force: bool, filter: tuple[str, ...]) -> None:
    """Remove containers that do not run, what killed commands have left, networks, and images as `image prune` does.

    A filter is for containers.
    """
    from ..images.store import Store

    filters = parse_filters(filter, OF_PRUNE)
    what = "all images that no container uses" if every else "all images without a name"
    what = f"{'anonymous volumes that no container uses, ' * with_volumes}{what}"
    confirm(f"This will remove all stopped containers, networks that no container is on, {what}.", force)
    sweep()
    freed = prune_containers_of(filters)
    prune_networks()
    if with_volumes:
        freed += prune_volumes(every=False)
    freed += prune_images_of(Store(), every)
    click.echo(f"Total reclaimed space: {format_size(freed)}")


system.add_command(info)
