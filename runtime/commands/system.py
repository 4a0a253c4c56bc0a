"""Commands about the host and about all that Warren keeps on it."""

import sys

import click

from ..doctor import examine
from ..engine.images import image_usage
from ..engine.lifecycle import sweep
from ..host import Host
from ..jsontext import dump_json
from ..quantities import format_size
from .images import prune_images_of
from .printing import FORMAT, confirm, print_rows, warn


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
@click.option("-v", "--verbose", is_flag=True, help="Each image by itself.")
@FORMAT
def disk_usage(verbose: bool, template: str) -> None:
    """Print what images take on disk: their archives and what these are unpacked to, both shared by many images."""
    from ..images import reference
    from ..images.store import Store

    store = Store()
    found, size, free, partial = image_usage(store)
    warn(store.notes)
    if verbose:
        rows = [
            {"Repository": reference.parse(ref.name).familiar.removesuffix(":latest"), "Tag": ref.tag or "<none>",
             "ID": one.image.id[7:19], "Size": format_size(one.size), "SharedSize": format_size(one.size - one.unique),
             "UniqueSize": format_size(one.unique), "Containers": one.active}
            for one in found for ref in map(reference.parse, one.image.names)
        ]  # fmt: skip
        print_rows(rows, template, {
            "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Size": "SIZE", "SharedSize": "SHARED SIZE",
            "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
        })  # fmt: skip
        return
    share = 100 * free // size if size else 0
    active = sum(one.active > 0 for one in found)
    interrupted = format_size(partial)
    rows = [
        {"Type": "Images", "Total": len(found), "Active": active, "Size": format_size(size),
         "Reclaimable": f"{format_size(free)} ({share}%)"},
        {"Type": "Interrupted pulls", "Total": "", "Active": "", "Size": interrupted, "Reclaimable": interrupted},
    ]  # fmt: skip
    columns = ("Type", "Total", "Active", "Size", "Reclaimable")
    print_rows(rows, template, {name: name.upper() for name in columns})


@system.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune_system(every: bool, force: bool) -> None:
    """Remove what killed commands have left of containers, and images as `image prune` does."""
    from ..images.store import Store

    what = "all images that no container uses" if every else "all images without a name"
    confirm(f"This will remove leftovers of containers and {what}.", force)
    sweep()
    prune_images_of(Store(), every)
