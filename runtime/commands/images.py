"""Commands of images and registries."""

import sys
from typing import Any

import click

from ..engine import images as engine
from ..errors import NotFoundError, UsageError, WarrenError
from ..quantities import format_age, format_size
from .inspecting import inspect_each
from .printing import (
    FORMAT,
    combine,
    confirm,
    many,
    print_rows,
    printable,
    show_progress,
    warn,
)
from .telling import tell_error


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]")
@click.option(
    "--verify-key", default="", metavar="FILE", help="Only if cosign has signed it with this key's private half."
)
@click.argument("name")
def pull(name: str, platform: str, quiet: bool, verify_key: str) -> None:
    """Fetch an image from its registry; an interrupted pull is resumed."""
    from ..images.manifest import parse_platform
    from ..images.pull import pull as fetch
    from ..images.store import Store

    wanted = parse_platform(platform) if platform else None
    store = Store()
    with show_progress(quiet) as progress:
        image = fetch(name, store, platform=wanted, progress=progress, verify_key=verify_key)
    warn(store.notes)
    click.echo(image.id)


def fetch_image(name: str, store: Any, *, platform: str, quiet: bool) -> Any:
    """What `run` pulls with."""
    from ..images.manifest import parse_platform
    from ..images.pull import pull

    with show_progress(quiet) as progress:
        return pull(name, store, platform=parse_platform(platform) if platform else None, progress=progress)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.argument("name")
def push(name: str, quiet: bool) -> None:
    """Send an image to the registry that its name says."""
    from ..images import reference
    from ..images.push import push as send
    from ..images.store import Store

    store = Store()
    with show_progress(quiet) as progress:
        digest = send(store.find(name), reference.parse(name), store, progress=progress)
    if not quiet:
        click.echo(digest)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids.")
@click.option("--digests", is_flag=True, help="Print digests of manifests.")
@click.option("-a", "--all", is_flag=True, expose_value=False, help="As without: no image is hidden.")
@many("-f", "--filter", metavar="KEY=VALUE", help="dangling, reference, label, before, since or until.")
@click.option("--format", "template", default="", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("name", default="")
def images(name: str, quiet: bool, no_trunc: bool, digests: bool, template: str, filter: tuple[str, ...]) -> None:
    """List the images in the store, or those of one repository; SIZE is what is transferred."""
    from ..engine.image_filters import image_tests, is_nameless
    from ..images import reference
    from ..images.store import Store
    from ..images.view import inspect as look

    store = Store()
    tests = image_tests(filter, store)
    found = [
        (reference.parse(known), image, is_nameless(known))
        for image in store.images()
        for known in image.names
        if all(test(known, image) for test in tests)
    ]
    warn(store.notes)
    wanted = reference.parse(name) if name else None
    rows = []
    for ref, image, nameless in found:
        if wanted and (ref.name != wanted.name or (":" in name.rpartition("/")[2] and ref.tag != wanted.tag)):
            continue
        created = look(image)["Created"]
        short = reference.parse(ref.name).familiar.removesuffix(":latest")
        rows.append({
            "Repository": "<none>" if nameless else short, "Tag": ref.tag or "<none>", "Digest": image.manifest.digest,
            "ID": image.id if no_trunc else image.id[7:19], "CreatedAt": created, "CreatedSince": format_age(created),
            "Size": format_size(image.size),
        })  # fmt: skip
    if quiet:
        for id in dict.fromkeys(str(row["ID"]) for row in rows):
            click.echo(id)
        return
    columns = {"Repository": "REPOSITORY", "Tag": "TAG", **({"Digest": "DIGEST"} if digests else {}), "ID": "IMAGE ID",
               "CreatedSince": "CREATED", "Size": "SIZE"}  # fmt: skip
    print_rows(rows, template, columns)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print all of each line.")
@FORMAT
@click.argument("name")
def history(name: str, quiet: bool, no_trunc: bool, template: str) -> None:
    """Print the steps that an image was made by, the last first."""
    from ..images.store import Store
    from ..images.view import history as steps

    rows = []
    for step in steps(Store().find(name)):
        by = step["CreatedBy"] if no_trunc or len(step["CreatedBy"]) <= 45 else step["CreatedBy"][:44] + "…"
        id = step["Id"] if no_trunc else step["Id"][7:19]
        rows.append({
            "ID": id or "<missing>", "CreatedAt": step["Created"], "CreatedSince": format_age(step["Created"]),
            "CreatedBy": printable(by), "Size": format_size(step["Size"]), "Comment": printable(step["Comment"]),
        })  # fmt: skip
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    columns = {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    }
    print_rows(rows, template, columns)


@click.command()
@click.argument("names", nargs=-1, required=True)
def untag(names: tuple[str, ...]) -> None:
    """Take names away from images, which stay until they are pruned."""
    from ..images.store import Store

    store = Store()
    for name in names:
        for known in store.names_of(name):
            store.untag(known)
            click.echo(f"Untagged: {known}")


CHANGE_OPTIONS = combine(
    many("-c", "--change", metavar="INSTRUCTION", help='As in a Dockerfile: "CMD top", "ENV A=b".'),
    click.option("-m", "--message", default="", help="What has been done."),
)


@click.command("import")
@CHANGE_OPTIONS
@click.argument("path")
@click.argument("name", default="")
def import_image(path: str, name: str, message: str, change: tuple[str, ...]) -> None:
    """Make an image of a tar of a whole root, compressed or not; PATH - is standard input."""
    from ..images import reference
    from ..images.changes import import_tar
    from ..images.store import Store

    names = [reference.parse(name)] if name else []
    with click.open_file(path, "rb") as file:
        store = Store()
        made = import_tar(store, file, names, instructions=change, message=message)
    warn(store.notes)
    click.echo(made.id)


@click.group()
def image() -> None:
    """Work with images; `warren images`, `pull`, `rmi` and the like are short for these."""


@image.command("inspect")
@FORMAT
@click.argument("names", nargs=-1, required=True)
def inspect_image(names: tuple[str, ...], template: str) -> None:
    """Print what is known of images as JSON."""
    inspect_each(names, template, ["image"])


@image.command("bootstrap")
@click.option("--suite", default="", help="Of Debian: stable, trixie...")
@click.option("--mirror", default="", metavar="URL", help="Where debootstrap gets packages from.")
@click.argument("kind", type=click.Choice(["debian", "busybox"]))
@click.argument("name", default="")
def bootstrap(kind: str, name: str, suite: str, mirror: str) -> None:
    """Make an image from Debian's packages, for machines without a registry; its NAME is KIND by default."""
    from ..images import bootstrap, reference
    from ..images.store import Store

    ref = reference.parse(name or f"localhost/{kind}")
    if kind == "busybox":
        if suite or mirror:
            raise UsageError("--suite and --mirror are for debian")
        made = bootstrap.busybox(Store(), ref)
    else:
        made = bootstrap.debian(Store(), ref, suite, mirror)
    click.echo(made.id)


@image.command("verify")
@click.option("--repair", is_flag=True, help="Fetch or unpack again what is damaged.")
def verify_images(repair: bool) -> None:
    """Hash all blobs and compare all layers with them; exit code 1 if something is damaged and not repaired."""
    problems = engine.verify_images(repair=repair)
    for problem in problems:
        click.echo(printable(str(problem)))
    sys.exit(any(not problem.repaired for problem in problems))


@image.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune_images(every: bool, force: bool) -> None:
    """Remove images without a name, and what interrupted pulls have left."""
    from ..images.store import Store

    what = "all images that no container uses" if every else "all images without a name"
    confirm(f"This will remove {what}.", force)
    click.echo(f"Total reclaimed space: {format_size(prune_images_of(Store(), every))}")


def prune_images_of(store: Any, every: bool) -> int:
    """Remove and print; bytes that are free then."""
    for name in engine.unused_names(store, every=every):
        store.untag(name)
        click.echo(f"Untagged: {name}")
    return engine.collect_images(store)


@click.command()
@click.option("--limit", type=click.IntRange(1, 100), default=25, show_default=True, help="Of each registry.")
@click.option("--no-trunc", is_flag=True, help="Print whole descriptions.")
@FORMAT
@click.argument("term")
def search(term: str, limit: int, no_trunc: bool, template: str) -> None:
    """Search registries for images: that of REGISTRY/TERM, or those that short names are looked for in."""
    from ..images.configuration import Registries

    rows = []
    for name, found in Registries().search(term, limit):
        about = printable(str(found.get("description") or ""))
        rows.append({
            "Index": name, "Name": printable(f"{name}/{found.get('name') or found.get('repo_name')}"),
            "Description": about if no_trunc or len(about) <= 45 else about[:44] + "…",
            "StarCount": found.get("star_count") or 0, "IsOfficial": "[OK]" if found.get("is_official") else "",
        })  # fmt: skip
    columns = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
    print_rows(rows, template, columns)


@click.command()
@click.option(
    "-f", "--force", is_flag=True, help="Also of several names by its id, or used; and it may be gone already."
)
@click.argument("names", nargs=-1, required=True)
def rmi(names: tuple[str, ...], force: bool) -> None:
    """Remove names of images, and what no other name and no container needs; exit code 1 if one of them stays."""
    from ..images.store import Store

    store = Store()
    failed = False
    for name in names:
        try:
            removed = engine.remove_image(name, store, force=force)
        except WarrenError as error:
            tell_error(error)
            failed |= not (force and isinstance(error, NotFoundError))
            continue
        for known in removed.names:
            click.echo(f"Untagged: {known}")
        if removed.id:
            click.echo(f"Deleted: {removed.id}")
    engine.collect_images(store)
    sys.exit(failed)


@click.command()
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image another name."""
    from ..images import reference
    from ..images.store import Store

    store = Store()
    store.tag(reference.parse(target), store.find(source).manifest.digest)


@click.command()
@click.option("-i", "--input", "path", default="-", metavar="FILE", help="Instead of standard input.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and warnings.")
def load(path: str, quiet: bool) -> None:
    """Take images from an archive: docker's or an OCI layout, compressed or not."""
    from ..images.archive import load as take
    from ..images.store import Store

    with click.open_file(path, "rb") as file:
        store = Store()
        found = take(file, store)
    warn(store.notes)
    for image in found if not quiet else ():
        click.echo(f"Loaded image: {', '.join(image.names) or image.id}")


@click.command()
@click.option("-o", "--output", "path", default="-", metavar="FILE", help="Instead of standard output.")
@click.option("--format", "style", default="docker-archive", type=click.Choice(["docker-archive", "oci-archive"]))
@click.argument("names", nargs=-1, required=True)
def save(names: tuple[str, ...], path: str, style: str) -> None:
    """Write images to an archive."""
    from ..images import reference
    from ..images.archive import save as write
    from ..images.store import Store

    store = Store()
    images = [(store.find(name), [reference.parse(name).familiar]) for name in names]
    if path == "-" and sys.stdout.isatty():
        raise UsageError("not to a terminal", hint="--output FILE, or a pipe")
    with click.open_file(path, "wb") as file:
        write(images, store, file, style)


@click.command()
@click.option("-u", "--username", default="")
@click.option("-p", "--password", default="")
@click.option("--password-stdin", is_flag=True)
@click.argument("registry", default="docker.io")
def login(registry: str, username: str, password: str, password_stdin: bool) -> None:
    """Keep user and password for a registry, once it has taken them."""
    from ..images import credentials
    from ..images.configuration import Registries
    from ..images.reference import Reference
    from ..images.registry import Registry

    user = username or click.prompt("Username", err=True)
    secret = sys.stdin.readline().rstrip("\r\n") if password_stdin else password
    secret = secret or click.prompt("Password", hide_input=True, err=True)
    endpoint = Registries().endpoints(Reference(registry, "login"))[-1]
    Registry(endpoint, (user, secret)).ping()
    click.echo(f"Login Succeeded: {credentials.store(registry, user, secret)}")


@click.command()
@click.argument("registry", default="docker.io")
def logout(registry: str) -> None:
    """Forget user and password for a registry."""
    from ..images import credentials

    if not credentials.forget(registry):
        raise UsageError(f"not logged in to {registry}")
    click.echo(f"Removed login credentials for {registry}")


for _command in (history, import_image, pull, push, tag, untag, load, save):
    image.add_command(_command)
image.add_command(images, "ls")
image.add_command(rmi, "rm")
