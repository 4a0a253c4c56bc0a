#!/bin/sh
# The init of a test machine: makes the host's read-only tree usable, runs the selected tests, powers off.
#
# The kernel runs a short script that sets these and executes this file: PROJECT (the source tree), PYTHON, WORK (the
# directory shared with the host) and SHARE (mount(8)'s words for it), MODULES (a kernel's module directory), FILES
# (of the tests, quoted).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 WARREN_GUEST="$WORK"
trap 'sync; busybox poweroff -f' EXIT

boot() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
	ln -s /proc/self/fd /dev/fd
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts devpts /dev/pts -o ptmxmode=666
	mount -t tmpfs tmpfs /dev/shm
	mount -t mqueue mqueue /dev/mqueue

	# The tree and the work directory may lie below /tmp, which is about to be covered.
	exec 3<"$PROJECT"
	mount -t tmpfs tmpfs /tmp
	mount -t tmpfs tmpfs /run
	mount -t tmpfs -o mode=711 tmpfs /var/lib/warren
	mkdir -p "$PROJECT" "$WORK"
	mount -c --bind /proc/self/fd/3 "$PROJECT"
	# shellcheck disable=SC2086
	mount $SHARE "$WORK"
	exec 3<&-

	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
		echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
	done

	# kmod may be absent, and busybox looks for modules in a fixed place.  Dependencies come from right to left.
	for name in overlay veth bridge; do
		order=
		for file in $(sed -n "s,^\(.*/$name\.ko[.a-z]*\):\(.*\),\1\2,p" "$MODULES/modules.dep"); do order="$file $order"; done
		for file in $order; do busybox insmod "$MODULES/$file" 2>/dev/null; done
	done

	ip link set lo up 2>/dev/null
}

if [ $$ = 1 ]; then
	boot
	# It runs this file once more, as a service.
	[ -z "$SYSTEMD" ] || . "$PROJECT/tests/helpers/systemd.sh"
fi
cd "$PROJECT" || exit
: >"$WORK/booted"
eval "set -- $FILES"
"$PYTHON" -m pytest -q --no-header --color=no "$@" </dev/null
