"""The log of a container: where its monitor writes it, and reading it."""

from ..config import ContainerConfig
from ..errors import UsageError
from ..monitor import Log
from ..quantities import is_number, size

NAME = "log"
DRIVERS = ("json-file", "k8s-file", "none")


def log_of(directory: str, config: ContainerConfig) -> "Log | None":
    """What --log-driver and --log-opt ask for; UsageError."""
    driver = config.log_driver or "json-file"
    if driver not in DRIVERS:
        raise UsageError(f"--log-driver {driver!r} is unknown", hint=", ".join(DRIVERS))
    options = dict(entry.partition("=")[::2] for entry in config.log_opts)
    max_size, max_file = options.pop("max-size", ""), options.pop("max-file", "1")
    if options:
        raise UsageError(f"--log-opt {next(iter(options))!r} is unknown", hint="max-size=SIZE, max-file=NUMBER")
    if not is_number(max_file) or not 0 < int(max_file) <= 1000:
        raise UsageError(f"--log-opt max-file={max_file!r} is not a number of files", hint="1 to 1000")
    if int(max_file) > 1 and not max_size:
        raise UsageError("--log-opt max-file needs max-size", hint="such as max-size=10m")
    bytes = size(max_size, "--log-opt max-size") if max_size not in ("", "-1") else 0
    if driver == "none":
        return None
    return Log(directory, NAME, format=driver, max_size=bytes, max_file=int(max_file))
