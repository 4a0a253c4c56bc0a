"""`warren`: the command line for people.  Parses with click, calls one function, prints."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any, NoReturn

import click

from runtime import __version__, engine
from runtime.config import HOST, ContainerConfig
from runtime.doctor import examine
from runtime.errors import NotFoundError, UsageError, WarrenError
from runtime.host import Host, warning_for_root
from runtime.jsontext import dump_json
from runtime.syscalls import take_interrupt

KILLED = 137
"""Exit code of what SIGKILL has ended, as the kernel's OOM killer does."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="warren")
def commands() -> None:
    """Run isolated processes on this host's kernel."""


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def _many(*names: str, help: str, metavar: str) -> Callable[[Any], Any]:
    return click.option(*names, multiple=True, help=help, metavar=metavar)


LIMIT_OPTIONS = _options(
    click.option("-m", "--memory", default="", metavar="SIZE", help="Limit of memory."),
    click.option("--memory-swap", default="", metavar="SIZE", help="Limit of memory and swap together; -1 for none."),
    click.option("--memory-reservation", default="", metavar="SIZE", help="Memory that others leave it."),
    click.option("--memory-swappiness", type=int, default=None, metavar="0-100", help="How willingly it swaps."),
    click.option("--oom-kill-disable", is_flag=True, help="Let it wait for memory instead of being killed."),
    click.option("--cpus", default="", metavar="NUMBER", help="Processors' worth of time, such as 1.5."),
    click.option("-c", "--cpu-shares", type=int, default=0, metavar="2-262144", help="Weight; 1024 is the default."),
    click.option("--cpu-quota", type=int, default=0, metavar="MICROSECONDS", help="Time in each period."),
    click.option("--cpu-period", type=int, default=0, metavar="MICROSECONDS", help="Length of a period."),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="Processors it may use, such as 0-2,7."),
    click.option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes it may use."),
    click.option("--pids-limit", type=int, default=None, metavar="NUMBER",
                 help="Limit of processes (1024); 0 or -1 for none."),
    click.option("--blkio-weight", type=int, default=0, metavar="10-1000", help="Weight of its block I/O."),
    _many("--blkio-weight-device", metavar="PATH:WEIGHT", help="The same for one device."),
    _many("--device-read-bps", metavar="PATH:SIZE", help="Limit of bytes read a second."),
    _many("--device-write-bps", metavar="PATH:SIZE", help="Limit of bytes written a second."),
    _many("--device-read-iops", metavar="PATH:NUMBER", help="Limit of reads a second."),
    _many("--device-write-iops", metavar="PATH:NUMBER", help="Limit of writes a second."),
    _many("--device-cgroup-rule", metavar="RULE", help='Allow more devices: "c 10:229 rwm".'),
    click.option("--cgroup-parent", default="", metavar="PATH", help="Cgroup to make the container's in."),
    click.option("--cgroupns", default="", metavar="NS", help="host or private (the default)."),
    click.option("--best-effort", is_flag=True, help="Note limits that this host cannot hold, instead of refusing."),
)  # fmt: skip
RUN_OPTIONS = _options(
    click.option("--rootfs", default="", metavar="DIR", help="Use this directory as the root, below an overlay."),
    click.option("--write", is_flag=True, help="Let the container write to the directory of --rootfs."),
    click.option("--keep-changes", default="", metavar="DIR",
                 help="Keep what is written to the root (not to further mounts) in DIR/upper."),
    _many("--hide", metavar="PATH", help="Cover a path of the root."),
    click.option("-i", "--interactive", is_flag=True, help="Give the container this command's standard input."),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
    click.option("--rm", is_flag=True, help="Remove the container when it ends (always done so far)."),
    click.option("--name", default="", help="A name for the container."),
    _many("-e", "--env", metavar="NAME[=VALUE]", help="Set a variable; without a value, this command's own."),
    _many("--env-file", metavar="FILE", help="Read variables from a file."),
    click.option("-w", "--workdir", default="", metavar="DIR", help="The working directory."),
    click.option("-u", "--user", default=None, metavar="USER[:GROUP]", help="Name or number of the user."),
    click.option("-h", "--hostname", default="", help="The host name."),
    click.option("--read-only", is_flag=True, help="Make the root read-only."),
    _many("-v", "--volume", metavar="SRC:DST[:OPTIONS]", help="Bind a path of the host (ro, rw, O, rslave...)."),
    _many("--mount", metavar="KEY=VALUE,...", help="type=bind|tmpfs, source, target, readonly..."),
    _many("--tmpfs", metavar="DST[:OPTIONS]", help="Mount a tmpfs."),
    _many("--cap-add", metavar="NAME", help="Add a capability."),
    _many("--cap-drop", metavar="NAME", help="Drop a capability."),
    _many("--security-opt", metavar="OPTION", help="no-new-privileges=false, systempaths=unconfined, mask=, unmask="),
    _many("--ulimit", metavar="TYPE=SOFT[:HARD]", help="Set a resource limit."),
    _many("--sysctl", metavar="KEY=VALUE", help="Set a parameter of one of the container's namespaces."),
    _many("--device", metavar="HOST[:CONTAINER[:rwm]]", help="Give it a device."),
    click.option("--shm-size", default="64m", metavar="SIZE", help="Size of /dev/shm."),
    click.option("--pid", default="", metavar="NS", help="host, private, container:NAME or ns:PATH."),
    click.option("--ipc", default="", metavar="NS", help="host, private, container:NAME or ns:PATH."),
    click.option("--uts", default="", metavar="NS", help="host, private, container:NAME or ns:PATH."),
    click.option("--network", "--net", default="none", metavar="NET", help="none, host, container:NAME or ns:PATH."),
    click.option("--userns", default="", metavar="NS", help="host or private (the default)."),
    click.option("--init", is_flag=True, help="Run a reaper as process 1."),
    click.option("--privileged", is_flag=True, help="All capabilities, no user namespace, nothing masked."),
    click.option("--entrypoint", default=None, metavar="COMMAND", help="Put a command before the given one."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Kill it then."),
    LIMIT_OPTIONS,
    click.option("--isolation", default="", metavar="KIND", help="container, vm or vm:microvm, vm:pc, vm:uml."),
    click.option("--kernel", default="", metavar="FILE", help="The kernel of a virtual machine."),
    click.option("--accel", default="auto", type=click.Choice(["auto", "kvm", "tcg"]), help="What runs its processor."),
    click.option("--boot-timeout", default=60.0, type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                 help="How long it may take to come up."),
    click.option("--pull", default="missing", type=click.Choice(["missing", "always", "never"]),
                 help="When to fetch the image."),
    click.option("--plan", default=None, type=click.Choice(["text", "json"]), help="Print the steps, launch nothing."),
)  # fmt: skip


class RunCommand(click.Command):
    """`run`, whose options end at the source, or for `host` at a "--" behind it; --plan may stand without a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        source = self._source(args)
        is_host = args[source : source + 1] == [HOST] and not any(_is_rootfs(word) for word in args[:source])
        if is_host and "--" in args[source:]:
            end = args.index("--", source)
            between = args[source + 1 : end]
            if between and between[0].startswith("-"):
                args = [*args[:source], *between, HOST, *args[end:]]
                source += len(between)
        args[:source] = ["--plan=text" if word == "--plan" else word for word in args[:source]]
        return super().parse_args(ctx, args)

    def _source(self, args: list[str]) -> int:
        """Index of the first word that is neither an option nor the value of one."""
        valued = {name for option in self.params if isinstance(option, click.Option) and not option.is_flag
                  for name in option.opts} - {"--plan"}  # fmt: skip
        index = 0
        while index < len(args) and args[index].startswith("-") and args[index] not in ("-", "--"):
            index += 2 if _takes_next(args[index], valued) else 1
        return min(index, len(args))


def _is_rootfs(word: str) -> bool:
    return word == "--rootfs" or word.startswith("--rootfs=")


def _takes_next(word: str, valued: set[str]) -> bool:
    """Whether the value of an option is the next word; short options may stand together, as in -itw DIR."""
    if word.startswith("--"):
        return word in valued
    letters = word[1:]
    first = next((n for n, letter in enumerate(letters) if f"-{letter}" in valued), len(letters))
    return first == len(letters) - 1


@commands.command(cls=RunCommand, context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]})
@RUN_OPTIONS
@click.argument("words", nargs=-1, metavar="[host] COMMAND...")
def run(words: tuple[str, ...], **options: Any) -> None:
    """Run a command in a new container.

    `warren run IMAGE COMMAND` uses an image, which is pulled if need be.  `warren run host -- COMMAND` uses the host's
    own root, read-only underneath: the host's files cannot be changed, but what root may read the command may read.
    `warren run --rootfs DIR COMMAND` uses a directory.
    """
    style, pull = options.pop("plan"), options.pop("pull")
    config = _config(list(words), options)
    if style:
        _print_plan(config, style)
        return
    result = engine.run_foreground(config, pull, _fetch)
    _warn([result.enforced[key] for key in ("image",) if key in result.enforced])
    if result.oom_killed and result.returncode == KILLED:
        click.echo(f"warren: out of memory: a process was killed at the limit of {config.memory}", err=True)
    sys.exit(result.returncode)


@commands.command()
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


FORMAT = click.option("-f", "--format", "template", default="", metavar="TEMPLATE", help="json, or a Go template.")


@commands.command()
@FORMAT
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], template: str) -> None:
    """Print what is known of containers, or else of images, as JSON; `enforced` says how each limit is held."""
    _print_objects([_inspect(name) for name in names], template)


def _inspect(name: str) -> Any:
    try:
        return engine.inspect(name)
    except NotFoundError:
        try:
            return _inspect_image(name)
        except NotFoundError:
            raise NotFoundError(f"no such container or image: {name!r}") from None


def _inspect_image(name: str) -> Any:
    from runtime.images.store import Store
    from runtime.images.view import inspect as look

    return look(Store().find(name))


def _print_objects(found: list[Any], template: str) -> None:
    """As docker does: all of them as one JSON list, or the template for each, a line each."""
    if template in ("", "json"):
        click.echo(dump_json(found, 2 if not template else 0))
    else:
        _print_each(found, template)


def _print_each(values: list[Any], template: str) -> None:
    from runtime.gotemplate import compile_template

    render = compile_template(template)
    for value in values:
        click.echo(render(value))


def _print_rows(rows: list[dict[str, Any]], template: str, columns: dict[str, str]) -> None:
    """A table with these columns (key: heading), a list for json, or a template for each row, after "table" headed."""
    from runtime.gotemplate import compile_template

    if template == "json":
        click.echo(dump_json(rows, 2))
        return
    if template and not template.startswith("table"):
        _print_each(rows, template)
        return
    chosen = template.removeprefix("table").strip() or "\t".join(f"{{{{.{key}}}}}" for key in columns)
    render = compile_template(chosen)
    headings = {key: columns.get(key, key.upper()) for key in (*columns, *(rows[0] if rows else ()))}
    lines = [render(row).split("\t") for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    for line in lines:
        click.echo("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip())


def _size(size: int) -> str:
    """docker's: powers of 1000, three digits."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g}{units[0]}"


_UNITS = {"year": 31536000, "month": 2592000, "week": 604800, "day": 86400, "hour": 3600, "minute": 60}
"""Seconds."""


def _ago(time: str) -> str:
    """How long ago an RFC 3339 time was, in one unit; "N/A" for none."""
    try:
        then = datetime.fromisoformat(time[:19] + "+00:00")
    except ValueError:
        return "N/A"
    seconds = max(0, (datetime.now(UTC) - then).total_seconds())
    for name, length in _UNITS.items():
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {name}s ago"
    return f"{int(seconds)} seconds ago"


@commands.command()
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]")
@click.option(
    "--verify-key", default="", metavar="FILE", help="Only if cosign has signed it with this key's private half."
)
@click.argument("name")
def pull(name: str, platform: str, quiet: bool, verify_key: str) -> None:
    """Fetch an image from its registry; an interrupted pull is resumed."""
    from runtime.images.manifest import parse_platform
    from runtime.images.pull import pull as fetch
    from runtime.images.store import Store

    wanted = parse_platform(platform) if platform else None
    store = Store()
    with _progress(quiet) as progress:
        image = fetch(name, store, platform=wanted, progress=progress, verify_key=verify_key)
    _warn(store.notes)
    click.echo(image.id)


def _fetch(name: str, store: Any) -> Any:
    """What `run` pulls with."""
    from runtime.images.pull import pull

    with _progress(quiet=False) as progress:
        return pull(name, store, progress=progress)


@commands.command()
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.argument("name")
def push(name: str, quiet: bool) -> None:
    """Send an image to the registry that its name says."""
    from runtime.images import reference
    from runtime.images.push import push as send
    from runtime.images.store import Store

    store = Store()
    with _progress(quiet) as progress:
        digest = send(store.find(name), reference.parse(name), store, progress=progress)
    if not quiet:
        click.echo(digest)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each blob on a terminal; else a line for each that is complete."""
    if quiet or not sys.stderr.isatty():
        yield partial(_tell_complete, set(), quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bars = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    console=Console(stderr=True))  # fmt: skip
    tasks: dict[str, Any] = {}

    def tell(digest: str, done: int, size: int) -> None:
        task = tasks.get(digest)
        if task is None:
            task = tasks[digest] = bars.add_task(digest[7:19], total=size)
        bars.update(task, completed=done)

    with bars:
        yield tell


def _tell_complete(told: set[str], quiet: bool, digest: str, done: int, size: int) -> None:
    if done == size and not quiet and digest not in told:
        told.add(digest)
        click.echo(f"{digest[7:19]}: {size} bytes", err=True)


def _warn(notes: list[str]) -> None:
    for note in notes:
        click.echo(f"warren: warning: {_printable(note)}", err=True)


@commands.command()
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids.")
@click.option("--digests", is_flag=True, help="Print digests of manifests.")
@FORMAT
@click.argument("name", default="")
def images(name: str, quiet: bool, no_trunc: bool, digests: bool, template: str) -> None:
    """List the images in the store, or those of one repository; SIZE is what is transferred."""
    from runtime.images import reference
    from runtime.images.store import Store
    from runtime.images.view import inspect as look

    store = Store()
    found = [(reference.parse(known), image) for image in store.images() for known in image.names]
    _warn(store.notes)
    wanted = reference.parse(name) if name else None
    rows = []
    for ref, image in found:
        if wanted and (ref.name != wanted.name or (":" in name.rpartition("/")[2] and ref.tag != wanted.tag)):
            continue
        created = look(image)["Created"]
        short = reference.parse(ref.name).familiar.removesuffix(":latest")
        rows.append({
            "Repository": short, "Tag": ref.tag or "<none>", "Digest": image.manifest.digest,
            "ID": image.id if no_trunc else image.id[7:19], "CreatedAt": created, "CreatedSince": _ago(created),
            "Size": _size(image.size),
        })  # fmt: skip
    if quiet:
        for id in dict.fromkeys(str(row["ID"]) for row in rows):
            click.echo(id)
        return
    columns = {"Repository": "REPOSITORY", "Tag": "TAG", **({"Digest": "DIGEST"} if digests else {}), "ID": "IMAGE ID",
               "CreatedSince": "CREATED", "Size": "SIZE"}  # fmt: skip
    _print_rows(rows, template, columns)


@commands.command()
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print all of each line.")
@FORMAT
@click.argument("name")
def history(name: str, quiet: bool, no_trunc: bool, template: str) -> None:
    """Print the steps that an image was made by, the last first."""
    from runtime.images.store import Store
    from runtime.images.view import history as steps

    rows = []
    for step in steps(Store().find(name)):
        by = step["CreatedBy"] if no_trunc or len(step["CreatedBy"]) <= 45 else step["CreatedBy"][:44] + "…"
        id = step["Id"] if no_trunc else step["Id"][7:19]
        rows.append({
            "ID": id or "<missing>", "CreatedAt": step["Created"], "CreatedSince": _ago(step["Created"]),
            "CreatedBy": _printable(by), "Size": _size(step["Size"]), "Comment": _printable(step["Comment"]),
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
    _print_rows(rows, template, columns)


def _printable(text: str) -> str:
    """What an image says may not steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


@commands.command()
@click.argument("names", nargs=-1, required=True)
def untag(names: tuple[str, ...]) -> None:
    """Take names away from images, which stay until they are pruned."""
    _untag(names)


def _untag(names: tuple[str, ...]) -> Any:
    """The store that they were in."""
    from runtime.images.store import Store

    store = Store()
    for name in names:
        for known in store.names_of(name):
            store.untag(known)
            click.echo(f"Untagged: {known}")
    return store


@commands.command()
@FORMAT
@click.argument("directory")
def diff(directory: str, template: str) -> None:
    """List what a container has changed of its image: A added, C changed, D deleted.

    DIRECTORY is what `warren run --keep-changes DIRECTORY IMAGE` was given.
    """
    from runtime.images.changes import changes, read_base
    from runtime.images.store import Store

    store = Store()
    lower = store.layer_paths(store.load(read_base(directory)).chains)
    found = changes(f"{directory}/upper", lower)
    if template:
        _print_rows([{"Kind": kind, "Path": path} for kind, path in found], template, {"Kind": "KIND", "Path": "PATH"})
        return
    for kind, path in found:
        click.echo(f"{kind} {_printable(path)}")


CHANGE_OPTIONS = _options(
    _many("-c", "--change", metavar="INSTRUCTION", help='As in a Dockerfile: "CMD top", "ENV A=b".'),
    click.option("-m", "--message", default="", help="What has been done."),
)


@commands.command()
@CHANGE_OPTIONS
@click.option("-a", "--author", default="", help="Who has done it.")
@click.argument("directory")
@click.argument("name", default="")
def commit(directory: str, name: str, author: str, message: str, change: tuple[str, ...]) -> None:
    """Make an image of a container's image and what it has changed.

    DIRECTORY is what `warren run --keep-changes DIRECTORY IMAGE` was given.
    """
    from runtime.images import reference
    from runtime.images.changes import commit as make
    from runtime.images.changes import read_base
    from runtime.images.store import Store

    store = Store()
    names = [reference.parse(name)] if name else []
    base = store.load(read_base(directory))
    made = make(store, base, f"{directory}/upper", names, instructions=change, author=author, message=message)
    click.echo(made.id)


@commands.command("import")
@CHANGE_OPTIONS
@click.argument("path")
@click.argument("name", default="")
def import_image(path: str, name: str, message: str, change: tuple[str, ...]) -> None:
    """Make an image of a tar of a whole root, compressed or not; PATH - is standard input."""
    from runtime.images import reference
    from runtime.images.changes import import_tar
    from runtime.images.store import Store

    names = [reference.parse(name)] if name else []
    with click.open_file(path, "rb") as file:
        store = Store()
        made = import_tar(store, file, names, instructions=change, message=message)
    _warn(store.notes)
    click.echo(made.id)


@commands.group()
def image() -> None:
    """Work with images; `warren images`, `pull`, `rmi` and the like are short for these."""


@image.command("inspect")
@FORMAT
@click.argument("names", nargs=-1, required=True)
def inspect_image(names: tuple[str, ...], template: str) -> None:
    """Print what is known of images as JSON."""
    _print_objects([_inspect_image(name) for name in names], template)


@image.command("bootstrap")
@click.option("--suite", default="", help="Of Debian: stable, trixie...")
@click.option("--mirror", default="", metavar="URL", help="Where debootstrap gets packages from.")
@click.argument("kind", type=click.Choice(["debian", "busybox"]))
@click.argument("name", default="")
def bootstrap(kind: str, name: str, suite: str, mirror: str) -> None:
    """Make an image from Debian's packages, for machines without a registry; its NAME is KIND by default."""
    from runtime.images import bootstrap, reference
    from runtime.images.store import Store

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
        click.echo(_printable(str(problem)))
    sys.exit(any(not problem.repaired for problem in problems))


@image.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune_images(every: bool, force: bool) -> None:
    """Remove images without a name, and what interrupted pulls have left."""
    from runtime.images.store import Store

    what = "all images that no container uses" if every else "all images without a name"
    _confirm(f"This will remove {what}.", force)
    _prune(Store(), every)


def _confirm(what: str, force: bool) -> None:
    if not force:
        click.confirm(f"{what} Continue?", abort=True, err=True)


def _prune(store: Any, every: bool) -> None:
    for name in engine.unused_names(store, every=every):
        store.untag(name)
        click.echo(f"Untagged: {name}")
    click.echo(f"Total reclaimed space: {_size(engine.collect_images(store))}")


@commands.group()
def system() -> None:
    """What all of it takes on this host, and removing what nobody needs."""


@system.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Each image by itself.")
@FORMAT
def disk_usage(verbose: bool, template: str) -> None:
    """Print what images take on disk: their archives and what these are unpacked to, both shared by many images."""
    from runtime.images import reference
    from runtime.images.store import Store

    store = Store()
    found, size, free, partial = engine.image_usage(store)
    _warn(store.notes)
    if verbose:
        rows = [
            {"Repository": reference.parse(ref.name).familiar.removesuffix(":latest"), "Tag": ref.tag or "<none>",
             "ID": one.image.id[7:19], "Size": _size(one.size), "SharedSize": _size(one.size - one.unique),
             "UniqueSize": _size(one.unique), "Containers": one.active}
            for one in found for ref in map(reference.parse, one.image.names)
        ]  # fmt: skip
        _print_rows(rows, template, {
            "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Size": "SIZE", "SharedSize": "SHARED SIZE",
            "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
        })  # fmt: skip
        return
    rows = [
        {"Type": "Images", "Total": len(found), "Active": sum(one.active > 0 for one in found), "Size": _size(size),
         "Reclaimable": f"{_size(free)} ({100 * free // size if size else 0}%)"},
        {"Type": "Interrupted pulls", "Total": "", "Active": "", "Size": _size(partial), "Reclaimable": _size(partial)},
    ]  # fmt: skip
    columns = ("Type", "Total", "Active", "Size", "Reclaimable")
    _print_rows(rows, template, {name: name.upper() for name in columns})


@system.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune_system(every: bool, force: bool) -> None:
    """Remove what killed commands have left of containers, and images as `image prune` does."""
    from runtime.images.store import Store

    what = "all images that no container uses" if every else "all images without a name"
    _confirm(f"This will remove leftovers of containers and {what}.", force)
    engine.clean_up()
    _prune(Store(), every)


@commands.command()
@click.option("--limit", type=click.IntRange(1, 100), default=25, show_default=True, help="Of each registry.")
@click.option("--no-trunc", is_flag=True, help="Print whole descriptions.")
@FORMAT
@click.argument("term")
def search(term: str, limit: int, no_trunc: bool, template: str) -> None:
    """Search registries for images: that of REGISTRY/TERM, or those that short names are looked for in."""
    from runtime.images.configuration import Registries

    rows = []
    for name, found in Registries().search(term, limit):
        about = _printable(str(found.get("description") or ""))
        rows.append({
            "Index": name, "Name": _printable(f"{name}/{found.get('name') or found.get('repo_name')}"),
            "Description": about if no_trunc or len(about) <= 45 else about[:44] + "…",
            "StarCount": found.get("star_count") or 0, "IsOfficial": "[OK]" if found.get("is_official") else "",
        })  # fmt: skip
    columns = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
    _print_rows(rows, template, columns)


@commands.command()
@click.argument("names", nargs=-1, required=True)
def rmi(names: tuple[str, ...]) -> None:
    """Remove names of images, and what no other name and no container needs."""
    engine.collect_images(_untag(names))


@commands.command()
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image another name."""
    from runtime.images import reference
    from runtime.images.store import Store

    store = Store()
    store.tag(reference.parse(target), store.find(source).manifest.digest)


@commands.command()
@click.option("-i", "--input", "path", default="-", metavar="FILE", help="Instead of standard input.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and warnings.")
def load(path: str, quiet: bool) -> None:
    """Take images from an archive: docker's or an OCI layout, compressed or not."""
    from runtime.images.archive import load as take
    from runtime.images.store import Store

    with click.open_file(path, "rb") as file:
        store = Store()
        found = take(file, store)
    _warn(store.notes)
    for image in found if not quiet else ():
        click.echo(f"Loaded image: {', '.join(image.names) or image.id}")


@commands.command()
@click.option("-o", "--output", "path", default="-", metavar="FILE", help="Instead of standard output.")
@click.option("--format", "style", default="docker-archive", type=click.Choice(["docker-archive", "oci-archive"]))
@click.argument("names", nargs=-1, required=True)
def save(names: tuple[str, ...], path: str, style: str) -> None:
    """Write images to an archive."""
    from runtime.images import reference
    from runtime.images.archive import save as write
    from runtime.images.store import Store

    store = Store()
    images = [(store.find(name), [reference.parse(name).familiar]) for name in names]
    if path == "-" and sys.stdout.isatty():
        raise UsageError("not to a terminal", hint="--output FILE, or a pipe")
    with click.open_file(path, "wb") as file:
        write(images, store, file, style)


@commands.command()
@click.option("-u", "--username", default="")
@click.option("-p", "--password", default="")
@click.option("--password-stdin", is_flag=True)
@click.argument("registry", default="docker.io")
def login(registry: str, username: str, password: str, password_stdin: bool) -> None:
    """Keep user and password for a registry, once it has taken them."""
    from runtime.images import credentials
    from runtime.images.configuration import Registries
    from runtime.images.reference import Reference
    from runtime.images.registry import Registry

    user = username or click.prompt("Username", err=True)
    secret = sys.stdin.readline().rstrip("\r\n") if password_stdin else password
    secret = secret or click.prompt("Password", hide_input=True, err=True)
    endpoint = Registries().endpoints(Reference(registry, "login"))[-1]
    Registry(endpoint, (user, secret)).ping()
    click.echo(f"Login Succeeded: {credentials.store(registry, user, secret)}")


@commands.command()
@click.argument("registry", default="docker.io")
def logout(registry: str) -> None:
    """Forget user and password for a registry."""
    from runtime.images import credentials

    if not credentials.forget(registry):
        raise UsageError(f"not logged in to {registry}")
    click.echo(f"Removed login credentials for {registry}")


for _name in ("history", "import", "pull", "push", "tag", "untag", "load", "save"):
    image.add_command(commands.commands[_name])
image.add_command(images, "ls")
image.add_command(rmi, "rm")


def _config(words: list[str], options: dict[str, Any]) -> ContainerConfig:
    options.pop("rm")
    env_files = options.pop("env_file")
    options["env"] = [*(entry for path in env_files for entry in _env_file(path)), *_env(options["env"])]
    for name in ("volume", "mount", "ulimit", "device"):
        options[name + "s"] = options.pop(name)
    image, command = _command(words, options["rootfs"])
    return ContainerConfig(command, image=image, id=engine.new_id(), **options)


def _command(words: list[str], rootfs: str) -> tuple[str, list[str]]:
    """The image, "" for the host or a directory, and the command behind; a "--" between the two is allowed."""
    image = ""
    if not rootfs:
        if not words:
            raise UsageError("no source and no command are given", hint="warren run host -- COMMAND")
        if not words[0]:
            raise UsageError("the image has no name", hint="warren run IMAGE COMMAND")
        image, words = "" if words[0] == HOST else words[0], words[1:]
    return image, words[1:] if words[:1] == ["--"] else words


def _env(entries: "tuple[str, ...] | list[str]") -> list[str]:
    """NAME=VALUE as it is; NAME alone takes the caller's value, if there is one."""
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name:
            raise UsageError(f"--env {entry!r} has no name")
        if equals:
            found.append(entry)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def _env_file(path: str) -> list[str]:
    """docker's format: a variable a line, # begins a comment, nothing is unquoted."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(1 << 20).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--env-file {path}: {reason}".lower()) from error
    return _env([line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")])


def _print_plan(config: ContainerConfig, style: str) -> None:
    plan = engine.plan(config)
    click.echo(dump_json(plan.to_list(), 2) if style == "json" else "\n".join(plan.lines()))


def main() -> NoReturn:
    """Entry point of the launcher: one line for every error, and docker's exit codes."""
    try:
        take_interrupt()
        _warn_of_writable_code()
        commands.main(sys.argv[1:] or ["--help"], prog_name="warren", standalone_mode=False)
        sys.stdout.flush()
        code = 0
    except WarrenError as error:
        code = _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message().replace("\n", " ").rstrip("."), 125)
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        # Nobody reads on; the interpreter would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    except OSError as error:
        code = _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 125)
    except Exception as error:  # A fault of ours is one line too.
        code = _fail(f"internal error: {type(error).__name__}: {error}", 125)
    _end(code)


def _end(code: int) -> NoReturn:
    """By _exit: to take click and all that it has loaded apart costs some milliseconds, and nobody needs it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def _fail(message: str, code: int) -> int:
    message = " ".join(message.split("\n"))
    click.echo(f"warren: {message[:1].lower()}{message[1:]}", err=True)
    return code


def _warn_of_writable_code() -> None:
    if warning := warning_for_root(os.path.dirname(os.path.abspath(__file__))):
        click.echo(f"warren: warning: {warning}", err=True)
