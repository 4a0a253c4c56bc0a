"""What the figures of a contrast say: a document of plain data, sentences, and which claims they bear out."""

import posix
import time

from .. import __version__
from .measure import METRICS, Metric, Plan, Result
from .rows import CONTAINER, PROCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

PUBLISHED = [
    ("Start of a microVM", "Firecracker", "up to 125 ms to the guest's init; at most 5 MiB besides the guest's",
     "Firecracker specification; Agache et al., NSDI 2020"),
    ("Start of a unikernel", "LightVM", "2.3 ms, against about 1 ms of fork and exec", "Manco et al., SOSP 2017"),
    ("Start of a microVM", "Clear Containers", "60 ms", "Intel, 2015"),
    ("Start of a container in a VM", "Kata Containers", "0.5 to 2.8 s", "several reports, 2018 to 2021"),
    ("All loads", "KVM and docker",
     "containers equal or better than virtual machines in almost all cases", "Felter et al., ISPASS 2015"),
]  # fmt: skip
"""Measured by others on other machines: what, with what, how much, where it stands."""

METHOD = [
    "All times are this host's: from the call that launches to what comes back over a pipe; no guest's clock is used.",
    (
        "Every row runs once a round, each round beginning with another row. Figures are medians of the rounds; "
        "ranges go from the smallest to the largest sample."
    ),
    "The first run of each row is not counted: it unpacks, makes disks and fills caches.",
    (
        "Start is measured from a running Python process: the start of the `warren` command itself, alike in all "
        "rows, is left out."
    ),
    "Loops run in one static program, the same in all rows, for a quarter of a second at least a sample.",
    (
        "Memory is the proportional set size of all processes that the instance consists of, the hypervisor with its "
        "guest's touched memory among them; memory that the host's kernel uses for it is not in it."
    ),
    (
        "Disk is what must lie there besides the image: kernel, initramfs, hypervisor with its libraries, and the disk "
        "that a PC boots from."
    ),
    (
        "Root of a virtual machine has all capabilities, as the guest's kernel is its own; a container's has the "
        "default ones, and the default seccomp filter."
    ),
    (
        "The network is the host's own for process and container, and the hypervisor's user networking (slirp) for "
        "virtual machines."
    ),
]

_REACH = {
    "host_file": "read a file of the host",
    "host_process": "see or signal a process of the host",
    "kernel_log": "read the kernel's log",
    "disk": "make a device node and open the disk",
    "mount": "mount a file system",
    "kernel_module": "load a kernel module",
    "clock": "set the clock",
    "reboot": "reboot the machine",
    "kernel_settings": "change settings of the kernel",
    "raw_packets": "send raw packets",
    "user_namespace": "make user namespaces",
    "bpf": "use bpf",
    "io_uring": "use io_uring",
    "perf_events": "use perf events",
    "keyring": "use keyrings",
    "physical_memory": "open physical memory",
}


def document(plan: Plan, results: "list[Result]", seconds: float) -> "Json":
    """Everything about a contrast as plain data."""
    return {
        "version": __version__,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "source": plan.rootfs or plan.source,
        "command": list(plan.command),
        "rounds": plan.rounds,
        "guest_memory": plan.memory,
        "budget": plan.budget,
        "machine": machine(),
        "metrics": [
            {"key": m.key, "title": m.title, "unit": m.unit, "less_is_better": m.less_is_better} for m in METRICS
        ],
        "rows": [_row(result) for result in results],
        "findings": findings(results),
        "claims": claims(results),
        "method": METHOD,
        "published": [dict(zip(("what", "system", "figure", "source"), entry, strict=True)) for entry in PUBLISHED],
    }


def machine() -> "Json":
    """This host, for whoever compares."""
    import os

    name = posix.uname()
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        memory = int(next(line for line in file if line.startswith("MemTotal")).split()[1]) << 10
    return {
        "kernel": name.release,
        "architecture": name.machine,
        "processor": models[0] if models else "",
        "processors": os.cpu_count(),
        "memory": memory,
        "load": posix.getloadavg()[0],
    }


def _row(result: Result) -> "Json":
    row = result.row
    told: Json = {"key": row.key, "title": row.title, "term": row.term, "available": not row.reason}
    if row.reason:
        return {**told, "reason": row.reason}
    if row.machine is not None:
        told["kernel_file"] = row.machine.kernel.file
        told["kernel_origin"] = row.machine.kernel.origin
    return {
        **told,
        "metrics": {metric.key: _figure(result, metric) for metric in METRICS if metric.key in result.samples},
        "missing": result.missing,
        "isolation": result.isolation,
        "guest": result.guest_memory,
        "density": result.density,
    }


def _figure(result: Result, metric: Metric) -> "Json":
    samples = [sample * metric.scale for sample in result.samples[metric.key]]
    median = result.median(metric.key)
    assert median is not None
    return {"median": median * metric.scale, "min": min(samples), "max": max(samples), "samples": samples}


# ---- sentences


def findings(results: "list[Result]") -> "list[str]":
    """What the figures show, a sentence each."""
    found: list[str] = []
    base = _by_kind(results, CONTAINER)
    machines = [result for result in results if result.row.is_machine and not result.row.reason]
    if base is None:
        return found
    for metric in METRICS:
        ours = base.median(metric.key)
        others = [(result, value) for result in machines if (value := result.median(metric.key)) is not None]
        if ours is None or not others:
            continue
        parts = [f"{result.row.title} {_format(value * metric.scale)}{_ratio(value, ours)}" for result, value in others]
        unit = f" {metric.unit}" if metric.unit else ""
        found.append(f"{metric.title}: container {_format(ours * metric.scale)}{unit}, {', '.join(parts)}.")
    shared = [r.row.title for r in results if r.isolation.get("kernel_shared") and r.row.kind != PROCESS]
    own = [f"{r.row.title} ({r.isolation['kernel']})" for r in machines if r.isolation.get("kernel_shared") is False]
    if shared and own:
        found.append(f"The host's kernel is shared by {', '.join(shared)}; a kernel of its own has {', '.join(own)}.")
    return found


def _ratio(value: float, base: float) -> str:
    """Beside the container's, in words."""
    if base <= 0 or value <= 0:
        return ""
    if value >= base:
        return f" ({_format(value / base)} times as much)"
    return f" ({_format(base / value)} times less)"


def _format(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def claims(results: "list[Result]") -> "list[Json]":
    """What courses say of containers beside virtual machines, and whether these figures show it.

    Shown is what holds for every sample of the container against every sample of each machine.
    """
    base = _by_kind(results, CONTAINER)
    machines = [result for result in results if result.row.is_machine and not result.row.reason]
    return [
        _claim("Containers start faster", "started", base, machines),
        _claim("Containers use less CPU time to start", "cpu", base, machines),
        _claim("Containers use less disk", "disk", base, machines),
        _claim("Containers use less memory", "memory", base, machines),
        _isolation_claim(base, machines),
    ]


def _claim(text: str, key: str, base: "Result | None", machines: "list[Result]") -> "Json":
    metric = next(metric for metric in METRICS if metric.key == key)
    ours = base.samples.get(key) if base else None
    measured = [result for result in machines if result.samples.get(key)]
    if not ours or not measured:
        return {"claim": text, "shown": False, "why": "there is nothing to compare with here"}
    against = [result.row.title for result in measured if min(result.samples[key]) <= max(ours)]
    least = min(min(result.samples[key]) for result in measured)
    why = f"at most {_format(max(ours) * metric.scale)} {metric.unit}, virtual machines at least "
    why += f"{_format(least * metric.scale)} {metric.unit}"
    return {
        "claim": text,
        "shown": not against,
        "why": why + (f"; not less than {', '.join(against)}" if against else ""),
    }


def _isolation_claim(base: "Result | None", machines: "list[Result]") -> "Json":
    text = "Containers isolate less"
    looked = [result for result in machines if result.isolation]
    if base is None or not base.isolation or not looked:
        return {"claim": text, "shown": False, "why": "there is nothing to compare with here"}
    own = [result for result in looked if not result.isolation["kernel_shared"]]
    shown = bool(base.isolation["kernel_shared"]) and len(own) == len(looked)
    answered = base.isolation.get("calls_answered")
    why = f"{answered} system calls of the host's kernel answer the container; "
    why += f"of {len(looked)} virtual machines {len(own)} have a kernel of their own"
    return {"claim": text, "shown": shown, "why": why}


def _by_kind(results: "list[Result]", kind: str) -> "Result | None":
    return next((result for result in results if result.row.kind == kind and not result.row.reason), None)


# ---- isolation, as rows of a table


def isolation_table(rows: "list[Json]") -> "list[tuple[str, list[str]]]":
    """Question and an answer for each row that has looked; "" where it was not asked."""
    looked = [row for row in rows if row.get("isolation")]
    table = [
        ("Kernel", [str(row["isolation"].get("kernel", "")) for row in looked]),
        ("Kernel is", ["the host's" if row["isolation"].get("kernel_shared") else "its own" for row in looked]),
        ("Processes visible", [_number(row, "processes") for row in looked]),
        ("Kernel threads visible", [_number(row, "kernel_threads") for row in looked]),
        ("Devices: block, character", [_devices(row) for row in looked]),
        ("Processors visible", [_number(row, "processors") for row in looked]),
        ("Memory that it sees, MiB", [_format(row["guest"].get("memory_total", 0) / (1 << 20)) for row in looked]),
        ("System calls that answer", [_number(row, "calls_answered") for row in looked]),
        ("System calls denied", [_number(row, "calls_denied") for row in looked]),
    ]
    for key, text in _REACH.items():
        table.append((f"Root may {text}", [_reached(row, key) for row in looked]))
    return table


def _number(row: "Json", key: str) -> str:
    return str(row["isolation"].get(key, "not tried"))


def _devices(row: "Json") -> str:
    return f"{row['isolation'].get('block_devices', '')}, {row['isolation'].get('character_devices', '')}"


def _reached(row: "Json", key: str) -> str:
    """What is allowed in a virtual machine is allowed with the guest's kernel; nothing is tried on the host."""
    answer = row["isolation"].get("reach", {}).get(key)
    if answer is None:
        return "not tried"
    if answer != "yes":
        return "no"
    return "yes" if row["isolation"].get("kernel_shared") or key.startswith("host_") else "its own"


def text_table(told: "Json") -> str:
    """The document for a terminal."""
    rows = [row for row in told["rows"] if row["available"]]
    lines = [["", *(row["title"] for row in rows)]]
    for metric in told["metrics"]:
        unit = f", {metric['unit']}" if metric["unit"] else ""
        lines.append([metric["title"] + unit, *(_cell(row, metric["key"]) for row in rows)])
    lines.append([""] * (len(rows) + 1))
    looked = [row for row in rows if row.get("isolation")]
    for question, answers in isolation_table(rows):
        by_row = dict(zip((row["key"] for row in looked), answers, strict=True))
        lines.append([question, *(by_row.get(row["key"], "") for row in rows)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    out = ["   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    for row in told["rows"]:
        if not row["available"]:
            out.append(f"not run: {row['title']} ({row['term']}): {row['reason']}")
        for key, reason in row.get("missing", {}).items():
            out.append(f"not measured: {row['title']}, {key}: {reason}")
    out.append("")
    out += [
        f"{'shown' if claim['shown'] else 'NOT shown'}: {claim['claim']}: {claim['why']}" for claim in told["claims"]
    ]
    return "\n".join(out)


def _cell(row: "Json", key: str) -> str:
    figure = row["metrics"].get(key)
    if figure is None:
        return "-"
    low, high = _format(figure["min"]), _format(figure["max"])
    spread = f" ({low} to {high})" if low != high else ""
    return _format(figure["median"]) + spread


format_figure = _format
