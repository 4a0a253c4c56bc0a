"""What docker and podman have to do alike on the runtime under test; their own modules add the rest."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers.daemons import LOOP, MEMORY, Client, limit, wait_for

CANNOT_RUN = [
    ("nosuch", 127, "executable file not found in $PATH"),
    ("/bin/nosuch", 127, "no such file or directory"),
    ("/etc/passwd", 126, "permission denied"),
    ("/etc", 126, "permission denied"),
]
"""A program, the client's exit code, and words of the error."""


class ClientTests:
    """A module derives from it, and has fixtures `client` and `loop`."""

    INIT: str
    """How --init starts the command."""
    AT_ONCE: int

    def test_run_on_a_terminal(self, client: Client) -> None:
        words = client.run_words("--rm -it", "sh", "-c", "until stty size | grep '33 99'; do :; done; tty; cat; exit 4")
        with client.room.terminal(*client.words(*words)) as (process, terminal):
            terminal.expect("/dev/pts/0")
            terminal.resize(44, 111)
            terminal.write("squeak\n")
            terminal.expect("squeak\nsqueak")
            terminal.write("\4")
            assert process.wait(20) == 4

    def test_exec(self, client: Client, loop: str) -> None:
        flags = ("--user", "1000", "--workdir", "/tmp", "--env", "A=b c")
        client("exec", *flags, loop, "sh", "-c", 'id -u; pwd; echo "$A"; exit 3').exits(3, "1000\n/tmp\nb c\n")
        assert client("exec", "--interactive", loop, "cat", input="through").ok().out == "through"

    def test_exec_on_a_terminal(self, client: Client, loop: str) -> None:
        script = "until stty size | grep '33 99'; do :; done; tty; read line; echo got $line; exit 6"
        with client.room.terminal(*client.words("exec", "-it", loop, "sh", "-c", script)) as (process, terminal):
            terminal.expect("/dev/pts/")
            terminal.write("cheese\n")
            terminal.expect("got cheese")
            assert process.wait(20) == 6

    def test_detached_exec(self, client: Client, loop: str) -> None:
        client("exec", "--detach", loop, "sh", "-c", "echo here > /tmp/mark; sleep 60").ok()
        wait_for(lambda: "here" in client("exec", loop, "cat", "/tmp/mark").out, "the detached command has not run")

    def test_stop_kills_what_ignores_it(self, client: Client) -> None:
        client.run("--detach --name deaf", "sleep", "100").ok()
        client("stop", "--time", "0", "deaf").ok()
        assert client.state("deaf")["ExitCode"] == 137
        client("rm", "deaf").ok()

    def test_a_paused_container_can_be_removed(self, client: Client) -> None:
        client.run("--detach --name frozen", *LOOP).ok()
        client("pause", "frozen").ok()
        client(*client.remove, "frozen").ok()

    def test_limits(self, client: Client) -> None:
        processors = limit("cpu/cpu.cfs_quota_us", "cpu.max")
        processes = limit("pids/pids.max", "pids.max")
        flags = "--rm --memory 32m --cpus 0.5 --pids-limit 7"
        found = client.run(flags, "sh", "-c", f"{MEMORY}; {processors}; {processes}").ok().out.splitlines()
        assert [found[0], found[1].split()[0], found[2]] == [str(32 << 20), "50000", "7"]

    def test_too_many_processes_are_refused(self, client: Client) -> None:
        script = "for n in 1 2 3 4 5 6 7 8; do sleep 5 & done"
        client.run("--rm --pids-limit 5", "sh", "-c", script).exits(2, "can't fork")

    def test_init(self, client: Client) -> None:
        script = "tr '\\0' ' ' </proc/1/cmdline; kill -9 $$"
        client.run("--rm --init", "sh", "-c", script).exits(137, f"{self.INIT} -- sh -c ")

    def test_confinement(self, client: Client, directory: Path) -> None:
        (directory / "file").write_text("of the host\n")
        flags = f"--rm --read-only --volume {directory}:/data:ro --user 1000:2000 --cap-drop all --hostname burrow"
        script = "cat /data/file; id -u; id -g; hostname; grep CapBnd /proc/self/status; touch /data/x /x"
        done = client.run(flags, "sh", "-c", script)
        assert done.out.split() == ["of", "the", "host", "1000", "2000", "burrow", "CapBnd:", "0" * 16]
        done.exits(1, "/data/x: Read-only file system", "/x: Read-only file system")

    def test_many_at_once(self, client: Client) -> None:
        def one(number: int) -> str:
            return client.run("--rm", "sh", "-c", f"echo {number}; sleep 0.2").ok().line

        with ThreadPoolExecutor(self.AT_ONCE) as pool:
            assert list(pool.map(one, range(self.AT_ONCE))) == [str(number) for number in range(self.AT_ONCE)]
