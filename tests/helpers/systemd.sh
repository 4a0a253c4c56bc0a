#!/bin/sh
# Part of guest.sh: turns process 1 into systemd with nothing but the tests, a system bus, and the service manager and
# bus of the ordinary user `daemon` (who is in every /etc/passwd; that of the host is read-only).
units=/run/systemd/system user=$(id -u daemon)
mkdir -p $units /run/systemd/system-generators "/run/user/$user"
chown daemon: "/run/user/$user"
chmod 700 "/run/user/$user"
for generator in /lib/systemd/system-generators/*; do
	ln -s /dev/null "/run/systemd/system-generators/${generator##*/}"
done

# Without what units depend on by default, which is all that a real machine needs to boot.
for kind in system user; do
	mkdir -p /run/systemd/$kind
	[ $kind = system ] && bus=/run/dbus/system_bus_socket options=--system || bus=%t/bus options=--session
	cat >/run/systemd/$kind/dbus.socket <<-END
		[Unit]
		DefaultDependencies=no
		[Socket]
		ListenStream=$bus
	END
	cat >/run/systemd/$kind/dbus.service <<-END
		[Unit]
		DefaultDependencies=no
		Requires=dbus.socket
		[Service]
		Type=notify
		ExecStart=/usr/bin/dbus-daemon $options --address=systemd: --nofork --nopidfile --systemd-activation
	END
done
cat >$units/user@.service <<-END
	[Unit]
	DefaultDependencies=no
	[Service]
	User=%i
	Type=notify
	Environment=XDG_RUNTIME_DIR=/run/user/%i HOME=/tmp
	ExecStart=$SYSTEMD --user --unit=dbus.socket
	Slice=user-%i.slice
	Delegate=pids memory cpu
	TasksMax=infinity
END
cat >$units/tests.service <<-END
	[Unit]
	DefaultDependencies=no
	Wants=dbus.socket user@$user.service
	After=dbus.socket user@$user.service
	[Service]
	ExecStart=$WORK/init
	StandardOutput=tty
	StandardError=inherit
	TTYPath=/dev/console
END
if [ -n "$HYBRID" ]; then
	umount /sys/fs/cgroup
	export SYSTEMD_PROC_CMDLINE="systemd.unified_cgroup_hierarchy=0"
fi
exec "$SYSTEMD" --system --unit=tests.service --log-target=console --log-level=notice --show-status=0
